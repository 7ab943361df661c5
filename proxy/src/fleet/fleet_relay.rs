//! Relays messages from this node to members of the fleet and to its own shards.

use std::sync::Arc;

use tracing::warn;
use trunkline_protocol::service::ServiceMessage;

use super::fleet_counters::{DropCause, FleetCounters};
use super::fleet_member::FleetMember;
use super::own_answer::OwnAnswer;
use crate::engine::link::{FrameSource, RoutedBatch, route, route_counted};
use crate::engine::shard::{SendOrigin, Shared};
use crate::engine::upstream::{AppServerId, HubIndex, HubOrigin, ReplyTo};
use crate::ground::auth::Signer;
use crate::ground::metrics::Counters;

#[derive(Debug)]
pub(crate) struct FleetRelay {
    shared: Arc<Shared>,
    counters: FleetCounters,
    /// Counters of messages to shards. Never displayed, so a race may lose a count.
    relayed: Arc<Counters>,
}

impl FleetRelay {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, counters: FleetCounters::default(), relayed: Arc::default() }
    }

    pub(crate) fn counters(&self) -> &FleetCounters {
        &self.counters
    }

    pub(super) fn relayed(&self) -> &Arc<Counters> {
        &self.relayed
    }

    /// App that messages for a hub count for.
    pub(super) fn owner_of(&self, hub: &str) -> Signer {
        self.shared.access.owner_of(HubOrigin::name_in(hub))
    }

    /// Queues a message of an app for a member. If it is dropped, counts it and returns `false`.
    pub(super) fn pass_to(&self, member: &FleetMember, signer: &Signer, frame: &[u8]) -> bool {
        let sent = member.links().send(signer, frame);
        if let Err(cause) = sent {
            self.counters.drop_messages(cause, 1);
            if member.note_dropped(1) {
                let (peer, cause) = (member.name(), DropCause::label(cause));
                warn!(peer, cause, "dropping messages to a node: only its clients miss them");
            }
        }
        sent.is_ok()
    }

    /// Queries the shards of this node; `None` during shutdown.
    pub(super) async fn ask_here(
        &self,
        (hub, app): (HubIndex, AppServerId),
        question: ServiceMessage,
    ) -> Option<ServiceMessage> {
        let (reply_to, answer) = OwnAnswer::of(hub, app);
        self.route_here(&reply_to, SendOrigin::OtherNode, question).await.ok()?;
        drop(reply_to);
        answer.await.ok()
    }

    pub(super) async fn route_here(
        &self,
        reply_to: &Arc<dyn ReplyTo>,
        origin: SendOrigin,
        message: ServiceMessage,
    ) -> Result<(), String> {
        self.give_routed((reply_to, origin), message, 0, route).await
    }

    /// Routes a message of the given size to this node's shards, which report the number of receivers.
    pub(super) async fn route_counted_here(
        &self,
        reply_to: &Arc<dyn ReplyTo>,
        origin: SendOrigin,
        message: ServiceMessage,
        bytes: usize,
    ) -> Result<(), String> {
        self.give_routed((reply_to, origin), message, bytes, route_counted).await
    }

    async fn give_routed(
        &self,
        (reply_to, origin): (&Arc<dyn ReplyTo>, SendOrigin),
        message: ServiceMessage,
        bytes: usize,
        route: impl Fn(FrameSource<'_>, ServiceMessage, &mut RoutedBatch) -> Result<(), String>,
    ) -> Result<(), String> {
        let shared = &self.shared;
        let mut batch = RoutedBatch::of(shared);
        route(
            FrameSource { shared, counters: &self.relayed, hub: reply_to.hub(), reply_to, origin, filter: None },
            message,
            &mut batch,
        )?;
        batch.compress_large(shared).await;
        for (pieces, shard) in batch.into_commands().zip(shared.shards()) {
            for (commands, bytes) in pieces.with_bytes(bytes) {
                let commands = shard.take_steps(shared, commands).await;
                shard.give(commands, bytes).await;
            }
        }
        Ok(())
    }
}
