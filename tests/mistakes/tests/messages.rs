//! Typical mistakes in apps, and the compiler messages for them.
//!
//! Each file in `rows/` is a program with one mistake. Its first line, `// remedy: words`, holds words of the message
//! that name the correct form. The programs are checked with the libraries that Cargo has built for this test:
//! `tests/run` names its selection of crates, so that the SDK is not compiled once more.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{fs, thread};

use serde::Deserialize;

const ROWS_MIN: usize = 40;

/// Dependencies of an app.
const LIBRARIES: [&str; 6] = ["anyhow", "axum", "futures_util", "serde", "tokio", "trunkline"];

/// Mark of a row that is no mistake if other crates of the selection enable a feature.
const ALONE: &str = "// only without";

#[derive(Deserialize)]
struct Artifact {
    target: Target,
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[test]
fn each_mistake_is_reported_with_its_remedy() {
    let selection = std::env::var("TRUNKLINE_SELECTION").unwrap_or_default();
    let libraries = libraries(&selection);
    let mut rows = rows();
    assert!(rows.len() >= ROWS_MIN, "only {} rows", rows.len());
    rows.retain(|row| selection.is_empty() || !fs::read_to_string(row).unwrap().contains(ALONE));
    let rows = Mutex::new(rows);
    let faults = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while let Some(row) = next(&rows) {
                    let fault = fault(&row, &libraries);
                    faults.lock().unwrap().extend(fault);
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn next(rows: &Mutex<Vec<PathBuf>>) -> Option<PathBuf> {
    rows.lock().unwrap().pop()
}

fn rows() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rows");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension() == Some(OsStr::new("rs"))).collect()
}

/// Asks Cargo for the libraries of this test, with the selection of crates with which they were built.
fn libraries(selection: &str) -> Vec<(String, PathBuf)> {
    let alone = ["--package", "trunkline-mistakes"];
    let selection = if selection.is_empty() { alone.to_vec() } else { selection.split_whitespace().collect() };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--no-run", "--test", "messages", "--message-format", "json"]).args(selection);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let artifacts = text.lines().filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    let named = artifacts.filter(|artifact| LIBRARIES.contains(&artifact.target.name.as_str()));
    let is_library = |file: &PathBuf| file.extension() == Some(OsStr::new("rlib"));
    let libraries: Vec<_> = named
        .filter_map(|artifact| Some((artifact.target.name, artifact.filenames.into_iter().find(is_library)?)))
        .collect();
    assert!(libraries.len() >= LIBRARIES.len(), "only {libraries:?}");
    libraries
}

/// Checks a row. Returns its fault.
fn fault(row: &Path, libraries: &[(String, PathBuf)]) -> Option<String> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "--emit", "metadata", "-o"]);
    rustc.arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join(row.with_extension("rmeta").file_name().unwrap()));
    for (name, file) in libraries {
        rustc.arg("--extern").arg(format!("{name}={}", file.display()));
        rustc.arg("-L").arg(format!("dependency={}", file.parent().unwrap().display()));
    }
    let output = rustc.arg(row).output().unwrap();
    let name = row.display();
    if output.status.success() {
        return Some(format!("{name}: compiles"));
    }
    let source = fs::read_to_string(row).unwrap();
    let remedy = source.lines().next().and_then(|line| line.strip_prefix("// remedy: ")).unwrap_or_default();
    let message = String::from_utf8_lossy(&output.stderr);
    (remedy.is_empty() || !message.contains(remedy)).then(|| format!("{name}: no \"{remedy}\" in\n{message}"))
}
