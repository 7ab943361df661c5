//! Which window comes when.
//!
//! A round is one window of each: the floor, the proxy, and the floor again. Each round begins with the next of them,
//! so that none always comes first, when the machine may have been idle.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use trunkline_tests::bench::rounds::in_turn;

use crate::Settings;
use crate::crowd::{At, Window};
use crate::fleet::Fleet;

/// What a window is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// What the others are compared with.
    Floor,
    /// What the benchmark is about.
    Proxy,
    /// The floor once more: how far it is from itself is the noise.
    FloorAgain,
}

/// The order in the first round.
const PARTS: [Part; 3] = [Part::Floor, Part::Proxy, Part::FloorAgain];

/// One window and its place.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    /// Which round, from 1.
    pub(crate) round: u32,
    /// What it is for.
    pub(crate) part: Part,
    /// What came of it.
    #[serde(flatten)]
    pub(crate) window: Window,
}

/// Measures all windows; each is told as it comes.
pub(crate) fn measure(fleet: &mut Fleet, settings: &Settings, tell: impl Fn(&Measured)) -> Result<Vec<Measured>> {
    let length = Duration::from_secs(settings.seconds.into());
    let mut all = Vec::new();
    for round in 1..=settings.pairs {
        for part in in_turn(PARTS, round) {
            let at = if part == Part::Proxy { At::Proxy } else { At::Floor };
            let window = fleet.measure(at, length).with_context(|| format!("round {round}, {}", part.name()))?;
            let measured = Measured { round, part, window };
            tell(&measured);
            all.push(measured);
        }
    }
    Ok(all)
}

impl Part {
    /// What it is called in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Part::Floor => "floor",
            Part::Proxy => "proxy",
            Part::FloorAgain => "floor again",
        }
    }
}
