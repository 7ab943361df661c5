//! Answers of this node's own shards, for whoever puts them together with those of others.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use trunkline_protocol::service::ServiceMessage;

use crate::upstream::{AppServerId, Asker, HubIndex};

/// Asker that takes this node's answer for another one.
#[derive(Debug)]
pub(super) struct OwnAnswer {
    hub: HubIndex,
    app: AppServerId,
    answer: Mutex<Option<oneshot::Sender<ServiceMessage>>>,
}

impl OwnAnswer {
    pub(super) fn of(hub: HubIndex, app: AppServerId) -> (Arc<dyn Asker>, oneshot::Receiver<ServiceMessage>) {
        let (sender, answer) = oneshot::channel();
        (Arc::new(Self { hub, app, answer: Mutex::new(Some(sender)) }), answer)
    }
}

impl Asker for OwnAnswer {
    fn hub(&self) -> HubIndex {
        self.hub
    }

    fn app(&self) -> AppServerId {
        self.app
    }

    fn answer(&self, message: &ServiceMessage) {
        let sender = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It fails when nobody waits any more.
        sender.into_iter().for_each(|sender| drop(sender.send(message.clone())));
    }
}

/// Asker of a message that is passed on: it gets no answer.
#[derive(Debug)]
pub(super) struct SilentAsker(pub(super) HubIndex);

impl Asker for SilentAsker {
    fn hub(&self) -> HubIndex {
        self.0
    }

    fn app(&self) -> AppServerId {
        AppServerId::OTHER_NODE
    }

    fn answer(&self, _message: &ServiceMessage) {}
}
