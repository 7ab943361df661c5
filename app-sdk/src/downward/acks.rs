//! Requests whose acknowledgement is awaited.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use trunkline_protocol::service::Ack;

use crate::node::Node;
use crate::sync::lock;

/// Who waits for which acknowledgement.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    latest: AtomicU32,
    waiting: Mutex<HashMap<i64, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    node: Arc<Node>,
    answer: oneshot::Sender<Ack>,
}

/// An acknowledgement to come; forgotten when dropped.
#[derive(Debug)]
pub(crate) struct ExpectedAck<'a> {
    acks: &'a Acks,
    id: i64,
    answer: oneshot::Receiver<Ack>,
}

impl Acks {
    /// Expects an acknowledgement from this node.
    pub(crate) fn expect(&self, node: &Arc<Node>) -> ExpectedAck<'_> {
        // Azure's ids are positive int32; after two thousand million the old ones are long forgotten.
        let id = i64::from(self.latest.fetch_add(1, Ordering::Relaxed) % (i32::MAX as u32)) + 1;
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert(id, Waiting { node: Arc::clone(node), answer: sender });
        ExpectedAck { acks: self, id, answer }
    }

    /// An acknowledgement came; one that nobody waits for is dropped.
    pub(crate) fn handle(&self, ack: Ack) {
        let waiting = lock(&self.waiting).remove(&ack.ack_id);
        if let Some(waiting) = waiting {
            let _ = waiting.answer.send(ack);
        }
    }

    /// The node has no more links: nothing will be acknowledged.
    pub(super) fn fail_of(&self, node: &Arc<Node>) {
        lock(&self.waiting).retain(|_, waiting| !Arc::ptr_eq(&waiting.node, node));
    }
}

impl ExpectedAck<'_> {
    /// The id to ask with.
    pub(crate) fn id(&self) -> i64 {
        self.id
    }

    /// Waits for it; `None` when the node is lost.
    pub(crate) async fn received(&mut self) -> Option<Ack> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for ExpectedAck<'_> {
    fn drop(&mut self) {
        lock(&self.acks.waiting).remove(&self.id);
    }
}
