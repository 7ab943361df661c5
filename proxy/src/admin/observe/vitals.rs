//! CPU and memory of process and machine, from `/proc`; where there is none they are not known.

use std::fs;

use super::view::{Host, Process};

/// What the kernel counts CPU time of processes by, whatever its own clock: 100 in a second (`USER_HZ`).
const TICKS_PER_S: f64 = 100.0;

/// Bytes of a kibibyte.
const KIB: u64 = 1024;

/// CPU time spent so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    process_s: f64,
    host_busy: f64,
    host_all: f64,
}

/// What is known now.
#[derive(Debug, Clone, Default)]
pub(super) struct Vitals {
    pub(super) spent: Option<Spent>,
    memory_bytes: Option<u64>,
    host_memory: Option<(u64, u64)>,
}

impl Vitals {
    pub(super) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).ok();
        let spent = || {
            let process_s = process_s(&text("/proc/self/stat")?)?;
            let (host_busy, host_all) = host(&text("/proc/stat")?)?;
            Some(Spent { process_s, host_busy, host_all })
        };
        Self {
            spent: spent(),
            memory_bytes: text("/proc/self/status").and_then(|text| kib(&text, "VmRSS:")),
            host_memory: text("/proc/meminfo").and_then(|text| {
                let (all, free) = (kib(&text, "MemTotal:")?, kib(&text, "MemAvailable:")?);
                Some((all, all.saturating_sub(free)))
            }),
        }
    }

    /// The process, with what it spent since `before`, which is so many seconds ago.
    pub(super) fn process(&self, before: Option<Spent>, seconds: f64) -> Process {
        let spent = self.spent.zip(before).map(|(now, before)| now.process_s - before.process_s);
        Process { cpu_percent: spent.map(|spent| percent(spent, seconds)), memory_bytes: self.memory_bytes }
    }

    pub(super) fn host(&self, before: Option<Spent>) -> Host {
        let spent = self.spent.zip(before);
        let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get() as u64);
        Host {
            cpu_percent: spent
                .map(|(now, before)| percent(now.host_busy - before.host_busy, now.host_all - before.host_all)),
            cores,
            memory_bytes: self.host_memory.map(|(all, _)| all),
            memory_used_bytes: self.host_memory.map(|(_, used)| used),
        }
    }
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole * 1000.0).round().max(0.0) / 10.0 } else { 0.0 }
}

/// CPU seconds of a process: user and system time. The name in brackets may hold anything.
fn process_s(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_S)
}

/// Time of all cores: what was busy, and all.
fn host(stat: &str) -> Option<(f64, f64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<f64> = line.split_ascii_whitespace().take(8).filter_map(|field| field.parse().ok()).collect();
    let (all, idle) = (times.iter().sum::<f64>(), times.get(3)? + times.get(4)?);
    Some((all - idle, all))
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * KIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 3 0 100 1000 10 0";
        assert_eq!(process_s(stat), Some(2.0));
        assert_eq!(host("cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 1\n"), Some((20.0, 100.0)));
        assert_eq!(kib("MemTotal:  16 kB\nMemAvailable: 4 kB\n", "MemAvailable:"), Some(4096));
        assert_eq!((process_s(""), host(""), kib("", "VmRSS:")), (None, None, None));
    }

    #[test]
    fn shares_are_of_the_time_between_two_looks() {
        let at = |process_s, host_busy, host_all| Some(Spent { process_s, host_busy, host_all });
        let now = Vitals { spent: at(3.0, 50.0, 300.0), ..Vitals::default() };
        let before = at(2.5, 25.0, 200.0);
        assert_eq!((now.process(before, 1.0).cpu_percent, now.host(before).cpu_percent), (Some(50.0), Some(25.0)));
        assert_eq!(now.process(None, 1.0).cpu_percent, None);
    }
}
