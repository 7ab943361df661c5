//! Typical mistakes in apps, and the compiler messages for them.
//!
//! Each file in `rows/` is a program with one mistake. Its first line, `// remedy: words`, holds words of the message
//! that name the correct form. The expected messages beside them come from the CI toolchain. When the toolchain or a
//! message changes, renew them and read the difference:
//!
//! ```text
//! TRYBUILD=overwrite cargo test -p trunkline-mistakes --test messages
//! ```
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

const ROWS_MIN: usize = 40;

#[test]
fn each_mistake_is_told_with_its_remedy() {
    let rows = rows();
    assert!(rows.len() >= ROWS_MIN, "only {} rows", rows.len());
    let cases = trybuild::TestCases::new();
    cases.compile_fail("rows/*.rs");
    drop(cases); // runs them
    let silent: Vec<_> = rows.iter().filter_map(|row| lacks_remedy(row)).collect();
    assert!(silent.is_empty(), "messages without their remedy:\n{}", silent.join("\n"));
}

fn rows() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rows");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension() == Some(OsStr::new("rs"))).collect()
}

/// Names the row and its remedy if the message lacks it.
fn lacks_remedy(row: &Path) -> Option<String> {
    let source = fs::read_to_string(row).unwrap();
    let message = fs::read_to_string(row.with_extension("stderr")).unwrap();
    let remedy = source.lines().next().and_then(|line| line.strip_prefix("// remedy: ")).unwrap_or_default();
    let is_told = !remedy.is_empty() && message.contains(remedy);
    (!is_told).then(|| format!("{}: {remedy}", row.display()))
}
