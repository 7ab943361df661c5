//! Results of windows and rounds.

use serde::Serialize;

use crate::settings::Work;

/// Role of a window in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Base,
    Subject,
    /// The base again, to measure noise.
    BaseAgain,
}

impl Part {
    /// Order of the first round.
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

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Window {
    /// Checked deliveries, reconnects of clients, or node seconds.
    pub(crate) units: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) app_cpu_ns: u64,
    /// Bytes between nodes in both directions.
    pub(crate) bytes: u64,
    pub(crate) wall_ns: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

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
