//! Moments at which files may have to be read anew: at an interval, and on SIGHUP.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// Checks of files, each begun by the clock or by an operator.
pub(super) struct FileChecks {
    ticks: Interval,
    hangups: HangupSignals,
}

/// Cause of a check of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileCheck {
    Tick,
    Hangup,
}

impl FileChecks {
    /// Symbolic links that a deployment tool swaps can't be watched reliably, and checking is cheap.
    pub(super) fn every(period: Duration) -> Self {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, hangups: HangupSignals::new() }
    }

    pub(super) async fn next(&mut self) -> FileCheck {
        tokio::select! {
            () = self.hangups.next() => FileCheck::Hangup,
            _ = self.ticks.tick() => FileCheck::Tick,
        }
    }
}

/// Stream of SIGHUP signals; on other systems than Unix it never yields.
struct HangupSignals {
    #[cfg(unix)]
    signals: Option<tokio::signal::unix::Signal>,
}

impl HangupSignals {
    fn new() -> Self {
        Self {
            #[cfg(unix)]
            signals: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok(),
        }
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signals) = &mut self.signals
            && signals.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}
