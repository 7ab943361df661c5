//! Records at this node, with a lane for each hub that carries out changes of records one after the other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};
use trunkline_protocol::service::{RecordReply, RecordRequest};

use crate::features::message_log::MessageLog;
use crate::ground::metrics::HistoryCounters;

/// Time from a change of the nodes until each record is at its recorder.
const SETTLING_MS: u64 = 10_000;

/// Change of a record that waits for its turn. Senders wait for the reply, which bounds the lane.
#[derive(Debug)]
pub(super) struct RecordChange {
    pub(super) request: RecordRequest,
    pub(super) reply: oneshot::Sender<RecordReply>,
}

#[derive(Debug)]
pub(crate) struct RecordLanes {
    log: Mutex<MessageLog>,
    lanes: Mutex<HashMap<Arc<str>, mpsc::UnboundedSender<RecordChange>>>,
    /// Hash of the nodes that record, and the time of its last change.
    recorders: Mutex<(u64, u64)>,
    pub(crate) counters: HistoryCounters,
}

impl RecordLanes {
    pub(super) fn new(max_bytes: usize) -> Self {
        let log = Mutex::new(MessageLog::new(max_bytes));
        Self { log, lanes: Mutex::default(), recorders: Mutex::default(), counters: HistoryCounters::default() }
    }

    pub(super) fn log(&self) -> MutexGuard<'_, MessageLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the lane of a hub, unless a change waits in it.
    pub(super) fn end_idle(&self, hub: &str, changes: &mpsc::UnboundedReceiver<RecordChange>) -> bool {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.is_empty() && lanes.remove(hub).is_some()
    }

    /// Whether the nodes that record have just changed, so that others may still have records of this node.
    pub(super) fn are_unsettled(&self, recorders: u64, now_ms: u64) -> bool {
        let mut last = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != recorders {
            *last = (recorders, now_ms);
        }
        last.1 + SETTLING_MS > now_ms
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
