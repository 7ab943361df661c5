//! Ratios of windows side by side, and their table.

use anyhow::Result;
use serde::Serialize;
use trunkline_tests::bench::spread::Spread;

use crate::figures::{Round, Settings, Window};

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) settings: Settings,
    rounds: Vec<Round>,
    /// CPU time per message with a page open, by that without.
    cost: Spread,
    /// Ratio of the windows without a page: the noise.
    noise: Spread,
    messages_per_second: Spread,
}

impl Report {
    pub(crate) fn new(settings: Settings, rounds: Vec<Round>) -> Result<Self> {
        let seconds = f64::from(settings.seconds);
        Ok(Self {
            cost: Spread::of(rounds.iter().map(cost))?,
            noise: Spread::of(rounds.iter().map(noise))?,
            messages_per_second: Spread::of(rounds.iter().map(|round| round.with.messages / seconds))?,
            settings,
            rounds,
        })
    }

    pub(crate) fn summary(&self) -> String {
        let Self { cost, noise, messages_per_second, settings, .. } = self;
        format!(
            "\n{} clients, {:.0} messages/s: CPU time per message with the page open {:+.1} % ({:+.1} to {:+.1}), \
             without it beside without it {:+.1} % ({:+.1} to {:+.1})",
            settings.clients,
            messages_per_second.median,
            percent(cost.median),
            percent(cost.min),
            percent(cost.max),
            percent(noise.median),
            percent(noise.min),
            percent(noise.max),
        )
    }
}

pub(crate) fn heading() -> String {
    "round   without µs/message    with   again   with/without   again/without   events".into()
}

pub(crate) fn row(number: u32, round: &Round) -> String {
    let Round { without, with, without_again } = round;
    let [without, with_page, again] = [without, with, without_again].map(|window| per_message(window) / 1000.0);
    format!(
        "{number:5} {without:20.2} {with_page:7.2} {again:7.2} {:12.1} % {:13.1} % {:8}",
        percent(cost(round)),
        percent(noise(round)),
        with.events,
    )
}

/// The window with a page stands between the two without: their middle is what it is compared with.
fn cost(round: &Round) -> f64 {
    per_message(&round.with) / f64::midpoint(per_message(&round.without), per_message(&round.without_again))
}

fn noise(round: &Round) -> f64 {
    per_message(&round.without_again) / per_message(&round.without)
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of some minutes need less than 52 bits")]
fn per_message(window: &Window) -> f64 {
    window.cpu_ns as f64 / window.messages.max(1.0)
}

fn percent(ratio: f64) -> f64 {
    (ratio - 1.0) * 100.0
}
