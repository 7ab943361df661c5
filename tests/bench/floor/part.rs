//! Parts of a round, and their windows.

use serde::Serialize;

use crate::crowd::Window;
use crate::settings::Settings;
use crate::transport::Transport;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    Base,
    Subject,
    /// The base again, to measure noise.
    BaseAgain,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    /// Number of the round, from 1.
    pub(crate) round: u32,
    pub(crate) part: Part,
    #[serde(flatten)]
    pub(crate) window: Window,
}

impl Part {
    pub(crate) fn name(self, settings: &Settings) -> &'static str {
        let [base, subject, again] = match settings {
            Settings { stalled: 1.., .. } => ["all read", "some stalled", "all read again"],
            Settings { idle: 1.., .. } => ["alone", "with idle", "alone again"],
            Settings { singly: true, .. } => ["many at once", "one by one", "many again"],
            Settings { transport: Transport::WebSockets, .. } => ["floor", "proxy", "floor again"],
            Settings { transport, .. } => ["WebSockets", transport.title(), "WebSockets again"],
        };
        match self {
            Part::Base => base,
            Part::Subject => subject,
            Part::BaseAgain => again,
        }
    }
}
