//! Answers of this node's shards, to be combined with answers of other nodes.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use trunkline_protocol::service::ServiceMessage;

use crate::engine::upstream::{AppServerId, HubIndex, ReplyTo};

/// Reply handle that passes this node's answer to a receiver.
#[derive(Debug)]
pub(super) struct OwnAnswer {
    hub: HubIndex,
    app: AppServerId,
    answer: Mutex<Option<oneshot::Sender<ServiceMessage>>>,
}

impl OwnAnswer {
    pub(super) fn of(hub: HubIndex, app: AppServerId) -> (Arc<dyn ReplyTo>, oneshot::Receiver<ServiceMessage>) {
        let (sender, answer) = oneshot::channel();
        (Arc::new(Self { hub, app, answer: Mutex::new(Some(sender)) }), answer)
    }
}

impl ReplyTo for OwnAnswer {
    fn hub(&self) -> HubIndex {
        self.hub
    }

    fn app(&self) -> AppServerId {
        self.app
    }

    fn answer(&self, message: &ServiceMessage) {
        let sender = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Fails when the receiver is gone.
        sender.into_iter().for_each(|sender| drop(sender.send(message.clone())));
    }
}

/// Reply handle of a relayed message, which has no answer.
#[derive(Debug)]
pub(super) struct NoReply(pub(super) HubIndex);

impl ReplyTo for NoReply {
    fn hub(&self) -> HubIndex {
        self.0
    }

    fn app(&self) -> AppServerId {
        AppServerId::OTHER_NODE
    }

    fn answer(&self, _message: &ServiceMessage) {}
}
