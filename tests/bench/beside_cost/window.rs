//! Results of windows and rounds.

use serde::Serialize;

/// Role of a window in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Without,
    With,
    WithoutAgain,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Window {
    pub(crate) messages: f64,
    pub(crate) cpu_ns: u64,
    /// Round trips of the probe.
    pub(crate) calls: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    /// Events of the companion: page events, traced messages, mirrored copies, reassigned clients.
    pub(crate) events: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Round {
    pub(crate) without: Window,
    pub(crate) with: Window,
    pub(crate) without_again: Window,
}

impl Part {
    pub(crate) const ALL: [Self; 3] = [Self::Without, Self::With, Self::WithoutAgain];
}

impl Round {
    pub(crate) fn of(&mut self, part: Part) -> &mut Window {
        match part {
            Part::Without => &mut self.without,
            Part::With => &mut self.with,
            Part::WithoutAgain => &mut self.without_again,
        }
    }
}
