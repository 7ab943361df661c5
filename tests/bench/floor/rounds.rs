//! Order of the windows.
//!
//! A round has one window each of the base (the floor, or a proxy without stalled clients), the subject (a proxy), and
//! the base again. The order rotates, so that none always comes first, when the machine may have been idle.

use std::time::Duration;

use anyhow::{Context, Result};
use trunkline_bench::rounds::in_turn;

use crate::fleet::Fleet;
use crate::part::{Measured, Part};
use crate::settings::Settings;

/// Order of the first round.
const PARTS: [Part; 3] = [Part::Base, Part::Subject, Part::BaseAgain];

/// Measures all windows and reports each immediately.
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
