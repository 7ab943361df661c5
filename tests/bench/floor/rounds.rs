//! Order of the windows.
//!
//! A round is one window of each: the base (the floor, or a proxy whose clients all read), the subject (a proxy), and
//! the base again. Each round begins with the next of them, so that none always comes first, when the machine may have
//! been idle.

use std::time::Duration;

use anyhow::{Context, Result};
use trunkline_tests::bench::rounds::in_turn;

use crate::fleet::Fleet;
use crate::part::{Measured, Part};
use crate::settings::Settings;

/// The order in the first round.
const PARTS: [Part; 3] = [Part::Base, Part::Subject, Part::BaseAgain];

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
