//! CPU time of a process as measured by the scheduler, in nanoseconds per thread.
//!
//! A running thread's time is updated only at clock ticks and when it stops running, so it should be read while the
//! process sleeps.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

/// CPU time of a process so far, by thread.
#[derive(Debug, Clone, Default)]
pub struct CpuTime(BTreeMap<String, u64>);

impl CpuTime {
    /// Reads the CPU time of a process.
    pub fn of(pid: u32) -> Result<Self> {
        let folder = format!("/proc/{pid}/task");
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("process {pid} is gone"))? {
            let entry = entry?;
            // A thread may end meanwhile; it has not used any CPU time since.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let nanoseconds = text.split_whitespace().next().and_then(|number| number.parse().ok());
            let nanoseconds = nanoseconds.context("this kernel has no schedstat (CONFIG_SCHED_INFO)")?;
            threads.insert(entry.file_name().to_string_lossy().into_owned(), nanoseconds);
        }
        Ok(Self(threads))
    }

    /// Reads the total CPU time of several processes.
    pub fn of_all(pids: &[u32]) -> Result<Self> {
        // Thread ids are unique in the system.
        let each = pids.iter().map(|pid| Self::of(*pid)).collect::<Result<Vec<_>>>()?;
        Ok(Self(each.into_iter().flat_map(|process| process.0).collect()))
    }

    /// Reads the CPU time of kernel threads for softirqs, such as network interrupts; empty if they are not visible.
    pub fn of_softirqs() -> Result<Self> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if name.starts_with("ksoftirqd/") {
                threads.extend(Self::of(pid)?.0);
            }
        }
        Ok(Self(threads))
    }

    /// Nanoseconds since `before`. Ended threads are omitted, because they were idle.
    #[must_use]
    pub fn since(&self, before: &Self) -> u64 {
        let used = |(thread, now): (&String, &u64)| now.saturating_sub(before.0.get(thread).copied().unwrap_or(0));
        self.0.iter().map(used).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_whatever_thread_does_it() {
        let before = CpuTime::of(std::process::id()).unwrap();
        // CPU time is updated at the next clock tick, so work until then.
        let other = std::thread::spawn(move || while CpuTime::of(std::process::id()).unwrap().since(&before) == 0 {});
        other.join().unwrap();
    }
}
