//! Ratios of adjacent windows, and their table.

use anyhow::Result;
use serde::Serialize;
use trunkline_bench::spread::Spread;

use crate::settings::Settings;
use crate::window::{Round, Window};

const NANOS_PER_MICRO: f64 = 1000.0;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) settings: Settings,
    rounds: Vec<Round>,
    /// CPU time per message with the companion, divided by the one without.
    cost: Spread,
    /// Ratio of the windows without it: the noise.
    noise: Spread,
    /// 99th percentile of round trips with the companion, divided by the one without.
    p99_cost: Spread,
    /// Ratio of the windows without it.
    p99_noise: Spread,
    /// 99th percentile of round trips with the companion.
    p99_us_with: Spread,
    /// 99th percentile of round trips without it, in both windows.
    p99_us_without: Spread,
    messages_per_second: Spread,
    events_per_second: Spread,
}

type Figure = fn(&Window) -> f64;

impl Report {
    pub(crate) fn new(settings: Settings, rounds: Vec<Round>) -> Result<Self> {
        let seconds = f64::from(settings.seconds);
        let of = |figure: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(figure));
        Ok(Self {
            cost: of(&|round| cost(round, cpu_us))?,
            noise: of(&|round| noise(round, cpu_us))?,
            p99_cost: of(&|round| cost(round, p99_us))?,
            p99_noise: of(&|round| noise(round, p99_us))?,
            p99_us_with: of(&|round| p99_us(&round.with))?,
            p99_us_without: Spread::of(
                rounds.iter().flat_map(|round| [p99_us(&round.without), p99_us(&round.without_again)]),
            )?,
            messages_per_second: of(&|round| round.with.messages / seconds)?,
            events_per_second: of(&|round| number(round.with.events) / seconds)?,
            settings,
            rounds,
        })
    }

    pub(crate) fn summary(&self) -> String {
        let Self { settings, messages_per_second, events_per_second, p99_us_with, p99_us_without, .. } = self;
        let title = settings.beside.title();
        let line = |name: &str, beside: &str, ratios: &Spread| {
            let [median, min, max] = [ratios.median, ratios.min, ratios.max].map(percent);
            format!("{name:<24}{beside:<28}{median:+8.1} %   {min:+.1} to {max:+.1} %\n")
        };
        [
            format!(
                "\n{title}, {} clients, {:.0} messages/s, {:.0} {}/s: medians, and from where to where\n",
                settings.clients,
                messages_per_second.median,
                events_per_second.median,
                settings.beside.events(),
            ),
            line("CPU time per message", title, &self.cost),
            line("", "noise: without / without", &self.noise),
            line("p99 of round trips", title, &self.p99_cost),
            line("", "noise: without / without", &self.p99_noise),
            format!(
                "p99 of round trips: {:.0} us with it, {:.0} us without ({:.0} to {:.0})\n",
                p99_us_with.median, p99_us_without.median, p99_us_without.min, p99_us_without.max
            ),
        ]
        .concat()
    }
}

pub(crate) fn heading(settings: &Settings) -> String {
    format!(
        "{}, {} clients, {} rounds of 3 windows of {} s\n\n\
         {:>5}  {:<21} {:>9} {:>9} {:>9} {:>14} {:>15} {:>9}",
        settings.beside.title(),
        settings.clients,
        settings.pairs,
        settings.seconds,
        "round",
        "figure",
        "without",
        "with",
        "again",
        "with/without",
        "again/without",
        settings.beside.events(),
    )
}

/// Rows of a round, one per compared result.
pub(crate) fn rows(number: u32, round: &Round) -> String {
    let row = |name: &str, figure: Figure, events: &str| {
        let Round { without, with, without_again } = round;
        let [without, with, again] = [without, with, without_again].map(figure);
        let [cost, noise] = [cost(round, figure), noise(round, figure)].map(percent);
        format!(
            "{number:>5}  {name:<21} {without:>9.2} {with:>9.2} {again:>9.2} {cost:>+12.1} % {noise:>+13.1} % {events:>9}"
        )
    };
    let events = round.with.events.to_string();
    format!("{}\n{}", row("CPU us per message", cpu_us, &events), row("p99 us of round trips", p99_us, ""))
}

/// Compares the window with the companion with the mean of both windows without it.
fn cost(round: &Round, figure: Figure) -> f64 {
    figure(&round.with) / f64::midpoint(figure(&round.without), figure(&round.without_again))
}

fn noise(round: &Round, figure: Figure) -> f64 {
    figure(&round.without_again) / figure(&round.without)
}

fn cpu_us(window: &Window) -> f64 {
    number(window.cpu_ns) / window.messages.max(1.0) / NANOS_PER_MICRO
}

fn p99_us(window: &Window) -> f64 {
    number(window.p99_us).max(1.0)
}

#[expect(clippy::cast_precision_loss, reason = "figures of some minutes need less than 52 bits")]
fn number(of: u64) -> f64 {
    of as f64
}

fn percent(ratio: f64) -> f64 {
    (ratio - 1.0) * 100.0
}
