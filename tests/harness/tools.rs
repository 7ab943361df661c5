//! Programs that check files: runs a program to its end, and fails with its output.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::harness::scenario::target_folder;

/// Folder of all shipped files.
pub const DEPLOY_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");

/// npm packages for the tests.
const NODE_MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/js/node_modules");

/// Converts the documents of YAML files to one JSON list.
const YAML_TO_JSON: &str = "import json, sys, yaml; json.dump([d for f in sys.argv[1:] for d in yaml.safe_load_all(open(f)) if d], sys.stdout)";

/// Path of a shipped file or folder.
#[must_use]
pub fn shipped(path: &str) -> PathBuf {
    Path::new(DEPLOY_FOLDER).join(path)
}

/// Command in the Python environment created by `tests/run`.
pub fn python(name: &str) -> Result<Command> {
    Ok(Command::new(target_folder()?.join("python/bin").join(name)))
}

/// Runs a command and returns its output.
pub async fn run(command: &mut Command) -> Result<String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("{name} can't be run (tests/run installs it)"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} ended with {}\n{said}{errors}", output.status);
    Ok(said.into_owned())
}

/// Checks files of a folder with the TypeScript compiler, using the official client's types. Returns whether they are
/// valid, and the compiler's output.
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

/// Reads the documents of YAML files.
pub async fn read_yaml(paths: &[PathBuf]) -> Result<Vec<Value>> {
    let text = run(python("python")?.args(["-c", YAML_TO_JSON]).args(paths)).await?;
    Ok(serde_json::from_str(&text)?)
}

/// All files with this ending below a shipped folder.
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
