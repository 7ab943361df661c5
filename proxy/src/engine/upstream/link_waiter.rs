//! New clients waiting for a lost link of their hub to return.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::ground::bounded::Budget;

/// Maximum number of clients waiting at one hub. Each costs a request and a timer, and all proceed together when the
/// link returns.
const WAITERS_MAX: usize = 10_000;

/// Waiters of one hub, woken whenever a link changes.
#[derive(Debug)]
pub(super) struct LinkWaiters {
    changed: Notify,
    waiting: Arc<Budget>,
}

impl Default for LinkWaiters {
    fn default() -> Self {
        Self { changed: Notify::new(), waiting: Arc::new(Budget::new(WAITERS_MAX)) }
    }
}

impl LinkWaiters {
    /// Wakes all waiters to check their conditions again.
    pub(super) fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Waits while `until` returns a future time. Returns immediately at the limit of waiters.
    pub(super) async fn wait(&self, until: impl Fn() -> Option<Instant>) {
        if until().is_none() {
            return;
        }
        let Some(_share) = self.waiting.take(1) else { return };
        loop {
            // Subscribes before the check, so that no change in between is missed.
            let changed = self.changed.notified();
            let Some(until) = until().filter(|until| *until > Instant::now()) else { return };
            tokio::select! {
                () = changed => {}
                () = sleep_until(until) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_woken_waiter_without_a_reason_to_wait_returns() {
        let (waiters, began) = (LinkWaiters::default(), Instant::now());
        let until = Cell::new(Some(began + 10 * SECOND));
        tokio::join!(waiters.wait(|| until.get()), async {
            waiters.wake();
            tokio::task::yield_now().await;
            until.set(None);
            waiters.wake();
        });
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(waiters.waiting.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_whose_time_moves_waits_for_the_later_one() {
        let (waiters, began) = (LinkWaiters::default(), Instant::now());
        let until = Cell::new(Some(began + SECOND));
        tokio::join!(waiters.wait(|| until.get()), async { until.set(Some(began + 3 * SECOND)) });
        assert_eq!(began.elapsed(), 3 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_maximum_nobody_waits() {
        let (waiters, soon) = (LinkWaiters::default(), Instant::now() + SECOND);
        let permits: Vec<_> = (0..WAITERS_MAX).map_while(|_| waiters.waiting.take(1)).collect();
        assert_eq!(permits.len(), WAITERS_MAX);
        assert!(waiters.wait(|| Some(soon)).now_or_never().is_some());
        drop(permits);
        assert!(waiters.wait(|| Some(soon)).now_or_never().is_none());
    }
}
