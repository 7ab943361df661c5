//! Order of the windows.
//!
//! A round has one window each of the bare handler, the app server, and the bare handler again.

use anyhow::{Context, Result};
use serde::Serialize;
use trunkline_bench::child::Speaker;
use trunkline_bench::rounds::in_turn;

use crate::callers::{At, Window};
use crate::settings::{Load, Settings};

const FIRST_CALLS: u64 = 10_000;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    Bare,
    App,
    /// The bare handler again, to measure noise.
    BareAgain,
}

/// Order of the first round.
const PARTS: [Part; 3] = [Part::Bare, Part::App, Part::BareAgain];

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    /// Number of the round, from 1.
    pub(crate) round: u32,
    pub(crate) part: Part,
    #[serde(flatten)]
    pub(crate) window: Window,
}

struct Called {
    callers: Speaker,
    calls: u64,
}

pub(crate) fn measure(load: Load, settings: &Settings, tell: impl Fn(&Measured)) -> Result<Vec<Measured>> {
    let mut bare = Called::start(At::Bare, load, settings)?;
    let mut app = Called::start(At::App, load, settings)?;
    let mut all = Vec::new();
    for round in 1..=settings.pairs {
        for part in in_turn(PARTS, round) {
            let called = if part == Part::App { &mut app } else { &mut bare };
            let window = called.measure().with_context(|| format!("round {round}, {}", part.name()))?;
            let measured = Measured { round, part, window };
            tell(&measured);
            all.push(measured);
        }
    }
    Ok(all)
}

impl Called {
    fn start(at: At, load: Load, settings: &Settings) -> Result<Self> {
        let (at, name) = match at {
            At::Bare => ("bare", "callers of the bare handler"),
            At::App => ("app", "callers of the app server"),
        };
        let Settings { payload, shards, seconds, .. } = settings;
        let [clients, outstanding] = [load.clients.to_string(), load.outstanding.to_string()];
        let [payload, shards] = [payload.to_string(), shards.to_string()];
        let mut arguments = vec!["callers", "--at", at, "--clients", &clients, "--outstanding", &outstanding];
        arguments.extend(["--payload", &payload, "--shards", &shards]);
        let mut called = Self { callers: Speaker::start(name, &arguments)?, calls: FIRST_CALLS };
        let first = called.measure()?;
        let seconds = u64::from(*seconds) * NANOS_PER_SECOND;
        let calls = u128::from(FIRST_CALLS) * u128::from(seconds) / u128::from(first.wall_ns.max(1));
        called.calls = u64::try_from(calls)?.max(1);
        Ok(called)
    }

    fn measure(&mut self) -> Result<Window> {
        Ok(serde_json::from_str(&self.callers.ask(&self.calls.to_string())?)?)
    }
}

impl Part {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Part::Bare => "bare",
            Part::App => "app server",
            Part::BareAgain => "bare again",
        }
    }
}
