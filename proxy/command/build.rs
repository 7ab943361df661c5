//! Embeds the commit and target of the build into the command.

#![forbid(unsafe_code)]

use std::env;
use std::path::Path;
use std::process::Command;

/// Displayed length of a commit hash.
const COMMIT_CHARS: usize = 12;

/// Variable with the commit for builds without a repository, such as an image's.
const COMMIT: &str = "TRUNKLINE_COMMIT";

fn main() {
    // Without this line cargo reruns the script after every change of the package.
    println!("cargo::rerun-if-env-changed={COMMIT}");
    let commit = env::var(COMMIT).ok().filter(|commit| !commit.is_empty()).or_else(packaged_commit).or_else(|| {
        // Embedding the commit would rebuild a developer's tree, including tests, on each commit, so only release
        // builds do it.
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

/// Commit of a package from a registry, which cargo stores beside the manifest.
fn packaged_commit() -> Option<String> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    rest.split('"').nth(1).map(str::to_owned)
}

/// Commit of this repository, ignoring an enclosing one.
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
