//! Answers of this node's own shards, for whoever puts them together with those of others.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use trunkline_protocol::service::ServiceMessage;

use super::Fleet;
use crate::link::{FrameSource, RoutedBatch, route, route_counted};
use crate::shard::SendOrigin;
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

impl Fleet {
    /// Asks the shards of this node; `None` when they stop.
    pub(super) async fn ask_here(
        &self,
        (hub, app): (HubIndex, AppServerId),
        question: ServiceMessage,
    ) -> Option<ServiceMessage> {
        let (asker, answer) = OwnAnswer::of(hub, app);
        self.route_here(&asker, SendOrigin::OtherNode, question).await.ok()?;
        drop(asker);
        answer.await.ok()
    }

    /// Routes a message to the shards of this node.
    pub(super) async fn route_here(
        &self,
        asker: &Arc<dyn Asker>,
        origin: SendOrigin,
        message: ServiceMessage,
    ) -> Result<(), String> {
        self.give_routed((asker, origin), message, 0, route).await
    }

    /// Routes a message of so many bytes to the shards of this node, whose receivers they count for the asker.
    pub(super) async fn route_counted_here(
        &self,
        asker: &Arc<dyn Asker>,
        origin: SendOrigin,
        message: ServiceMessage,
        bytes: usize,
    ) -> Result<(), String> {
        self.give_routed((asker, origin), message, bytes, route_counted).await
    }

    async fn give_routed(
        &self,
        (asker, origin): (&Arc<dyn Asker>, SendOrigin),
        message: ServiceMessage,
        bytes: usize,
        route: impl Fn(FrameSource<'_>, ServiceMessage, &mut RoutedBatch) -> Result<(), String>,
    ) -> Result<(), String> {
        let shared = self.shared();
        let mut batch = RoutedBatch::of(shared);
        route(FrameSource { shared, counters: self.relayed(), hub: asker.hub(), asker, origin }, message, &mut batch)?;
        for (commands, shard) in batch.into_commands().into_iter().zip(shared.shards()) {
            if !commands.is_empty() {
                shard.give(commands, bytes).await;
            }
        }
        Ok(())
    }
}
