//! Records at this node, with a lane for each hub that carries out changes of records one after the other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use trunkline_protocol::service::{Position, RecordReply, RecordRequest};

use crate::features::message_log::{MessageLog, RecordKey, RecordSummary};
use crate::features::store::StoredParts;
use crate::ground::metrics::HistoryCounters;

/// Time from a change of the nodes until each record is at its recorder.
const SETTLING_MS: u64 = 10_000;

/// Number of no view: the store may have a newer state of the record.
pub(super) const UNTRUSTED_VIEW: u64 = u64::MAX;

/// Time after which the lane of a hub without changes ends.
const LANE_IDLE: Duration = Duration::from_secs(60);

/// Maximum number of records with a write that had no answer.
const UNSURE_MAX: usize = 4096;

/// Maximum number of changes in a round, and of bytes unless the last one is larger.
const ROUND_MAX: usize = 256;
const ROUND_MAX_BYTES: usize = 128 * 1024;

/// Change of a record that waits for its turn. Senders wait for the reply, which bounds the lane.
#[derive(Debug)]
pub(super) struct RecordChange {
    pub(super) request: RecordRequest,
    pub(super) reply: oneshot::Sender<RecordReply>,
}

/// The nodes that record, as this node has seen them last.
#[derive(Debug, Default)]
struct RecordersSeen {
    hash: u64,
    since_ms: u64,
    /// Number of views so far.
    views: u64,
}

/// Numbers of messages that may be in the store and are not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnsureMessages {
    pub(super) epoch: u64,
    pub(super) first: u64,
    pub(super) last: u64,
}

#[derive(Debug)]
pub(crate) struct RecordLanes {
    log: Mutex<MessageLog>,
    lanes: Mutex<HashMap<Arc<str>, mpsc::UnboundedSender<RecordChange>>>,
    recorders: Mutex<RecordersSeen>,
    /// Records of this node in the store, each with the number of views when it was read or written.
    stored: Mutex<HashMap<RecordKey, (StoredParts, u64)>>,
    /// Messages of each record that may be in the store although their write had no answer.
    unsure: Mutex<HashMap<RecordKey, UnsureMessages>>,
    pub(crate) counters: HistoryCounters,
}

impl RecordLanes {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            log: Mutex::new(MessageLog::new(max_bytes)),
            lanes: Mutex::default(),
            recorders: Mutex::default(),
            stored: Mutex::default(),
            unsure: Mutex::default(),
            counters: HistoryCounters::default(),
        }
    }

    pub(super) fn log(&self) -> MutexGuard<'_, MessageLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for changes of a hub, and returns all that are there. `None` at the end of the lane.
    pub(super) async fn next_round(
        &self,
        hub: &str,
        changes: &mut mpsc::UnboundedReceiver<RecordChange>,
    ) -> Option<Vec<RecordChange>> {
        let first = loop {
            match timeout(LANE_IDLE, changes.recv()).await {
                Ok(first) => break first?,
                Err(_) if self.end_idle(hub, changes) => return None,
                Err(_) => {}
            }
        };
        let (mut bytes, mut round) = (first.request.body.len(), vec![first]);
        while round.len() < ROUND_MAX
            && bytes < ROUND_MAX_BYTES
            && let Ok(next) = changes.try_recv()
        {
            bytes += next.request.body.len();
            round.push(next);
        }
        Some(round)
    }

    /// Removes the lane of a hub, unless a change waits in it.
    fn end_idle(&self, hub: &str, changes: &mpsc::UnboundedReceiver<RecordChange>) -> bool {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.is_empty() && lanes.remove(hub).is_some()
    }

    /// Notes the nodes that record. Returns whether they have just changed: others may still have records of this node.
    pub(super) fn see_recorders(&self, hash: u64, now_ms: u64) -> bool {
        let mut seen = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.hash != hash {
            *seen = RecordersSeen { hash, since_ms: now_ms, views: seen.views + 1 };
        }
        seen.since_ms + SETTLING_MS > now_ms
    }

    /// Number of views of the nodes that record.
    pub(super) fn views(&self) -> u64 {
        self.recorders.lock().unwrap_or_else(PoisonError::into_inner).views
    }

    fn stored(&self) -> MutexGuard<'_, HashMap<RecordKey, (StoredParts, u64)>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node has a record as it is in the store: read or written in this view, and not being written.
    pub(super) fn is_as_stored(&self, key: &RecordKey) -> bool {
        let views = self.views();
        let is_empty = self.stored().get(key).filter(|(_, seen)| *seen == views).map(|(parts, _)| parts.is_empty());
        // In the store, messages that have expired here have expired, too.
        is_empty.is_some_and(|is_empty| is_empty || self.log().oldest(key).is_some())
    }

    /// Takes the last seen state of a record in the store, for its next round. Also returns whether it is current.
    pub(super) fn take_stored(&self, key: &RecordKey) -> (Option<StoredParts>, bool) {
        let is_as_stored = self.is_as_stored(key);
        (self.stored().remove(key).map(|(parts, _)| parts), is_as_stored)
    }

    /// Lets the next round read a record from the store, if it has changed there.
    pub(super) fn distrust(&self, key: &RecordKey) {
        if let Some((_, views)) = self.stored().get_mut(key) {
            *views = UNTRUSTED_VIEW;
        }
    }

    fn unsure(&self) -> MutexGuard<'_, HashMap<RecordKey, UnsureMessages>> {
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a message that may be in the store. Above the limit, messages of further records are not delivered later.
    pub(super) fn note_unsure(&self, key: RecordKey, Position { epoch, number }: Position) {
        let mut unsure = self.unsure();
        if let Some(known) = unsure.get_mut(&key).filter(|known| known.epoch == epoch) {
            known.last = known.last.max(number);
        } else if unsure.len() < UNSURE_MAX {
            unsure.insert(key, UnsureMessages { epoch, first: number, last: number });
        }
    }

    pub(super) fn take_unsure(&self, key: &RecordKey) -> Option<UnsureMessages> {
        self.unsure().remove(key)
    }

    pub(super) fn put_stored(&self, key: RecordKey, parts: StoredParts, views: u64) {
        self.stored().insert(key, (parts, views));
    }

    /// Removes a record here, but not in the store.
    pub(super) fn forget(&self, key: &RecordKey) {
        self.stored().remove(key);
        drop(self.log().delete(key));
    }

    /// Removes old messages of all records.
    pub(super) fn sweep(&self, now_ms: u64) {
        let (mut stored, mut log) = (self.stored(), self.log());
        log.sweep(now_ms);
        stored.retain(|key, _| log.contains(key));
    }

    /// Number of the records of a hub at this node, and the largest ones.
    pub(crate) fn list(&self, hub: &str, limit: usize) -> (u64, Vec<RecordSummary>) {
        self.log().list(hub, limit)
    }

    /// Bytes and number of the records at this node.
    pub(crate) fn size(&self) -> (usize, usize) {
        let log = self.log();
        (log.bytes(), log.count())
    }

    /// Queues a change. `begin` starts the lane of a hub.
    pub(super) fn queue(
        &self,
        hub: &str,
        change: RecordChange,
        begin: impl FnOnce(Arc<str>, mpsc::UnboundedReceiver<RecordChange>),
    ) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let change = match lanes.get(hub) {
            None => change,
            Some(lane) => match lane.send(change) {
                Ok(()) => return,
                // The runtime of the lane has ended.
                Err(unsent) => unsent.0,
            },
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let hub: Arc<str> = hub.into();
        drop(sender.send(change));
        lanes.insert(hub.clone(), sender);
        drop(lanes);
        begin(hub, receiver);
    }
}
