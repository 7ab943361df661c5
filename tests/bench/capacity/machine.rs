//! Memory of the whole machine, as measured by the system.

use std::fs;

use anyhow::{Context, Result};

const KIBIBYTE: u64 = 1_024;
const TABLE: &str = "/proc/meminfo";

/// Memory available to programs without swapping.
pub(crate) fn free_bytes() -> Result<u64> {
    available(&fs::read_to_string(TABLE).with_context(|| format!("reading {TABLE}"))?)
}

/// Decrease of free memory since an earlier measurement.
pub(crate) fn taken_since(before: u64) -> Result<u64> {
    Ok(before.saturating_sub(free_bytes()?))
}

fn available(table: &str) -> Result<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes: Option<u64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kibibytes.map(|kibibytes| kibibytes * KIBIBYTE).with_context(|| format!("{TABLE} tells no MemAvailable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_counts() {
        assert_eq!(available("MemFree:  1 kB\nMemAvailable:      20 kB\n").unwrap(), 20 * 1024);
        assert!(available("MemFree: 1 kB\n").is_err());
    }
}
