//! Medians, ratios, the table, the JSON file. Pure: windows in, text out.

use anyhow::{Result, ensure};
use serde::Serialize;
use trunkline_bench::spread::Spread;
use trunkline_generator::frame;

use crate::broadcast;
use crate::crowd::Window;
use crate::part::{Measured, Part};
use crate::settings::Settings;
use crate::work::Work;

const NANOS_PER_SECOND: f64 = 1e9;
const NANOS_PER_MICRO: f64 = 1e3;
const KIBIBYTE: f64 = 1_024.0;
const MEBIBYTE: f64 = 1_048_576.0;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) settings: Settings,
    /// Size of each broadcast frame on the wire.
    frame_bytes: usize,
    /// Units of the base per CPU second.
    base: Spread,
    /// Units of the subject per CPU second.
    subject: Spread,
    /// Subject divided by base, by pair.
    ratio: Spread,
    /// CPU time of a delivery minus the base's, in µs, by pair.
    excess_us: Spread,
    /// CPU time of the app server per unit, subject divided by base, by pair; none unless both have an app server.
    app_ratio: Option<Spread>,
    /// CPU time of the app server in one base window divided by the other: 1 except for noise.
    app_base_over_base: Option<Spread>,
    /// 99th percentile of the latency, subject divided by base, by pair.
    p99_ratio: Spread,
    /// Ratio of both base windows, by pair: 1 except for noise.
    base_over_base: Spread,
    /// Base minus base in µs, by pair: 0 except for noise.
    base_excess_us: Spread,
    /// Base divided by base, by pair: 1 except for noise.
    base_p99_ratio: Spread,
    /// Memory of the subject after the windows of the first and last rounds, in MiB.
    memory_mib: [f64; 2],
    /// Peak memory of the subject within a window, in MiB, if measured.
    memory_peak_mib: Option<f64>,
    /// Memory growth per client, in KiB.
    memory_per_client_kib: f64,
    windows: Vec<Measured>,
}

impl Report {
    /// Computes the results of complete rounds.
    pub(crate) fn new(settings: Settings, windows: Vec<Measured>) -> Result<Self> {
        let of = |part| -> Vec<Window> {
            windows.iter().filter(|measured| measured.part == part).map(|measured| measured.window).collect()
        };
        let (base, subject, again) = (of(Part::Base), of(Part::Subject), of(Part::BaseAgain));
        let least = windows.iter().map(|measured| measured.window.cpu_ns.min(measured.window.units)).min();
        ensure!(least > Some(0), "a window was too short to measure anything: give more --seconds");
        let rates = |windows: &[Window]| Spread::of(windows.iter().map(per_cpu_second));
        let ratios = |of: &[Window], to: &[Window]| {
            Spread::of(of.iter().zip(to).map(|(of, to)| per_cpu_second(of) / per_cpu_second(to)))
        };
        let excesses = |of: &[Window], over: &[Window]| {
            Spread::of(of.iter().zip(over).map(|(of, over)| micros_each(of) - micros_each(over)))
        };
        let p99s = |of: &[Window], to: &[Window]| {
            Spread::of(of.iter().zip(to).map(|(of, to)| of.p99_us as f64 / to.p99_us.max(1) as f64))
        };
        let app_each = |window: &Window| window.app_cpu_ns as f64 / window.units as f64;
        let has_apps = settings.compares_proxies();
        let apps = |of: &[Window], to: &[Window]| {
            has_apps.then(|| Spread::of(of.iter().zip(to).map(|(of, to)| app_each(of) / app_each(to)))).transpose()
        };
        let memory = |window: Option<&Window>| window.map_or(0.0, |window| window.memory_bytes as f64 / MEBIBYTE);
        let gained = subject.last().map_or(0, |window| window.memory_bytes.saturating_sub(window.alone_bytes));
        Ok(Self {
            memory_per_client_kib: gained as f64 / f64::from(settings.clients) / KIBIBYTE,
            frame_bytes: frame_bytes(&settings),
            base: rates(&[base.as_slice(), again.as_slice()].concat())?,
            subject: rates(&subject)?,
            ratio: ratios(&subject, &base)?,
            excess_us: excesses(&subject, &base)?,
            app_ratio: apps(&subject, &base)?,
            app_base_over_base: apps(&again, &base)?,
            p99_ratio: p99s(&subject, &base)?,
            base_over_base: ratios(&again, &base)?,
            base_excess_us: excesses(&again, &base)?,
            base_p99_ratio: p99s(&again, &base)?,
            memory_peak_mib: subject
                .iter()
                .filter_map(|window| window.peak_bytes)
                .max()
                .map(|peak| peak as f64 / MEBIBYTE),
            memory_mib: [memory(subject.first()), memory(subject.last())],
            settings,
            windows,
        })
    }

    pub(crate) fn summary(&self) -> String {
        let rate = |name: &str, rate: &Spread| {
            let Spread { median, min, max } = rate;
            format!("{name:<38}{median:>12.0}   {min:.0} to {max:.0}\n")
        };
        let fine = |name: &str, figure: &Spread| {
            let Spread { median, min, max } = figure;
            format!("{name:<38}{median:>12.3}   {min:.3} to {max:.3}\n")
        };
        let (base, subject) = (Part::Base.name(&self.settings), Part::Subject.name(&self.settings));
        let ([first, last], units) = (self.memory_mib, self.settings.work.units());
        let app = self.app_ratio.as_ref().zip(self.app_base_over_base.as_ref());
        let app = app.map_or_else(String::new, |(ratio, noise)| {
            fine(&format!("app server, {subject} / {base}"), ratio) + &fine("noise: app server", noise)
        });
        [
            "\nmedians, and from where to where\n".into(),
            rate(&format!("{base}, {units}/CPU-s"), &self.base),
            rate(&format!("{subject}, {units}/CPU-s"), &self.subject),
            fine(&format!("{subject} / {base}"), &self.ratio),
            fine(&format!("{subject} - {base}, us each"), &self.excess_us),
            fine(&format!("{subject} / {base}, p99"), &self.p99_ratio),
            fine(&format!("noise: {base} / {base}"), &self.base_over_base),
            fine(&format!("noise: {base} - {base}, us"), &self.base_excess_us),
            fine(&format!("noise: {base} / {base}, p99"), &self.base_p99_ratio),
            app,
            format!("{subject}, memory after the first and the last round: {first:.1} MiB, {last:.1} MiB; "),
            format!("gained for each client: {:.2} KiB\n", self.memory_per_client_kib),
            self.memory_peak_mib.map_or_else(String::new, |peak| format!("{subject}, most memory: {peak:.1} MiB\n")),
        ]
        .concat()
    }
}

pub(crate) fn heading(settings: &Settings) -> String {
    let Settings { work, clients, seconds, pairs, payload, burst, rate, shards, .. } = settings;
    let shards = if *shards == 1 { "1 shard".into() } else { format!("{shards} shards") };
    let links = settings.links;
    let pinned = if settings.pinned { ", which has a core of its own" } else { "" };
    let what = match work {
        Work::Broadcast => {
            let burst = if *burst == 1 { "one".into() } else { format!("{burst}") };
            let pace = rate.map_or_else(String::new, |rate| format!(", {rate} times per second at most"));
            let (to, speech) = (settings.to.name(), settings.speech.name());
            let what = format!(
                "messages to {to} in {speech} by {}, {burst} after the other has come{pace}",
                settings.transport.title()
            );
            format!("{what}, frames of {} bytes", frame_bytes(settings))
        }
        Work::Echo => format!("calls, each client again when it is answered, text of {payload} bytes"),
        Work::Idle => "idle but for keep-alives of both sides each 15 s".into(),
        Work::Connect => "upgrade, hub handshake, answer, and they leave".into(),
        Work::Storm => {
            format!("upgrade, hub handshake, answer, and they stay; {} under way at once", settings.under_way)
        }
    };
    let units = work.units();
    format!(
        "{clients} clients, {what}; {shards}, {links} links; {pairs} rounds of 3 windows of {seconds} s\n\
         CPU time of the server's threads{pinned}; ksoftirqd is not in it: its own column is the whole machine's\n\n\
         {:>5}  {:<16} {:>11} {:>7} {:>7} {:>11} {:>8} {:>8} {:>12} {:>12} {:>8} {:>7}",
        "round",
        "server",
        units,
        "wall s",
        "CPU s",
        "per CPU-s",
        "us each",
        "app us",
        "generator us",
        "ksoftirqd us",
        "p99 us",
        "MiB",
    )
}

pub(crate) fn row(settings: &Settings, measured: &Measured) -> String {
    let Measured { round, part, window } = measured;
    let each = |nanos: u64| nanos as f64 / window.units as f64 / NANOS_PER_MICRO;
    format!(
        "{round:>5}  {:<16} {:>11} {:>7.2} {:>7.3} {:>11.0} {:>8.3} {:>8.3} {:>12.3} {:>12.3} {:>8} {:>7.1}",
        part.name(settings),
        window.units,
        window.wall_ns as f64 / NANOS_PER_SECOND,
        window.cpu_ns as f64 / NANOS_PER_SECOND,
        per_cpu_second(window),
        micros_each(window),
        each(window.app_cpu_ns),
        each(window.generator_cpu_ns),
        each(window.softirq_cpu_ns),
        window.p99_us,
        window.memory_bytes as f64 / MEBIBYTE,
    )
}

fn frame_bytes(settings: &Settings) -> usize {
    frame::from_server(&broadcast::message(1, settings.payload as usize)).len()
}

fn per_cpu_second(window: &Window) -> f64 {
    window.units as f64 / (window.cpu_ns as f64 / NANOS_PER_SECOND)
}

fn micros_each(window: &Window) -> f64 {
    window.cpu_ns as f64 / window.units as f64 / NANOS_PER_MICRO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_takes_twice_the_time_has_half_the_rate() {
        let window = |cpu_ns| Window {
            units: 1000,
            cpu_ns,
            app_cpu_ns: 0,
            generator_cpu_ns: 0,
            softirq_cpu_ns: 0,
            wall_ns: 1,
            p50_us: 1,
            p99_us: 1,
            memory_bytes: 1,
            alone_bytes: 0,
            peak_bytes: None,
        };
        let (floor, proxy) = (window(2_000_000), window(4_000_000));
        assert!((per_cpu_second(&proxy) / per_cpu_second(&floor) - 0.5).abs() < 1e-9);
        assert!((micros_each(&proxy) - micros_each(&floor) - 2.0).abs() < 1e-9);
    }
}
