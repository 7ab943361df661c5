//! Seeds of targets: files in `corpus/TARGET/`, small, and readable where the format is.

use std::io;
use std::path::{Path, PathBuf};

/// Returns the folder with a target's seeds.
#[must_use]
pub fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// Reads a target's seeds in order of their names.
pub fn seeds(target: &str) -> io::Result<Vec<Vec<u8>>> {
    let files: io::Result<Vec<_>> = folder(target).read_dir()?.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut files = files?;
    files.sort();
    files.into_iter().map(std::fs::read).collect()
}
