//! Targets for a report, and verdicts. Pure: a report in, rows out.

use std::ops::RangeInclusive;

use crate::report::{Quantiles, Report};
use crate::slice::{Load, Target};

/// Average interval between broadcasts every 3 s.
const INTERVAL_MS: RangeInclusive<f64> = 2_990.0..=3_010.0;
const INTERVAL_MAX_MS: f64 = 3_100.0;
/// Limit of the 99th percentile of chat latencies.
const LATENCY_P99_MS: f64 = 10.0;
/// Memory of the published proxies.
const PROXY_MB: f64 = 500.0;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) load: String,
    pub(crate) what: String,
    pub(crate) asked: String,
    pub(crate) measured: String,
    /// `None` without a target.
    pub(crate) is_met: Option<bool>,
}

/// Compares the results of a run with its targets.
pub(crate) fn judge(load: &Load, report: &Report) -> Vec<Row> {
    let rows = load.targets.iter().flat_map(|target| match target {
        Target::Faults => faults(report),
        Target::FaultsInOne => vec![faults_in_one(report)],
        Target::Interval => interval(report),
        Target::Latency => vec![latency(report)],
        Target::ProxyMemory => proxy_memory(report),
        Target::GeneratorCpu => vec![generator_cpu(report)],
        Target::Shown => shown(report),
    });
    rows.map(|row| Row { load: load.name.clone(), ..row }).collect()
}

fn faults(report: &Report) -> Vec<Row> {
    let (expected, received) = (report.counts.expected.to_string(), report.counts.received.to_string());
    let deliveries = row("deliveries", expected, received, report.is_complete());
    let fault = |(name, count): (&str, u64)| row(name, "0", count.to_string(), count == 0);
    [deliveries].into_iter().chain(report.faults().map(fault)).collect()
}

fn faults_in_one(report: &Report) -> Row {
    let found: Vec<String> = report.faults().iter().filter(|(_, count)| *count > 0).map(count_of).collect();
    let measured = if found.is_empty() { "0".to_owned() } else { found.join(", ") };
    let is_met = found.is_empty() && report.is_complete();
    row(format!("faults in {} deliveries", report.counts.expected), "0", measured, is_met)
}

fn count_of((name, count): &(&str, u64)) -> String {
    format!("{count} {name}")
}

fn interval(report: &Report) -> Vec<Row> {
    let average_ms = report.average_us().map(|average_us| average_us / 1_000.0);
    let longest_ms = report.times("interval").map(|times| ms(times.max_us));
    let asked = format!("{:.0} to {:.0} ms", INTERVAL_MS.start(), INTERVAL_MS.end());
    let is_within = average_ms.is_some_and(|average_ms| INTERVAL_MS.contains(&average_ms));
    let is_short = longest_ms.is_some_and(|longest_ms| longest_ms <= INTERVAL_MAX_MS);
    vec![
        row("interval, average", asked, in_ms(average_ms), is_within),
        row("interval, longest", format!("at most {INTERVAL_MAX_MS:.0} ms"), in_ms(longest_ms), is_short),
    ]
}

fn latency(report: &Report) -> Row {
    let p99_ms = report.times("latency").map(|times| ms(times.p99_us));
    let is_met = p99_ms.is_some_and(|p99_ms| p99_ms < LATENCY_P99_MS);
    row("latency, p99", format!("below {LATENCY_P99_MS:.0} ms"), in_ms(p99_ms), is_met)
}

fn proxy_memory(report: &Report) -> Vec<Row> {
    let memory = report.proxies().map(|proxy| {
        let (peak_mb, asked) = (mb(proxy.peak_bytes), format!("below {PROXY_MB:.0} MB"));
        // Zero means that the system does not provide the value.
        let is_met = proxy.peak_bytes > 0 && peak_mb < PROXY_MB;
        row(format!("memory of {} (VmHWM)", proxy.name), asked, format!("{peak_mb:.1} MB"), is_met)
    });
    memory.collect()
}

fn generator_cpu(report: &Report) -> Row {
    let (own_s, proxies_s) = (report.generator.cpu_s, report.proxies().map(|proxy| proxy.cpu_s).sum::<f64>());
    let asked = format!("below the proxies' {proxies_s:.2} s");
    row("CPU time of the generator", asked, format!("{own_s:.2} s"), own_s < proxies_s)
}

fn shown(report: &Report) -> Vec<Row> {
    let times = |what: &str, times: &Quantiles| {
        let Quantiles { p50_us, p99_us, max_us, .. } = *times;
        let measured = format!("{:.2}, {:.2}, {:.2} ms", ms(p50_us), ms(p99_us), ms(max_us));
        Row { is_met: None, ..row(format!("{what}: p50, p99, longest"), "", measured, true) }
    };
    let each = |what: &str, generator: f64, of: fn(&crate::report::Process) -> f64| {
        let figures = report.processes.iter().map(|process| format!("{} {:.2}", process.name, of(process)));
        let figures: Vec<String> = [format!("generator {generator:.2}")].into_iter().chain(figures).collect();
        Row { is_met: None, ..row(what, "", figures.join(", "), true) }
    };
    let measured = ["latency", "sent late"].into_iter();
    let measured = measured.filter_map(|name| Some(times(name, report.times(name)?)));
    let used = [
        each("CPU seconds", report.generator.cpu_s, |process| process.cpu_s),
        each("memory at most, MB", mb(report.generator.peak_bytes), |process| mb(process.peak_bytes)),
    ];
    measured.chain(used).collect()
}

fn row(what: impl Into<String>, asked: impl Into<String>, measured: String, is_met: bool) -> Row {
    Row { load: String::new(), what: what.into(), asked: asked.into(), measured, is_met: Some(is_met) }
}

fn in_ms(time_ms: Option<f64>) -> String {
    time_ms.map_or_else(|| "nothing".to_owned(), |time_ms| format!("{time_ms:.2} ms"))
}

fn ms(time_us: u64) -> f64 {
    time_us as f64 / 1_000.0
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slice::{Length, Slice};
    use serde_json::{Value, json};

    fn report(change: impl FnOnce(&mut Value)) -> Report {
        let times = |name, p99_us, max_us| json!({"name": name, "p50_us": 900, "p99_us": p99_us, "max_us": max_us});
        let process = |name, cpu_s| json!({"name": name, "cpu_s": cpu_s, "peak_bytes": 19_000_000});
        let mut report = json!({
            "version": 1,
            "counts": {
                "sent": 9, "expected": 18, "received": 18, "lost": 0, "duplicated": 0, "reordered": 0, "misdelivered": 0
            },
            "tally": {"failed": {}, "ended": {}, "errors": {}},
            "published": {"averages": 2, "sum_us": 6_000_000.0},
            "quantiles": [times("latency", 9_990, 50_000), times("interval", 3_001_000, 3_099_000)],
            "generator": {"cpu_s": 0.9, "peak_bytes": 9_000_000},
            "processes": [process("proxy-1", 0.5), process("proxy-2", 0.5), process("app", 9.0)],
            "warnings": [],
        });
        change(&mut report);
        Report::parse(&report.to_string()).unwrap()
    }

    /// Missed targets of a slice's first load.
    fn missed(slice: Slice, report: &Report) -> Vec<String> {
        let rows = judge(&slice.loads(Length::Full)[0], report);
        rows.into_iter().filter(|row| row.is_met == Some(false)).map(|row| row.what).collect()
    }

    #[test]
    fn a_good_run_meets_everything() {
        let report = report(|_| ());
        for slice in Slice::ALL {
            assert_eq!(missed(slice, &report), [""; 0], "{slice:?}");
        }
    }

    #[test]
    fn each_fault_is_missed_by_its_name_in_every_slice() {
        for (place, name) in [
            ("/counts/lost", "lost"),
            ("/counts/duplicated", "duplicated"),
            ("/counts/reordered", "out of order"),
            ("/counts/misdelivered", "misdelivered"),
        ] {
            let report = report(|report| *report.pointer_mut(place).unwrap() = 3.into());
            for slice in [Slice::Broadcast, Slice::Chat, Slice::Many] {
                assert_eq!(missed(slice, &report), [name]);
            }
            let row = &judge(&Slice::Ten.loads(Length::Full)[0], &report)[0];
            assert_eq!((row.measured.clone(), row.is_met), (format!("3 {name}"), Some(false)));
        }
        for kind in ["failed", "ended", "errors"] {
            let report = report(|report| report["tally"][kind]["some cause"] = 1.into());
            assert_eq!(missed(Slice::Chat, &report), ["failed"]);
        }
    }

    #[test]
    fn a_run_in_which_nothing_was_sent_or_measured_proves_nothing() {
        let nothing = report(|report| {
            (report["counts"]["expected"], report["counts"]["received"]) = (0.into(), 0.into());
            (report["quantiles"], report["published"]["averages"]) = (json!([]), 0.into());
            report["processes"][0]["peak_bytes"] = 0.into();
        });
        assert_eq!(missed(Slice::Ten, &nothing), ["faults in 0 deliveries"]);
        assert_eq!(
            missed(Slice::Broadcast, &nothing),
            ["deliveries", "interval, average", "interval, longest", "memory of proxy-1 (VmHWM)"]
        );
        assert_eq!(missed(Slice::Chat, &nothing), ["deliveries", "latency, p99", "memory of proxy-1 (VmHWM)"]);
    }

    #[test]
    fn times_memory_and_cpu_are_missed_beyond_their_bounds() {
        for sum_us in [2.0 * 2_989_000.0, 2.0 * 3_011_000.0] {
            let report = report(|report| report["published"]["sum_us"] = sum_us.into());
            assert_eq!(missed(Slice::Broadcast, &report), ["interval, average"]);
        }
        let slow = report(|report| {
            report["quantiles"][0]["p99_us"] = 10_000.into();
            report["quantiles"][1]["max_us"] = 3_100_001.into();
            report["processes"][1]["peak_bytes"] = 500_000_000.into();
            report["generator"]["cpu_s"] = 1.0.into();
        });
        assert_eq!(missed(Slice::Broadcast, &slow), ["interval, longest", "memory of proxy-2 (VmHWM)"]);
        assert_eq!(missed(Slice::Chat, &slow), ["latency, p99", "memory of proxy-2 (VmHWM)"]);
        assert_eq!(missed(Slice::Many, &slow), ["CPU time of the generator"]);
    }
}
