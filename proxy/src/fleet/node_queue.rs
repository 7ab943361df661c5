//! Messages queued for another node: the share of each app, and the wait for room.
//!
//! ```text
//!  sender that may wait (REST, a link) ── room: its app is within its share ──► push ──┐
//!  sender that may not (a client's result, a move) ───────────────────────────► push ──┴─► ring of the node link
//! ```
//!
//! A push is dropped only if the node takes nothing for [`STALLED_AFTER`], or too slowly for senders that may not wait.
//! Nothing that empties the queue waits for room, so waiting has no circle.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use trunkline_link::{LinkOutbox, TrySendError};
use trunkline_protocol::limits::LINK_RING_MAX_BYTES;
use trunkline_protocol::service::Class;

use crate::ground::auth::Signer;
use crate::ground::bounded::Permits;
use crate::ground::limits::SignerShare;

/// Maximum bytes queued for a node that takes messages. Senders that wait stay below the ring and one message for each
/// thread; the rest is for senders that may not wait.
pub(super) const NODE_QUEUE_MAX_BYTES: usize = 4 * LINK_RING_MAX_BYTES;

/// Time without an acknowledgement after which a node with a full queue counts as lost: messages for it are dropped.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Maximum time that one sender waits for room at a node that takes messages slowly.
pub(super) const ROOM_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of one app that are released together.
const PART_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct NodeQueue {
    /// Unacknowledged bytes by app.
    bytes: Permits<Signer>,
    parts: Mutex<QueuedParts>,
}

#[derive(Debug)]
struct QueuedParts {
    parts: VecDeque<QueuedPart>,
    /// Time of the last acknowledgement, or of the first message of an empty queue.
    progress: Instant,
}

/// Consecutive frames of one app.
#[derive(Debug)]
struct QueuedPart {
    /// Number of the last frame.
    last: u64,
    signer: Signer,
    bytes: usize,
}

impl Default for NodeQueue {
    fn default() -> Self {
        let parts = QueuedParts { parts: VecDeque::new(), progress: Instant::now() };
        Self { bytes: Permits::new(LINK_RING_MAX_BYTES, usize::MAX), parts: Mutex::new(parts) }
    }
}

impl NodeQueue {
    /// Queues a frame of an app; never waits.
    pub(super) fn push(&self, outbox: &LinkOutbox, signer: &Signer, frame: &[u8]) -> Result<(), TrySendError> {
        let mut queued = self.settle(outbox);
        let waiting = outbox.ring_bytes();
        if waiting >= NODE_QUEUE_MAX_BYTES || waiting >= LINK_RING_MAX_BYTES && queued.is_stalled() {
            return Err(TrySendError::Full);
        }
        let pushed = outbox.push(Class::Ordinary, |out| out.extend_from_slice(frame));
        let (Ok(()), Some(last)) = (pushed, outbox.queued()) else { return Err(TrySendError::Closed) };
        self.bytes.charge(signer, frame.len());
        if queued.parts.is_empty() {
            queued.progress = Instant::now();
        }
        match queued.parts.back_mut() {
            Some(part) if part.signer == *signer && part.bytes < PART_BYTES => {
                (part.last, part.bytes) = (last, part.bytes + frame.len());
            }
            _ => queued.parts.push_back(QueuedPart { last, signer: signer.clone(), bytes: frame.len() }),
        }
        Ok(())
    }

    /// Whether an app has used up its share.
    pub(super) fn is_crowded(&self, share: &SignerShare) -> bool {
        self.bytes.held(&share.signer) >= share.of(self.bytes.limit(), self.bytes.len())
    }

    /// Waits until an app is within its share, until the node counts as lost, or until this time.
    pub(super) async fn room(&self, outbox: &LinkOutbox, share: &SignerShare, until: Instant) {
        while let Some((first, lost_at)) = self.awaited(outbox, share) {
            if !matches!(timeout_at(lost_at.min(until), outbox.delivered(first)).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// Whether the node has acknowledged something lately.
    pub(super) fn has_progress(&self, outbox: &LinkOutbox, within: Duration) -> bool {
        let queued = self.settle(outbox);
        !queued.parts.is_empty() && queued.progress.elapsed() <= within
    }

    /// Frame whose acknowledgement makes room, and when the node counts as lost; `None` with room.
    fn awaited(&self, outbox: &LinkOutbox, share: &SignerShare) -> Option<(u64, Instant)> {
        let queued = self.settle(outbox);
        let first = queued.parts.front().filter(|_| self.is_crowded(share) && !queued.is_stalled())?;
        Some((first.last, queued.progress + STALLED_AFTER))
    }

    /// Releases what the node has acknowledged.
    fn settle(&self, outbox: &LinkOutbox) -> MutexGuard<'_, QueuedParts> {
        let mut queued = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let delivered = outbox.acknowledged();
        while let Some(part) = queued.parts.pop_front_if(|part| part.last <= delivered) {
            self.bytes.release(Some(&part.signer), part.bytes);
            queued.progress = Instant::now();
        }
        queued
    }
}

impl QueuedParts {
    fn is_stalled(&self) -> bool {
        !self.parts.is_empty() && self.progress.elapsed() >= STALLED_AFTER
    }
}
