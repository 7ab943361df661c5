//! Ratios of adjacent windows, and their table. Pure: windows in, text out.

use anyhow::{Result, ensure};
use serde::Serialize;
use trunkline_bench::spread::Spread;

use crate::figures::{Part, Round, Window};
use crate::settings::{Settings, Work};

const NANOS_PER_SECOND: f64 = 1e9;
const NANOS_PER_MICRO: f64 = 1e3;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) settings: Settings,
    /// CPU time of all nodes per unit, in µs.
    base_us: Spread,
    subject_us: Spread,
    /// Subject divided by base, by pair.
    ratio: Spread,
    /// Base divided by base, by pair: 1 except for noise.
    base_over_base: Spread,
    app_base_us: Spread,
    app_subject_us: Spread,
    /// Bytes between nodes per unit.
    base_bytes: Spread,
    subject_bytes: Spread,
    rounds: Vec<Round>,
}

impl Report {
    pub(crate) fn new(settings: Settings, rounds: Vec<Round>) -> Result<Self> {
        let all = || rounds.iter().flat_map(|round| [round.base, round.subject, round.base_again]);
        ensure!(
            all().all(|window| window.units > 0),
            "a window was too short to measure anything: give more --seconds"
        );
        let bases = || rounds.iter().flat_map(|round| [round.base, round.base_again]);
        let subjects = || rounds.iter().map(|round| round.subject);
        // The subject is compared with the mean of both base windows.
        let base = |round: &Round| f64::midpoint(cpu_us(&round.base), cpu_us(&round.base_again));
        Ok(Self {
            base_us: Spread::of(bases().map(|window| cpu_us(&window)))?,
            subject_us: Spread::of(subjects().map(|window| cpu_us(&window)))?,
            ratio: Spread::of(rounds.iter().map(|round| cpu_us(&round.subject) / base(round)))?,
            base_over_base: Spread::of(rounds.iter().map(|round| cpu_us(&round.base_again) / cpu_us(&round.base)))?,
            app_base_us: Spread::of(bases().map(|window| app_us(&window)))?,
            app_subject_us: Spread::of(subjects().map(|window| app_us(&window)))?,
            base_bytes: Spread::of(bases().map(|window| bytes(&window)))?,
            subject_bytes: Spread::of(subjects().map(|window| bytes(&window)))?,
            settings,
            rounds,
        })
    }

    pub(crate) fn summary(&self) -> String {
        let line = |name: &str, figure: &Spread| {
            let Spread { median, min, max } = figure;
            format!("{name:<44}{median:>12.3}   {min:.3} to {max:.3}\n")
        };
        let (base, subject) = (Part::Base.name(self.settings.work), Part::Subject.name(self.settings.work));
        let each = match self.settings.work {
            Work::Idle => "node-second",
            Work::DialInCalls => "call",
            Work::Move => "return",
            _ => "delivery",
        };
        [
            "\nmedians, and from where to where\n".into(),
            line(&format!("{base}, us of all nodes for each {each}"), &self.base_us),
            line(&format!("{subject}, us of all nodes for each {each}"), &self.subject_us),
            line(&format!("{subject} / {base}"), &self.ratio),
            line(&format!("noise: {base} / {base}"), &self.base_over_base),
            line(&format!("{base}, us of the app server"), &self.app_base_us),
            line(&format!("{subject}, us of the app server"), &self.app_subject_us),
            line(&format!("{base}, bytes between nodes"), &self.base_bytes),
            line(&format!("{subject}, bytes between nodes"), &self.subject_bytes),
        ]
        .concat()
    }
}

pub(crate) fn heading(settings: &Settings) -> String {
    let what = match settings.work {
        Work::Broadcast => "messages to everyone, by the app server and by one node",
        Work::Group => "messages to one group, by the app server and by one node",
        Work::Idle => "nothing happens, without and with --peers",
        Work::Plain => "messages of the app server to everyone, without and with --peers",
        Work::Door => "messages of the app server to everyone, which is dialled and dials in",
        Work::Move => "sockets are cut, and their clients come back to the same node and to the other one",
        Work::Stateful => "messages of the app server to everyone, from a hub without and with stateful reconnect",
        Work::DialInCalls => "calls of an app server, which is dialled and dials in",
    };
    format!(
        "{} nodes of {} shards, {} clients, {what}; {} at once, texts of {} bytes; {} rounds of 3 windows of {} s\n\n\
         {:>5}  {:<11} {:>12} {:>7} {:>11} {:>11} {:>12} {:>8} {:>8}",
        settings.nodes(),
        settings.shards,
        settings.clients(),
        settings.burst,
        settings.payload,
        settings.pairs,
        settings.seconds(),
        "round",
        "by",
        settings.units(),
        "wall s",
        "nodes us",
        "app us",
        "bytes each",
        "p50 us",
        "p99 us",
    )
}

pub(crate) fn row(settings: &Settings, round: u32, part: Part, window: &Window) -> String {
    format!(
        "{round:>5}  {:<11} {:>12} {:>7.2} {:>11.3} {:>11.3} {:>12.2} {:>8} {:>8}",
        part.name(settings.work),
        window.units,
        number(window.wall_ns) / NANOS_PER_SECOND,
        cpu_us(window),
        app_us(window),
        bytes(window),
        window.p50_us,
        window.p99_us,
    )
}

fn cpu_us(window: &Window) -> f64 {
    number(window.cpu_ns) / number(window.units) / NANOS_PER_MICRO
}

fn app_us(window: &Window) -> f64 {
    number(window.app_cpu_ns) / number(window.units) / NANOS_PER_MICRO
}

fn bytes(window: &Window) -> f64 {
    number(window.bytes) / number(window.units)
}

#[expect(clippy::cast_precision_loss, reason = "figures of some minutes need less than 52 bits")]
fn number(of: u64) -> f64 {
    of as f64
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn a_subject_that_takes_twice_the_time_of_its_neighbours_has_a_ratio_of_two() {
        let window = |cpu_ns| Window { units: 1_000, cpu_ns, ..Window::default() };
        let round = Round { base: window(1_000_000), subject: window(4_000_000), base_again: window(3_000_000) };
        let report = Report::new(Settings::parse_from(["fleet_cost"]), vec![round]).unwrap();
        assert!((report.ratio.median - 2.0).abs() < 1e-9);
        assert!((report.base_over_base.median - 3.0).abs() < 1e-9);
    }
}
