//! Tells the command which commit it is built from, and for which target.

#![forbid(unsafe_code)]

use std::env;
use std::path::Path;
use std::process::Command;

/// Length of a commit, as people read it.
const COMMIT_CHARS: usize = 12;

/// Variable that names the commit where there is no repository, as in an image's build.
const COMMIT: &str = "TRUNKLINE_COMMIT";

fn main() {
    // Without this line cargo runs the script after every change of the package.
    println!("cargo::rerun-if-env-changed={COMMIT}");
    let commit = env::var(COMMIT).ok().filter(|commit| !commit.is_empty()).or_else(packaged_commit).or_else(|| {
        // A commit would build a developer's tree anew, tests and all: only programs for others tell theirs.
        is_release().then(git_commit).flatten()
    });
    let commit = match commit {
        Some(commit) => format!("commit {}", commit.chars().take(COMMIT_CHARS).collect::<String>()),
        None if is_release() => "unknown commit".to_owned(),
        None => "development build".to_owned(),
    };
    println!("cargo::rustc-env=TRUNKLINE_BUILD={commit}, {}", env::var("TARGET").unwrap_or_default());
}

fn is_release() -> bool {
    env::var("PROFILE").is_ok_and(|profile| profile == "release")
}

/// Commit of a package from a registry: cargo puts it beside the manifest.
fn packaged_commit() -> Option<String> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    rest.split('"').nth(1).map(str::to_owned)
}

/// Commit of this repository; of another one that this one lies in, none.
fn git_commit() -> Option<String> {
    if !Path::new("../../.git").exists() {
        return None;
    }
    // A checkout changes the first file, a commit the second.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
