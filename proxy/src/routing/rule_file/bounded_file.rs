//! Files that are read to a limit.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a text file, but not more than a byte beyond `most`, by which the caller knows that it is too large.
pub(super) fn read_beyond(path: &Path, most: usize) -> io::Result<String> {
    let mut text = String::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_string(&mut text)?;
    Ok(text)
}
