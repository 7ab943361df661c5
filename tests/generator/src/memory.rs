//! Memory of a process as measured by the system.
//!
//! Kernel memory for the process, such as socket buffers, is not included.

use std::fs;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

const KIBIBYTE: u64 = 1024;

/// Memory of a process, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Heap and stacks, which are never shared, and can't be evicted without swap.
    pub anonymous_bytes: u64,
    /// Proportional share of memory that can't be evicted, including shared memory: memory shared by workers counts
    /// once in total.
    pub proportional_bytes: u64,
    /// All resident memory, including program pages, which the system can evict and reload at any time.
    pub resident_bytes: u64,
}

impl Memory {
    /// Reads the current memory of a process.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        Self::parse(&fs::read_to_string(&path).with_context(|| format!("reading {path}"))?)
    }

    fn parse(text: &str) -> Result<Self> {
        let bytes = |name| kibibytes(text, name).map(|kibibytes| kibibytes * KIBIBYTE);
        Ok(Self {
            anonymous_bytes: bytes("Anonymous")?,
            proportional_bytes: bytes("Pss_Anon")? + bytes("Pss_Shmem")?,
            resident_bytes: bytes("Rss")?,
        })
    }
}

/// Current and peak resident memory of a process. Cheaper than [`Memory::of`], and allowed for other users' processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resident {
    /// Resident memory at present.
    pub now_bytes: u64,
    /// Peak of resident memory.
    pub peak_bytes: u64,
    /// Current heap and stacks.
    pub anonymous_bytes: u64,
}

impl Resident {
    /// Reads the current and peak memory of a process.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        Self::parse(&fs::read_to_string(&path).with_context(|| format!("reading {path}"))?)
    }

    fn parse(text: &str) -> Result<Self> {
        let bytes = |name| kibibytes(text, name).map(|kibibytes| kibibytes * KIBIBYTE);
        Ok(Self { now_bytes: bytes("VmRSS")?, peak_bytes: bytes("VmHWM")?, anonymous_bytes: bytes("RssAnon")? })
    }
}

fn kibibytes(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kibibytes.with_context(|| format!("the system tells no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_figures_are_found() {
        let text = "5587-7ffd ---p 00000000 00:00 0    [rollup]\nRss:      1752 kB\nPss_Anon:      100 kB\n\
                    Pss_Shmem:      8 kB\nAnonymous:       112 kB\n";
        let memory = Memory::parse(text).unwrap();
        let [anonymous_bytes, proportional_bytes, resident_bytes] = [112 * 1024, 108 * 1024, 1752 * 1024];
        assert_eq!(memory, Memory { anonymous_bytes, proportional_bytes, resident_bytes });
        assert!(Memory::parse("Rss: 1 kB\n").is_err());
    }

    #[test]
    fn resident_memory_is_found_in_a_process_status() {
        let status = "VmPeak:\t 9 kB\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\nRssAnon:\t  512 kB\n";
        let [now_bytes, peak_bytes, anonymous_bytes] = [1024, 2048, 512].map(|kibibytes| kibibytes * 1024);
        assert_eq!(Resident::parse(status).unwrap(), Resident { now_bytes, peak_bytes, anonymous_bytes });
    }

    #[test]
    fn allocated_and_written_memory_is_counted() {
        let before = Memory::of(std::process::id()).unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = Memory::of(std::process::id()).unwrap();
        assert!(after.anonymous_bytes >= before.anonymous_bytes + (60 << 20), "{before:?} {after:?} {}", block.len());
    }
}
