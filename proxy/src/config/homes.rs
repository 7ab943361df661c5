//! What clients may expect whose app server is gone: how long they are held, and what is remembered of them.

#[cfg(feature = "cli")]
use clap::Args;

/// Options for clients whose app server is gone.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Args)]
pub struct HomeArgs {
    /// How long clients are held while no app server is there, in seconds; then they are told to connect again. What
    /// they send meanwhile waits in their sockets. 0: they are told so within a second.
    #[arg(long, env = "TRUNKLINE_HOLD_TIMEOUT", value_name = "SECONDS",
          default_value_t = HomeSettings::DEFAULT.hold_timeout_s,
          value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub hold_timeout: u32,

    /// Also holds clients that come while no app server of a known hub is there; else they get 503 and `Retry-After`.
    #[arg(long, env = "TRUNKLINE_HOLD_NEW")]
    pub hold_new: bool,

    /// Calls of one client that may wait for their answers before it is read no further: they are remembered, so that
    /// each gets an error when its app server is gone.
    #[arg(long, env = "TRUNKLINE_PENDING_CALLS_MAX", value_name = "N",
          default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub pending_calls_max: u32,
}

/// What clients whose app server is gone go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HomeSettings {
    /// How long they are held, in ticks of a second.
    pub hold_timeout_s: u32,
    /// Whether new ones are held too.
    pub holds_new: bool,
    /// Calls of one client that may wait for their answers.
    pub pending_calls_max: usize,
}

impl HomeSettings {
    /// Long enough for a restart of the only app server.
    pub const DEFAULT: Self = Self { hold_timeout_s: 60, holds_new: false, pending_calls_max: 1_000 };
}

#[cfg(feature = "cli")]
impl HomeArgs {
    pub(super) fn settings(&self) -> HomeSettings {
        HomeSettings {
            hold_timeout_s: self.hold_timeout,
            holds_new: self.hold_new,
            pending_calls_max: usize::try_from(self.pending_calls_max).unwrap_or(usize::MAX),
        }
    }
}
