//! CPU time per call: medians, ratios, table.

use anyhow::{Result, ensure};
use serde::Serialize;
use trunkline_bench::spread::Spread;

use crate::callers::Window;
use crate::settings::{Load, Settings};
use crate::windows::{self, Measured, Part};

const NANOS_PER_SECOND: f64 = 1e9;
const NANOS_PER_MICRO: f64 = 1e3;

/// Target for the ratio of CPU times.
const AIM: f64 = 2.0;

/// All results of a load. Times are CPU time per call in µs.
#[derive(Debug, Serialize)]
pub(crate) struct CallsReport {
    load: Load,
    bare_us: Spread,
    app_us: Spread,
    /// App server divided by bare handler, by pair.
    app_over_bare: Spread,
    /// App server minus bare handler, by pair.
    excess_us: Spread,
    /// Base minus itself, by pair: 0 except for noise.
    bare_over_bare: Spread,
    /// Difference between both bare handler windows, by pair: 0 except for noise.
    bare_excess_us: Spread,
    proxy_us: Spread,
    windows: Vec<Measured>,
}

/// Measures a load and reports each window immediately.
pub(crate) fn measure(load: Load, settings: &Settings, tell: impl Fn(&str)) -> Result<CallsReport> {
    tell(&heading(load, settings));
    CallsReport::new(load, windows::measure(load, settings, |measured| tell(&row(measured)))?)
}

impl CallsReport {
    /// Computes the results of complete rounds.
    fn new(load: Load, windows: Vec<Measured>) -> Result<Self> {
        let of = |part| -> Vec<Window> {
            windows.iter().filter(|measured| measured.part == part).map(|measured| measured.window).collect()
        };
        let (bare, app, again) = (of(Part::Bare), of(Part::App), of(Part::BareAgain));
        let least = windows.iter().map(|measured| measured.window.cpu_ns.min(measured.window.calls)).min();
        ensure!(least > Some(0), "a window was too short to measure anything: give more --seconds");
        let times = |windows: &[Window]| Spread::of(windows.iter().map(micros_each));
        let ratios = |of: &[Window], to: &[Window]| {
            Spread::of(of.iter().zip(to).map(|(of, to)| micros_each(of) / micros_each(to)))
        };
        let excesses = |of: &[Window], over: &[Window]| {
            Spread::of(of.iter().zip(over).map(|(of, over)| micros_each(of) - micros_each(over)))
        };
        Ok(Self {
            load,
            bare_us: times(&[bare.as_slice(), again.as_slice()].concat())?,
            app_us: times(&app)?,
            app_over_bare: ratios(&app, &bare)?,
            excess_us: excesses(&app, &bare)?,
            bare_over_bare: ratios(&again, &bare)?,
            bare_excess_us: excesses(&again, &bare)?,
            proxy_us: Spread::of(app.iter().map(|window| each(window, window.proxy_cpu_ns)))?,
            windows,
        })
    }

    pub(crate) fn summary(&self) -> String {
        let line = |name: &str, figure: &Spread| {
            let Spread { median, min, max } = figure;
            format!("{name:<30}{median:>12.3}   {min:.3} to {max:.3}\n")
        };
        let is_met = if self.app_over_bare.median <= AIM { "met" } else { "missed" };
        [
            format!("\nCPU time per call at {}: medians, and from where to where\n", self.load),
            line("bare handler, us", &self.bare_us),
            line("app server, us", &self.app_us),
            line("app server / bare handler", &self.app_over_bare),
            line("app server - bare handler, us", &self.excess_us),
            line("noise: bare / bare", &self.bare_over_bare),
            line("noise: bare - bare, us", &self.bare_excess_us),
            line("proxy, us (no part of these)", &self.proxy_us),
            format!("aim: app server / bare handler at most {AIM}: {is_met}\n"),
        ]
        .concat()
    }
}

fn heading(load: Load, settings: &Settings) -> String {
    let Settings { seconds, pairs, payload, shards, .. } = settings;
    let Load { clients, outstanding } = load;
    let shards = if *shards == 1 { "1 shard".into() } else { format!("{shards} shards") };
    format!(
        "\ncalls: {clients} clients x {outstanding} outstanding, text of {payload} bytes, {shards}, \
         {pairs} rounds of 3 windows of about {seconds} s\n\
         CPU time of the server's threads; ksoftirqd is not in it: its own column is the whole machine's\n\n\
         {:>5}  {:<11} {:>9} {:>7} {:>7} {:>8} {:>8} {:>8} {:>10} {:>12}",
        "round", "server", "calls", "wall s", "CPU s", "calls/s", "us each", "proxy us", "callers us", "ksoftirqd us",
    )
}

fn row(measured: &Measured) -> String {
    let Measured { round, part, window } = measured;
    let wall_s = window.wall_ns as f64 / NANOS_PER_SECOND;
    format!(
        "{round:>5}  {:<11} {:>9} {wall_s:>7.2} {:>7.3} {:>8.0} {:>8.3} {:>8.3} {:>10.3} {:>12.3}",
        part.name(),
        window.calls,
        window.cpu_ns as f64 / NANOS_PER_SECOND,
        window.calls as f64 / wall_s,
        micros_each(window),
        each(window, window.proxy_cpu_ns),
        each(window, window.callers_cpu_ns),
        each(window, window.softirq_cpu_ns),
    )
}

fn micros_each(window: &Window) -> f64 {
    each(window, window.cpu_ns)
}

fn each(window: &Window, nanos: u64) -> f64 {
    nanos as f64 / window.calls as f64 / NANOS_PER_MICRO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_takes_twice_the_time_has_the_ratio_two() {
        let load = Load { clients: 1, outstanding: 1 };
        let measured = |part, cpu_ns| Measured {
            round: 1,
            part,
            window: Window { calls: 10, cpu_ns, proxy_cpu_ns: 5_000, callers_cpu_ns: 0, softirq_cpu_ns: 0, wall_ns: 1 },
        };
        let of = |app| vec![measured(Part::Bare, 10_000), measured(Part::App, app), measured(Part::BareAgain, 10_000)];
        let report = CallsReport::new(load, of(20_000)).unwrap();
        let is = |figure: Spread, due: f64| assert!((figure.median - due).abs() < 1e-9, "{figure:?}");
        is(report.app_over_bare, 2.0);
        is(report.excess_us, 1.0);
        is(report.bare_over_bare, 1.0);
        is(report.proxy_us, 0.5);
        assert!(report.summary().contains("at most 2: met"));
        assert!(CallsReport::new(load, of(20_010)).unwrap().summary().contains("missed"));
        assert!(CallsReport::new(load, of(0)).is_err());
    }
}
