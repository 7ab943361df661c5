//! Registry of a node's own rebalance: at most one, its progress and a handle to stop it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::snapshot::{RebalanceReport, RebalanceState};

/// Time for which snapshots show a finished rebalance.
const SHOWN_AFTER_END: Duration = Duration::from_secs(60);

/// Current or last rebalance coordinated by this node; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct RebalanceBoard(Arc<Mutex<Option<RebalanceEntry>>>);

#[derive(Debug)]
struct RebalanceEntry {
    report: RebalanceReport,
    stop: CancellationToken,
    ended: Option<Instant>,
}

impl RebalanceBoard {
    /// Registers a rebalance; returns a token that is cancelled on stop. Fails if another rebalance is running; returns
    /// its progress.
    pub(super) fn claim(&self, report: RebalanceReport) -> Result<CancellationToken, Box<RebalanceReport>> {
        let mut entry = self.entry();
        if let Some(running) = entry.as_ref().filter(|entry| entry.ended.is_none()) {
            return Err(Box::new(running.report.clone()));
        }
        let stop = CancellationToken::new();
        *entry = Some(RebalanceEntry { report, stop: stop.clone(), ended: None });
        Ok(stop)
    }

    /// Removes a rebalance that has not started.
    pub(super) fn withdraw(&self) {
        *self.entry() = None;
    }

    /// Updates and returns the progress of the rebalance with this id while it runs.
    pub(super) fn update(&self, id: &str, change: impl FnOnce(&mut RebalanceReport)) -> Option<RebalanceReport> {
        let mut entry = self.entry();
        let entry = entry.as_mut().filter(|entry| entry.report.id == id && entry.ended.is_none())?;
        change(&mut entry.report);
        if entry.report.state != RebalanceState::Running {
            entry.ended = Some(Instant::now());
        }
        Some(entry.report.clone())
    }

    /// Stops the running rebalance for the given reason and returns its progress; `None` if none is running.
    pub(super) fn stop(&self, reason: &str) -> Option<RebalanceReport> {
        let mut entry = self.entry();
        let entry = entry.as_mut().filter(|entry| entry.ended.is_none())?;
        entry.stop.cancel();
        entry.ended = Some(Instant::now());
        entry.report.state = RebalanceState::Stopped;
        entry.report.reason = Some(reason.into());
        Some(entry.report.clone())
    }

    pub(super) fn report(&self) -> Option<RebalanceReport> {
        self.entry().as_ref().map(|entry| entry.report.clone())
    }

    /// Progress of a running or recently finished rebalance.
    pub(super) fn shown(&self) -> Option<RebalanceReport> {
        let entry = self.entry();
        let is_recent = |entry: &&RebalanceEntry| entry.ended.is_none_or(|ended| ended.elapsed() < SHOWN_AFTER_END);
        entry.as_ref().filter(is_recent).map(|entry| entry.report.clone())
    }

    fn entry(&self) -> MutexGuard<'_, Option<RebalanceEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(id: &str) -> RebalanceReport {
        RebalanceReport { id: id.into(), state: RebalanceState::Running, ..RebalanceReport::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn one_runs_at_a_time_and_its_end_is_shown_for_a_minute() {
        let board = RebalanceBoard::default();
        let stop = board.claim(report("a")).unwrap();
        assert_eq!(board.claim(report("b")).unwrap_err().id, "a");
        assert_eq!(board.update("b", |report| report.moved = 9), None);
        assert_eq!(board.update("a", |report| report.moved = 1).unwrap().moved, 1);
        assert_eq!(board.stop("enough").unwrap().state, RebalanceState::Stopped);
        assert!(stop.is_cancelled() && board.stop("again").is_none());
        assert_eq!(board.update("a", |report| report.state = RebalanceState::Done), None, "it is over");
        assert_eq!(board.shown().unwrap().reason.as_deref(), Some("enough"));
        tokio::time::advance(SHOWN_AFTER_END).await;
        assert_eq!((board.shown(), board.report().unwrap().moved), (None, 1));
        board.claim(report("b")).unwrap();
        assert_eq!(board.update("b", |report| report.state = RebalanceState::Done).unwrap().id, "b");
        board.claim(report("c")).unwrap();
        board.withdraw();
        assert_eq!(board.report(), None);
    }
}
