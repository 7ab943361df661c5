//! Moves of client connections between nodes, at a sender to many clients: each move waits until all earlier sends are
//! queued; no send waits for a move.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use trunkline_protocol::fleet::SendEpoch;

/// Maximum number of waiting moves. Beyond it requests are dropped, and the requesting node gives the move up after a
/// while.
const WAITING_MAX: usize = 64 * 1024;

/// Queue of moves (`M`) that wait for earlier sends, with the epochs of sends.
#[derive(Debug)]
pub struct MoveQueue<M> {
    epoch: SendEpoch,
    /// Wakes the task that answers moves when an epoch may have ended.
    epoch_ended: Notify,
    state: Mutex<QueueState<M>>,
}

#[derive(Debug)]
struct QueueState<M> {
    waiting: Vec<M>,
    is_answered: bool,
}

/// Send to many clients in progress. Ends when dropped.
#[derive(Debug)]
pub struct ManySend<'a> {
    epochs: (&'a SendEpoch, &'a Notify),
    epoch: i64,
}

/// Error for a move that exceeds the queue limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{WAITING_MAX} connections are already moving to other nodes, which is the limit")]
pub struct TooManyMoves;

impl<M> Default for MoveQueue<M> {
    fn default() -> Self {
        let state = QueueState { waiting: Vec::new(), is_answered: false };
        Self { epoch: SendEpoch::default(), epoch_ended: Notify::new(), state: Mutex::new(state) }
    }
}

impl<M> MoveQueue<M> {
    /// Begins a send to many clients, before its nodes are looked up.
    #[must_use]
    pub fn begin_send(&self) -> ManySend<'_> {
        loop {
            let epoch = self.epoch.current();
            self.epoch.enter(epoch);
            let send = ManySend { epochs: (&self.epoch, &self.epoch_ended), epoch };
            if self.epoch.current() == epoch {
                return send;
            }
        }
    }

    /// Adds a move. Returns whether the caller must [answer](Self::next_moves) it and later ones. Fails if too many
    /// moves wait.
    pub fn push(&self, requested: M) -> Result<bool, TooManyMoves> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.waiting.len() >= WAITING_MAX {
            return Err(TooManyMoves);
        }
        state.waiting.push(requested);
        Ok(!std::mem::replace(&mut state.is_answered, true))
    }

    /// Waits until all sends are queued that began before the currently waiting moves. Returns these moves and the
    /// epoch of later sends, or `None` if no moves wait. Only one caller at a time, until `None`.
    pub async fn next_moves(&self) -> Option<(i64, Vec<M>)> {
        let moves = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.is_answered = !state.waiting.is_empty();
            std::mem::take(&mut state.waiting)
        };
        if moves.is_empty() {
            return None;
        }
        let epoch = self.epoch.advance();
        while !self.epoch.is_last_over() {
            self.epoch_ended.notified().await;
        }
        Some((epoch, moves))
    }
}

impl ManySend<'_> {
    /// Epoch of the send's start; zero before the first move.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch
    }
}

impl Drop for ManySend<'_> {
    fn drop(&mut self) {
        let (epochs, ended) = self.epochs;
        if epochs.leave(self.epoch) {
            ended.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_move_waits_for_sends_that_began_before_it_and_for_no_other() {
        let queue = MoveQueue::default();
        let early = [queue.begin_send(), queue.begin_send()];
        assert_eq!(queue.push("c1"), Ok(true));
        let mut answering = Box::pin(queue.next_moves());
        assert!((&mut answering).now_or_never().is_none());
        let late = queue.begin_send();
        assert_eq!((early[0].epoch(), late.epoch()), (0, 1));
        assert_eq!(queue.push("c2"), Ok(false), "somebody answers already");
        let [first, second] = early;
        drop(first);
        assert!((&mut answering).now_or_never().is_none());
        drop(second);
        assert_eq!(answering.now_or_never().unwrap(), Some((1, vec!["c1"])));
        let mut answering = Box::pin(queue.next_moves());
        assert!((&mut answering).now_or_never().is_none());
        drop(late);
        assert_eq!(answering.now_or_never().unwrap(), Some((2, vec!["c2"])));
        assert!(queue.next_moves().now_or_never().unwrap().is_none());
        assert_eq!(queue.push("c3"), Ok(true), "the next one answers again");
    }

    #[test]
    fn moves_beyond_the_limit_are_refused() {
        let queue = MoveQueue::default();
        assert_eq!(queue.push(0), Ok(true));
        assert!((1..WAITING_MAX).all(|number| queue.push(number) == Ok(false)));
        assert_eq!(queue.push(0), Err(TooManyMoves));
        let (_, moves) = queue.next_moves().now_or_never().unwrap().unwrap();
        assert_eq!(moves.len(), WAITING_MAX);
    }
}
