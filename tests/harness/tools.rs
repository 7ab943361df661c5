//! Programs that look at files: run one to its end, and fail with what it says.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::harness::scenario::target_folder;

/// The folder of all files that are shipped.
pub const DEPLOY_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");

/// Packages of npm that the tests use.
const NODE_MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/js/node_modules");

/// Turns the documents of YAML files into one JSON list.
const YAML_TO_JSON: &str = "import json, sys, yaml; json.dump([d for f in sys.argv[1:] for d in yaml.safe_load_all(open(f)) if d], sys.stdout)";

/// A file or folder that is shipped.
#[must_use]
pub fn shipped(path: &str) -> PathBuf {
    Path::new(DEPLOY_FOLDER).join(path)
}

/// A command of the Python environment that `tests/run` makes.
///
/// # Errors
/// When the running test lies somewhere unexpected.
pub fn python(name: &str) -> Result<Command> {
    Ok(Command::new(target_folder()?.join("python/bin").join(name)))
}

/// Runs a command; what it printed.
///
/// # Errors
/// When it can't be run, or fails.
pub async fn run(command: &mut Command) -> Result<String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("{name} can't be run (tests/run installs it)"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} ended with {}\n{said}{errors}", output.status);
    Ok(said.into_owned())
}

/// Checks files of a folder by the TypeScript compiler, which finds the types of the official client beside itself.
/// Returns whether they are good, and what the compiler says.
///
/// # Errors
/// When the compiler can't be run.
pub async fn type_check(folder: &Path, options: &str, files: &[&str]) -> Result<(bool, String)> {
    let packages = folder.join("node_modules");
    if !packages.exists() {
        symlink(NODE_MODULES, &packages)?;
    }
    let mut compiler = Command::new(packages.join(".bin/tsc"));
    compiler.args("--noEmit --target es2022 --module esnext --moduleResolution bundler --pretty false".split(' '));
    let output = compiler.args(options.split(' ')).args(files).current_dir(folder).kill_on_drop(true).output().await;
    let output = output.context("the TypeScript compiler can't be run (tests/run installs it)")?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// The documents of YAML files.
///
/// # Errors
/// When one is no YAML.
pub async fn read_yaml(paths: &[PathBuf]) -> Result<Vec<Value>> {
    let text = run(python("python")?.args(["-c", YAML_TO_JSON]).args(paths)).await?;
    Ok(serde_json::from_str(&text)?)
}

/// All files below a folder of what is shipped, with this ending.
///
/// # Errors
/// When a folder can't be read.
pub fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, ending)?);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
