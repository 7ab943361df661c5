//! Figures of windows and rounds.

use serde::Serialize;

use crate::settings::Work;

/// Role of a window in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Base,
    Subject,
    /// The base once more: how far it is from itself is the noise.
    BaseAgain,
}

impl Part {
    /// The order in the first round.
    pub(crate) const ALL: [Part; 3] = [Part::Base, Part::Subject, Part::BaseAgain];

    pub(crate) fn name(self, work: Work) -> &'static str {
        let [base, subject] = match work {
            Work::Broadcast | Work::Group => ["app server", "one node"],
            Work::Idle | Work::Plain => ["no peers", "peers"],
            Work::Door | Work::DialInCalls => ["dialled", "dials in"],
            Work::Move => ["same node", "other node"],
            Work::Stateful => ["plain", "stateful"],
        };
        if self == Part::Subject { subject } else { base }
    }
}

/// Figures of one window.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Window {
    /// Deliveries, each of which was looked at, returns of clients, or seconds of nodes.
    pub(crate) units: u64,
    /// CPU time of all nodes.
    pub(crate) cpu_ns: u64,
    pub(crate) app_cpu_ns: u64,
    /// Bytes between nodes, both ways together.
    pub(crate) bytes: u64,
    pub(crate) wall_ns: u64,
    /// Time from the asking within which half of the deliveries had come.
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

/// The windows of a round.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Round {
    pub(crate) base: Window,
    pub(crate) subject: Window,
    pub(crate) base_again: Window,
}

impl Round {
    pub(crate) fn of(&mut self, part: Part) -> &mut Window {
        match part {
            Part::Base => &mut self.base,
            Part::Subject => &mut self.subject,
            Part::BaseAgain => &mut self.base_again,
        }
    }
}
