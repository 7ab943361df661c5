//! Limit of the questions about groups and users that are under way at once: clients may ask as one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use trunkline_protocol::limits::ACK_TIMEOUT_MS;

/// Maximum number of questions of one hub that are asked at once; each goes to every proxy.
const ASKED_MAX: usize = 1_024;

/// Maximum number of questions that wait for their turn; more are refused.
pub(crate) const WAITING_MAX: usize = 16_384;

/// Limit of one hub.
#[derive(Debug)]
pub(crate) struct QuestionLimit {
    turns: Semaphore,
    waiting: AtomicUsize,
}

/// Guard that counts one that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl QuestionLimit {
    /// Waits for a turn, for as long as a proxy may take to answer; `None` if there is none, or too many wait.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Some(turn);
        }
        let waiting = Waiting(&self.waiting);
        if waiting.0.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return None;
        }
        timeout(Duration::from_millis(ACK_TIMEOUT_MS), self.turns.acquire()).await.ok()?.ok()
    }
}

impl Default for QuestionLimit {
    fn default() -> Self {
        Self { turns: Semaphore::new(ASKED_MAX), waiting: AtomicUsize::new(0) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn questions_beyond_the_limit_wait_for_a_turn_and_no_longer_than_an_answer_may_take() {
        let limit = QuestionLimit::default();
        let mut turns = join_all((0..ASKED_MAX).map(|_| limit.turn())).await;
        assert!(limit.turn().await.is_none(), "nobody gives a turn back");
        let (turn, ()) = tokio::join!(limit.turn(), async { drop(turns.pop()) });
        assert!(turn.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn questions_are_refused_at_once_when_too_many_wait() {
        let limit = QuestionLimit::default();
        let _turns = join_all((0..ASKED_MAX).map(|_| limit.turn())).await;
        let waiting = join_all((0..WAITING_MAX).map(|_| limit.turn()));
        let refused = async {
            let begun = tokio::time::Instant::now();
            (limit.turn().await.is_none(), begun.elapsed())
        };
        let (_, refused) = tokio::join!(waiting, refused);
        assert_eq!(refused, (true, Duration::ZERO));
        assert_eq!(limit.waiting.load(Ordering::Relaxed), 0);
    }
}
