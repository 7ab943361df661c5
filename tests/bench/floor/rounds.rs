//! Order of the windows.
//!
//! A round is one window of each: the base (the floor, or a proxy whose clients all read), the subject (a proxy), and the
//! base again. Each round begins with the next of them,
//! so that none always comes first, when the machine may have been idle.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use trunkline_tests::bench::rounds::in_turn;

use crate::Settings;
use crate::crowd::Window;
use crate::fleet::Fleet;

/// Role of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// The base of the comparison.
    Base,
    /// The subject of the benchmark.
    Subject,
    /// The base once more: how far it is from itself is the noise.
    BaseAgain,
}

/// The order in the first round.
const PARTS: [Part; 3] = [Part::Base, Part::Subject, Part::BaseAgain];

/// Window and its place.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    /// Number of the round, from 1.
    pub(crate) round: u32,
    pub(crate) part: Part,
    #[serde(flatten)]
    pub(crate) window: Window,
}

/// Measures all windows; each is told as it comes.
pub(crate) fn measure(fleet: &mut Fleet, settings: &Settings, tell: impl Fn(&Measured)) -> Result<Vec<Measured>> {
    let length = Duration::from_secs(settings.seconds.into());
    let mut all = Vec::new();
    for round in 1..=settings.pairs {
        for part in in_turn(PARTS, round) {
            let window = fleet.measure(part, length);
            let window = window.with_context(|| format!("round {round}, {}", part.name(settings)))?;
            let measured = Measured { round, part, window };
            tell(&measured);
            all.push(measured);
        }
    }
    Ok(all)
}

impl Part {
    pub(crate) fn name(self, settings: &Settings) -> &'static str {
        let [base, subject, again] = match settings {
            Settings { stalled: 1.., .. } => ["all read", "some stalled", "all read again"],
            Settings { idle: 1.., .. } => ["alone", "with idle", "alone again"],
            _ => ["floor", "proxy", "floor again"],
        };
        match self {
            Part::Base => base,
            Part::Subject => subject,
            Part::BaseAgain => again,
        }
    }
}
