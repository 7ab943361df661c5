//! CPU time and memory of process and machine, from `/proc` (not available on other systems), and its traffic.

use super::snapshot::{HostUsage, ProcessUsage, Rates};
use crate::engine::shard::Shared;
use crate::ground::metrics::{Counters, Direction, FrameKind, HubCounters};

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CpuTimes {
    process_s: f64,
    host_busy: f64,
    host_total: f64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ProcessStats {
    /// CPU times, for comparison with the next reading.
    pub(super) cpu: Option<CpuTimes>,
    memory_bytes: Option<u64>,
    host_memory: Option<HostMemory>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HostMemory {
    total_bytes: u64,
    used_bytes: u64,
}

impl ProcessStats {
    #[cfg(target_os = "linux")]
    pub(super) fn read_stats() -> Self {
        linux::read_stats()
    }

    /// Returns no values on this system.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn read_stats() -> Self {
        Self::default()
    }

    /// Usage of the process; the CPU share covers the `seconds` since `before`.
    pub(super) fn process(&self, before: Option<CpuTimes>, seconds: f64) -> ProcessUsage {
        let spent = self.cpu.zip(before).map(|(now, before)| now.process_s - before.process_s);
        ProcessUsage { cpu_percent: spent.map(|spent| percent(spent, seconds)), memory_bytes: self.memory_bytes }
    }

    /// Usage of the machine; the CPU share covers the time since `before`.
    pub(super) fn host(&self, before: Option<CpuTimes>) -> HostUsage {
        let times = self.cpu.zip(before);
        let share = |(now, before): (CpuTimes, CpuTimes)| {
            percent(now.host_busy - before.host_busy, now.host_total - before.host_total)
        };
        HostUsage {
            cpu_percent: times.map(share),
            cores: std::thread::available_parallelism().map_or(0, |cores| cores.get() as u64),
            memory_bytes: self.host_memory.map(|memory| memory.total_bytes),
            memory_used_bytes: self.host_memory.map(|memory| memory.used_bytes),
        }
    }
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole * 1000.0).round().max(0.0) / 10.0 } else { 0.0 }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    use procfs::process::{Process, Stat};
    use procfs::{CurrentSI, KernelStats};

    use super::{CpuTimes, HostMemory, ProcessStats};

    const BYTES_PER_KIB: u64 = 1024;

    pub(super) fn read_stats() -> ProcessStats {
        let stat = Process::myself().and_then(|process| process.stat()).ok();
        ProcessStats {
            cpu: stat.as_ref().and_then(cpu_times),
            memory_bytes: stat.map(|stat| stat.rss * procfs::page_size()),
            host_memory: fs::read_to_string("/proc/meminfo").ok().and_then(|text| host_memory(&text)),
        }
    }

    fn cpu_times(stat: &Stat) -> Option<CpuTimes> {
        let host = KernelStats::current().ok()?.total;
        let idle = host.idle + host.iowait?;
        let interrupts = host.irq.unwrap_or_default() + host.softirq.unwrap_or_default();
        let busy = host.user + host.nice + host.system + interrupts + host.steal.unwrap_or_default();
        Some(CpuTimes {
            process_s: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
            host_busy: busy as f64,
            host_total: (busy + idle) as f64,
        })
    }

    /// Total and used memory. The parser of `procfs` rejects text without certain fields that sandboxes omit.
    pub(super) fn host_memory(text: &str) -> Option<HostMemory> {
        let field_bytes = |name| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * BYTES_PER_KIB)
        };
        let total_bytes = field_bytes("MemTotal:")?;
        let used_bytes = total_bytes.saturating_sub(field_bytes("MemAvailable:")?);
        Some(HostMemory { total_bytes, used_bytes })
    }
}

/// Totals since the node started, stored in the fields for rates.
#[expect(clippy::cast_precision_loss, reason = "rates fit into 52 bits")]
pub(super) fn totals(shared: &Shared) -> Rates {
    let sum = |of: &dyn Fn(&Counters) -> u64| shared.counters().iter().map(|counters| of(counters)).sum::<u64>() as f64;
    let hubs = |of: fn(&HubCounters) -> u64| sum(&|counters| counters.hubs().map(of).sum());
    let bytes = |direction| sum(&|counters| counters.traffic(direction, FrameKind::Message).bytes.get());
    Rates {
        messages_up: hubs(|hub| hub.messages_up.get()),
        deliveries: hubs(|hub| hub.deliveries.get()),
        bytes_up: bytes(Direction::Up),
        bytes_down: bytes(Direction::Down),
        opened: hubs(HubCounters::opened),
        closed: hubs(|hub| hub.closed.total()),
    }
}

/// Rates per second between two readings, rounded to a tenth.
pub(super) fn rates(now: &Rates, before: &Rates, seconds: f64) -> Rates {
    let per_second =
        |of: fn(&Rates) -> f64| ((of(now) - of(before)).max(0.0) / seconds.max(0.001) * 10.0).round() / 10.0;
    Rates {
        messages_up: per_second(|rates| rates.messages_up),
        deliveries: per_second(|rates| rates.deliveries),
        bytes_up: per_second(|rates| rates.bytes_up),
        bytes_down: per_second(|rates| rates.bytes_down),
        opened: per_second(|rates| rates.opened),
        closed: per_second(|rates| rates.closed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_reports_the_usage_of_this_process_and_machine() {
        let stats = ProcessStats::read_stats();
        assert!(stats.memory_bytes.unwrap() > 1_000_000, "{stats:?}");
        let (cpu, memory) = (stats.cpu.unwrap(), stats.host_memory.unwrap());
        assert!(cpu.host_busy > 0.0 && cpu.host_total > cpu.host_busy && cpu.process_s >= 0.0, "{stats:?}");
        assert!(memory.total_bytes > memory.used_bytes && memory.used_bytes > 0, "{stats:?}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_reported_only_with_total_and_available_from_the_kernel() {
        let memory = linux::host_memory("MemTotal:  16 kB\nMemAvailable: 4 kB\n");
        assert_eq!(memory, Some(HostMemory { total_bytes: 16_384, used_bytes: 12_288 }));
        assert_eq!((linux::host_memory("MemTotal: 16 kB\n"), linux::host_memory("")), (None, None));
    }

    #[test]
    fn shares_are_of_the_time_between_two_readings() {
        let at = |process_s, host_busy, host_total| Some(CpuTimes { process_s, host_busy, host_total });
        let now = ProcessStats { cpu: at(3.0, 50.0, 300.0), ..ProcessStats::default() };
        let before = at(2.5, 25.0, 200.0);
        assert_eq!((now.process(before, 1.0).cpu_percent, now.host(before).cpu_percent), (Some(50.0), Some(25.0)));
        assert_eq!(now.process(None, 1.0).cpu_percent, None);
    }

    #[test]
    fn rates_are_per_second_rounded_and_never_negative() {
        let at = |deliveries, opened| Rates { deliveries, opened, ..Rates::default() };
        let now = rates(&at(130.0, 1.0), &at(100.0, 2.0), 0.9);
        assert_eq!((now.deliveries, now.opened), (33.3, 0.0));
    }

    #[test]
    fn two_simultaneous_snapshots_cause_no_infinite_rate() {
        let rate = rates(&Rates { closed: 1.0, ..Rates::default() }, &Rates::default(), 0.0);
        assert_eq!(rate.closed, 1000.0);
    }
}
