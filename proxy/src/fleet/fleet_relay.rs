//! Relays messages from this node to members of the fleet and to its own shards. The shards' answers
//! are combined with answers of other nodes.
//!
//! Users' memberships for future connections are copied to new members of the fleet:
//!
//! ```text
//!  link opens ─► names of the users ─► one user at a time, as room permits ──┐
//!                concurrent changes: stored here first, then sent ───────────┴─► new member keeps the later one
//! ```
//!
//! The copy may be much larger than a node's queue. It uses only part of the queue, because client traffic shares the
//! link.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::warn;
use trunkline_protocol::fleet::{NodeMessage, Wanted, encode_relay};
use trunkline_protocol::limits::LINK_RING_MAX_BYTES;
use trunkline_protocol::service::{Audience, ServiceMessage, Stamped};

use super::fleet_member::FleetMember;
use super::node_link::{DropCause, FleetCounters, NodeLink};
use crate::engine::link::{FrameSource, RoutedBatch, route, route_counted};
use crate::engine::shard::{SendOrigin, Shared};
use crate::engine::upstream::{AppServerId, HubIndex, HubOrigin, ReplyTo};
use crate::features::user_group::UserGroups;
use crate::ground::auth::Signer;
use crate::ground::metrics::Counters;

#[derive(Debug)]
pub(crate) struct FleetRelay {
    shared: Arc<Shared>,
    pub(crate) counters: FleetCounters,
    /// Counters of messages to shards. Never displayed, so a race may lose a count.
    pub(super) relayed: Arc<Counters>,
}

impl FleetRelay {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, counters: FleetCounters::default(), relayed: Arc::default() }
    }

    /// App that messages for a hub count for.
    pub(super) fn owner_of(&self, hub: &str) -> Signer {
        self.shared.access.owner_of(HubOrigin::name_in(hub))
    }

    /// Queues a message of an app for a member. If it is dropped, counts it and returns `false`.
    pub(super) fn pass_to(&self, member: &FleetMember, signer: &Signer, frame: &[u8]) -> bool {
        let sent = member.links.send(signer, frame);
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
        let (reply_to, answer) = OwnAnswer::new_pair(hub, app);
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
        let mut batch = RoutedBatch::for_shards(shared);
        route(
            FrameSource { shared, counters: &self.relayed, hub: reply_to.hub(), reply_to, origin, filter: None },
            message,
            &mut batch,
        )?;
        batch.give(shared, bytes).await;
        Ok(())
    }
}

/// Reply handle that passes this node's answer to a receiver.
#[derive(Debug)]
pub(super) struct OwnAnswer {
    hub: HubIndex,
    app: AppServerId,
    answer: Mutex<Option<oneshot::Sender<ServiceMessage>>>,
}

impl OwnAnswer {
    pub(super) fn new_pair(hub: HubIndex, app: AppServerId) -> (Arc<dyn ReplyTo>, oneshot::Receiver<ServiceMessage>) {
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

/// Relay frame of a message that entered the fleet in this epoch; 0 if epochs don't matter.
pub(super) fn relayed(hub: &str, message: &ServiceMessage, epoch: i64) -> BytesMut {
    let mut frame = BytesMut::new();
    encode_relay(hub, &stamped(message, epoch), &mut frame);
    frame
}

/// Message body, wrapped with its epoch after the first move.
pub(super) fn stamped(message: &ServiceMessage, epoch: i64) -> Bytes {
    let body = message.to_body();
    if epoch > 0 { ServiceMessage::Stamped(Stamped { epoch, body }).to_body() } else { body }
}

/// Calls `act` with the recipients of a message.
pub(super) fn with_wanted<R>(message: &ServiceMessage, act: impl FnOnce(&[Wanted<'_>]) -> R) -> R {
    match message.audience() {
        Some(Audience::Groups([group])) => act(&[Wanted::Group(group)]),
        Some(Audience::Groups(groups)) => act(&groups.iter().map(|group| Wanted::Group(group)).collect::<Vec<_>>()),
        Some(Audience::Users([user])) => act(&[Wanted::User(user)]),
        Some(Audience::Users(users)) => act(&users.iter().map(|user| Wanted::User(user)).collect::<Vec<_>>()),
        _ => act(&[Wanted::Everyone]),
    }
}

/// Whether a query concerns one connection, held by this node.
pub(super) fn is_about_own(shared: &Shared, message: &ServiceMessage) -> bool {
    let Some(Audience::Connections([id])) = message.audience() else { return false };
    match message {
        // If a connection moves between two nodes, the final owner keeps the sign-in.
        ServiceMessage::RefreshAuth(_) => shared.routes.is_here_alone(id),
        _ => shared.routes.find(id).is_some(),
    }
}

/// Maximum queued and unacknowledged bytes at which more of the copy is queued: twice the bytes sent per
/// acknowledgement.
const COPY_RING_BYTES: usize = LINK_RING_MAX_BYTES / 2;

/// Interval between checks for room on the link.
const ROOM_INTERVAL: Duration = Duration::from_millis(20);

/// Sends all memberships stored here to a new member, whose clients need them too.
pub(super) fn introduce_user_groups(user_groups: &Arc<UserGroups>, link: &Arc<NodeLink>) {
    let users = user_groups.users();
    if users.is_empty() {
        return;
    }
    let (user_groups, link) = (user_groups.clone(), link.clone());
    tokio::spawn(async move {
        for user in users {
            while link.ring_bytes() > COPY_RING_BYTES && !link.is_over() {
                sleep(ROOM_INTERVAL).await;
            }
            if link.is_over() {
                return;
            }
            user_groups.report(&user, |told| link.notify(&NodeMessage::Membership(told)));
        }
    });
}

/// Stores a membership change before other nodes receive it, so that a concurrent copy contains or precedes it. The
/// later apply, which stores it again, reports failures.
pub(super) fn keep_first(shared: &Shared, hub: &str, message: &ServiceMessage) {
    if message.outlasts_connections() {
        drop(shared.user_groups.note_change(hub, message));
    }
}
