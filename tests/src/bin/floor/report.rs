//! Medians, ratios, the table, the JSON file. Pure: windows in, text out.

use anyhow::{Result, ensure};
use serde::Serialize;
use trunkline_tests::bench::frame;
use trunkline_tests::bench::spread::Spread;

use crate::crowd::Window;
use crate::rounds::{Measured, Part};
use crate::{Settings, broadcast};

const NANOS_PER_SECOND: f64 = 1e9;
const NANOS_PER_MICRO: f64 = 1e3;

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// What was measured.
    pub(crate) settings: Settings,
    /// Bytes of each frame on the wire.
    frame_bytes: usize,
    /// Deliveries per CPU-second.
    floor: Spread,
    /// Deliveries per CPU-second.
    proxy: Spread,
    /// Proxy over floor, pair by pair.
    ratio: Spread,
    /// CPU time of a delivery beyond that of the floor in µs, pair by pair.
    excess_us: Spread,
    /// Floor over floor, pair by pair: 1 but for noise.
    floor_over_floor: Spread,
    /// Floor over floor in µs, pair by pair: 0 but for noise.
    floor_excess_us: Spread,
    windows: Vec<Measured>,
}

impl Report {
    /// Computes it of whole rounds.
    pub(crate) fn new(settings: Settings, windows: Vec<Measured>) -> Result<Self> {
        let of = |part| -> Vec<Window> {
            windows.iter().filter(|measured| measured.part == part).map(|measured| measured.window).collect()
        };
        let (floor, proxy, again) = (of(Part::Floor), of(Part::Proxy), of(Part::FloorAgain));
        let least = windows.iter().map(|measured| measured.window.cpu_ns.min(measured.window.deliveries)).min();
        ensure!(least > Some(0), "a window was too short to measure anything: give more --seconds");
        let rates = |windows: &[Window]| Spread::of(windows.iter().map(per_cpu_second));
        let ratios = |of: &[Window], to: &[Window]| {
            Spread::of(of.iter().zip(to).map(|(of, to)| per_cpu_second(of) / per_cpu_second(to)))
        };
        let excesses = |of: &[Window], over: &[Window]| {
            Spread::of(of.iter().zip(over).map(|(of, over)| micros_each(of) - micros_each(over)))
        };
        Ok(Self {
            frame_bytes: frame_bytes(&settings),
            floor: rates(&[floor.as_slice(), again.as_slice()].concat())?,
            proxy: rates(&proxy)?,
            ratio: ratios(&proxy, &floor)?,
            excess_us: excesses(&proxy, &floor)?,
            floor_over_floor: ratios(&again, &floor)?,
            floor_excess_us: excesses(&again, &floor)?,
            settings,
            windows,
        })
    }

    /// The figures that count.
    pub(crate) fn summary(&self) -> String {
        let rate = |name, rate: &Spread| {
            let Spread { median, min, max } = rate;
            format!("{name:<30}{median:>12.0}   {min:.0} to {max:.0}\n")
        };
        let fine = |name, figure: &Spread| {
            let Spread { median, min, max } = figure;
            format!("{name:<30}{median:>12.3}   {min:.3} to {max:.3}\n")
        };
        [
            "\nmedians, and from where to where\n".into(),
            rate("floor, deliveries/CPU-s", &self.floor),
            rate("proxy, deliveries/CPU-s", &self.proxy),
            fine("proxy / floor", &self.ratio),
            fine("proxy - floor, us/delivery", &self.excess_us),
            fine("noise: floor / floor", &self.floor_over_floor),
            fine("noise: floor - floor, us", &self.floor_excess_us),
        ]
        .concat()
    }
}

/// What the rows are about, and their columns.
pub(crate) fn heading(settings: &Settings) -> String {
    let Settings { clients, seconds, pairs, payload, rate, shards, .. } = settings;
    let frame_bytes = frame_bytes(settings);
    let pace = rate.map_or_else(|| "one after the other".into(), |rate| format!("{rate} per second at most"));
    let shards = if *shards == 1 { "1 shard".into() } else { format!("{shards} shards") };
    format!(
        "{clients} clients, text of {payload} bytes in frames of {frame_bytes}, {shards}, broadcasts {pace}, \
         {pairs} rounds of 3 windows of {seconds} s\n\
         CPU time of the server's threads; ksoftirqd is not in it: its own column is the whole machine's\n\n\
         {:>5}  {:<11} {:>11} {:>7} {:>7} {:>16} {:>8} {:>15} {:>11}",
        "round",
        "server",
        "deliveries",
        "wall s",
        "CPU s",
        "deliveries/CPU-s",
        "us each",
        "receiver us",
        "ksoftirqd us",
    )
}

/// One window.
pub(crate) fn row(measured: &Measured) -> String {
    let Measured { round, part, window } = measured;
    let each = |nanos: u64| nanos as f64 / window.deliveries as f64 / NANOS_PER_MICRO;
    format!(
        "{round:>5}  {:<11} {:>11} {:>7.2} {:>7.3} {:>16.0} {:>8.3} {:>15.3} {:>11.3}",
        part.name(),
        window.deliveries,
        window.wall_ns as f64 / NANOS_PER_SECOND,
        window.cpu_ns as f64 / NANOS_PER_SECOND,
        per_cpu_second(window),
        micros_each(window),
        each(window.receiver_cpu_ns),
        each(window.softirq_cpu_ns),
    )
}

fn frame_bytes(settings: &Settings) -> usize {
    frame::from_server(&broadcast::message(1, settings.payload as usize)).len()
}

fn per_cpu_second(window: &Window) -> f64 {
    window.deliveries as f64 / (window.cpu_ns as f64 / NANOS_PER_SECOND)
}

fn micros_each(window: &Window) -> f64 {
    window.cpu_ns as f64 / window.deliveries as f64 / NANOS_PER_MICRO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_takes_twice_the_time_has_half_the_rate() {
        let window = |cpu_ns| Window {
            broadcasts: 1,
            deliveries: 1000,
            cpu_ns,
            receiver_cpu_ns: 0,
            softirq_cpu_ns: 0,
            wall_ns: 1,
        };
        let (floor, proxy) = (window(2_000_000), window(4_000_000));
        assert!((per_cpu_second(&proxy) / per_cpu_second(&floor) - 0.5).abs() < 1e-9);
        assert!((micros_each(&proxy) - micros_each(&floor) - 2.0).abs() < 1e-9);
    }
}
