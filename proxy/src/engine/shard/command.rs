//! Commands in a form that any shard can apply, created from frames of app servers.

pub(super) mod audience;
pub(super) mod member_query;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::fleet::Wanted;
use trunkline_protocol::service::{
    Ack, AckStatus, ClientInvocation, FlowOperation, Payloads, Position, RawKind, RecordedSet, RefreshAuth,
    ServiceMessage, TraceReport,
};

use super::delivery::framed::Framed;
use super::shared::seams::{ExpiredMembership, SetInterest};
use super::slot::Slot;
use crate::engine::upstream::{AppServerId, HubIndex, LinkHandle, LinkId, ReplyTo};
use audience::SendOrigin;
pub(crate) use audience::{Audience, MembershipChange, Receivers, SteppedFilter};
use member_query::{ListedSet, MemberListing, MemberTally};

/// Command for a shard. Commands from one link are applied in the order of its frames.
#[derive(Debug, Clone)]
pub(crate) enum ShardCommand {
    /// Command for one connection.
    One {
        /// Hub of the source link. It can't reach connections of other hubs.
        hub: HubIndex,
        app: AppServerId,
        connection_id: ByteString,
        /// Slot when the frame was parsed. The connection has this slot or is gone.
        slot: Slot,
        command: ConnectionCommand,
    },
    /// Message to several clients.
    Send { hub: HubIndex, to: Receivers, message: Framed, origin: SendOrigin },
    /// Joins or leaves groups for all these connections.
    ChangeGroups { hub: HubIndex, to: Receivers, change: MembershipChange, ack: Option<Arc<PendingAck>> },
    /// Checks whether any of these clients is here; the reply is the ack.
    Check {
        hub: HubIndex,
        who: Audience,
        /// Counts only members of this group.
        within_group: Option<ByteString>,
        ack: Arc<PendingAck>,
    },
    /// Lists members of a set on this shard, then on the following shards.
    ListMembers(Box<MemberListing>),
    /// Counts this shard's members of a set.
    CountMembers { hub: HubIndex, set: ListedSet, tally: Arc<MemberTally> },
    /// Counts this shard's receivers of a message.
    CountReceivers { hub: HubIndex, to: Receivers, tally: Arc<MemberTally> },
    CloseMany {
        hub: HubIndex,
        /// App server of the source link.
        app: AppServerId,
        to: Receivers,
        reason: Option<ByteString>,
        ack: Arc<PendingAck>,
    },
    /// Reassigns the clients of a link with a closed session.
    LinkLost(Arc<LinkLoss>),
    /// An app server has handed over a connection that is gone, having missed the notice of its close.
    HandedOver { hub: HubIndex, app: AppServerId, connection_id: ByteString },
    /// A link has opened and may take waiting clients.
    LinkOpened(Arc<LinkHandle>),
    /// A link is about to be given up. Its clients move to other links of its app server.
    LeaveLink(Arc<LinkHandle>),
    /// An app server is shutting down. Its clients are handed over.
    AppShuttingDown { hub: HubIndex, app: AppServerId },
    /// The node shuts down: closes all clients, spread over this time.
    Drain(Duration),
    /// A user's group membership has expired.
    Expire { hub: HubIndex, over: ExpiredMembership },
    /// Message or end of a record.
    Recorded(Arc<RecordedCommand>),
    /// Evaluates the routes again for these clients, in steps.
    Reroute(Vec<Slot>),
}

impl ShardCommand {
    /// Number of receiving groups, users or connections that a send names; 1 for any other command.
    pub(crate) fn names(&self) -> usize {
        match self {
            Self::Send { to, .. } => to.who.names().len().max(1),
            _ => 1,
        }
    }

    /// Receivers of a command with much work for each of many clients: a filter, a close or a change of groups. The
    /// sender lets the shard do this work in steps.
    #[must_use]
    pub(crate) fn stepped(&self) -> Option<(HubIndex, &Receivers)> {
        match self {
            Self::CloseMany { hub, to, .. } if matches!(to.who, Audience::Everyone | Audience::Groups(_)) => {
                Some((*hub, to))
            }
            Self::Send { hub, to, .. }
            | Self::CountReceivers { hub, to, .. }
            | Self::ChangeGroups { hub, to, .. }
            | Self::CloseMany { hub, to, .. } => to.filter.is_some().then_some((*hub, to)),
            _ => None,
        }
    }

    /// Hub and message of a large send to many clients.
    pub(crate) fn large_send(&self) -> Option<(HubIndex, &Framed)> {
        let send = match self {
            Self::Send { hub, message, .. } => Some((*hub, message)),
            Self::Recorded(recorded) => match &recorded.event {
                RecordEvent::Message(send) => Some((recorded.hub, &send.message)),
                RecordEvent::Finished | RecordEvent::Deleted => None,
            },
            _ => None,
        };
        send.filter(|(_, message)| message.is_large())
    }

    /// Message and origin of a send to exactly these receivers, if they are a single set: two such sends have the same
    /// recipients and can be joined.
    #[must_use]
    pub(crate) fn send_to_set(&self, of: HubIndex, receivers: &Receivers) -> Option<(&Framed, SendOrigin)> {
        match self {
            Self::Send { hub, to, message, origin } if *hub == of && to == receivers && to.who.is_one_set() => {
                Some((message, *origin))
            }
            _ => None,
        }
    }
}

/// Recorded message, for members and for followers.
#[derive(Debug)]
pub(crate) struct RecordedSend {
    pub to: Receivers,
    pub message: Framed,
    pub payloads: Payloads,
}

/// Event of a record, for its members and followers.
#[derive(Debug)]
pub(crate) struct RecordedCommand {
    pub hub: HubIndex,
    pub set: RecordedSet,
    pub position: Position,
    pub event: RecordEvent,
    pub origin: SendOrigin,
}

#[derive(Debug)]
pub(crate) enum RecordEvent {
    Message(Box<RecordedSend>),
    Finished,
    Deleted,
}

#[derive(Debug)]
pub(crate) struct LinkLoss {
    pub link: LinkId,
    /// Cause for client connections that can't continue.
    pub cause: Cause,
    /// Seconds until the app server has certainly detected the loss, if it has other links. Until then it accepts none
    /// of the link's clients.
    pub noticed_within_s: u32,
    /// The app server may not detect the loss for a while, and may still have the connections.
    pub may_be_unnoticed: bool,
    /// The app server has sent a farewell and closed its remaining connections.
    pub is_goodbye: bool,
    /// Connections with a close notice sent over this link and not confirmed, in order.
    pub pending_closes: Vec<ByteString>,
}

/// Data or request of an app server that has a copy of a connection.
#[derive(Debug, Clone)]
pub(crate) enum CopyOrder {
    Data { payload: Bytes, kind: RawKind },
    Flow(FlowOperation),
    Close,
}

#[derive(Debug, Clone)]
pub(crate) enum ConnectionCommand {
    /// Bytes from an assigned app server; those from others are dropped.
    Data {
        payload: Bytes,
        /// Message kind for a raw client.
        kind: RawKind,
        /// The payload compressed, if it is large and the client negotiated compression.
        packed: Option<Box<Bytes>>,
    },
    /// From an app server that has a copy of the connection.
    Copied(CopyOrder),
    /// Joins or leaves groups.
    Group { change: MembershipChange, ack: Option<Arc<PendingAck>> },
    /// Closes the connection after the data that its app server sent before.
    Close {
        error: Option<ByteString>,
        /// Cause named by the app server.
        cause: Option<Cause>,
        /// Dialled-in link that sent the command.
        by: Option<LinkId>,
    },
    /// Closes the connection if the app server is assigned to it, because a frame for it was skipped.
    Skipped { problem: String },
    /// Mark of an app server in its data for the client, confirmed once the client has read up to it.
    Mark { number: i64, reply_to: Arc<dyn ReplyTo> },
    /// Sets the close time, in seconds since 1970, of a connection that closes with its token.
    Refresh { expires_s: u64, ack: Arc<PendingAck> },
    /// Newer authentication of the connection's user.
    RefreshAuth { refresh: Box<RefreshAuth>, ack: Arc<PendingAck> },
    /// Requests the connection's claims.
    GetClaims { ack: Arc<PendingAck> },
    /// Hands the connection over from its app server to another.
    HandOver { headers: Vec<(ByteString, Vec<ByteString>)> },
    /// Requests a client result, for any app server or another node.
    Invoke { reply_to: Arc<dyn ReplyTo>, request: ClientInvocation, origin: SendOrigin },
    /// From this epoch on, an app server sends data for the connection to another node.
    Moved { from: AppServerId, epoch: i64 },
    /// Report on a traced message of the connection.
    Traced(Box<TraceReport>),
    /// Pauses or resumes reading from the client.
    Flow {
        operation: FlowOperation,
        /// Dialled-in link that sent the command.
        by: Option<LinkId>,
    },
}

/// Pending ack. Sent when the last shard involved drops it.
#[derive(Debug)]
pub(crate) struct PendingAck {
    reply_to: Arc<dyn ReplyTo>,
    ack_id: i64,
    is_found: AtomicBool,
    /// Failure status and text from a shard, for the app.
    problem: OnceLock<(AckStatus, ByteString)>,
    /// Content of a positive reply.
    payload: OnceLock<Bytes>,
    /// Joined group that other nodes have to be notified of first.
    joined: Option<JoinedGroup>,
}

#[derive(Debug)]
struct JoinedGroup {
    interest: Arc<dyn SetInterest>,
    hub: HubIndex,
    group: ByteString,
}

impl PendingAck {
    /// Ack for this caller: `NotFound`, unless a shard finds a receiver.
    pub(crate) fn new(reply_to: Arc<dyn ReplyTo>, ack_id: i64) -> Arc<Self> {
        Arc::new(Self::new_ack(reply_to, ack_id, None))
    }

    /// Ack for joining a group. The join permits sends to the group through any node, so the ack waits until the other
    /// nodes have confirmed that the group has members here.
    pub(crate) fn of_join(
        reply_to: Arc<dyn ReplyTo>,
        ack_id: i64,
        interest: Option<&Arc<dyn SetInterest>>,
        group: Option<&ByteString>,
    ) -> Arc<Self> {
        let hub = reply_to.hub();
        let joined = interest.zip(group);
        let joined =
            joined.map(|(interest, group)| JoinedGroup { interest: interest.clone(), hub, group: group.clone() });
        Arc::new(Self::new_ack(reply_to, ack_id, joined))
    }

    fn new_ack(reply_to: Arc<dyn ReplyTo>, ack_id: i64, joined: Option<JoinedGroup>) -> Self {
        Self {
            reply_to,
            ack_id,
            is_found: AtomicBool::new(false),
            problem: OnceLock::new(),
            payload: OnceLock::new(),
            joined,
        }
    }

    /// Records that a receiver is here and the command was applied.
    pub(crate) fn found(&self) {
        self.is_found.store(true, Ordering::Relaxed);
    }

    /// Records that a receiver is here and the command failed. The first reason is kept.
    pub(crate) fn failed(&self, problem: impl Into<ByteString>) {
        self.refused(AckStatus::InternalServerError, problem);
    }

    /// Records that the command was refused with this status. The first reason is kept.
    pub(crate) fn refused(&self, status: AckStatus, problem: impl Into<ByteString>) {
        drop(self.problem.set((status, problem.into())));
    }

    /// Records that the command was applied, with this reply.
    pub(crate) fn found_with(&self, payload: Bytes) {
        self.found();
        drop(self.payload.set(payload));
    }
}

impl Drop for PendingAck {
    fn drop(&mut self) {
        let (status, text) = match (self.problem.take(), self.is_found.load(Ordering::Relaxed)) {
            (Some(problem), _) => problem,
            // Empty, not nil, as in the service that defines this protocol.
            (None, true) => (AckStatus::Ok, ByteString::new()),
            (None, false) => (AckStatus::NotFound, ByteString::new()),
        };
        let payload = self.payload.take().filter(|_| status == AckStatus::Ok);
        let ack = ServiceMessage::Ack(Ack { ack_id: self.ack_id, status, message: Some(text), payload });
        match self.joined.take() {
            Some(JoinedGroup { interest, hub, group }) => {
                let reply_to = self.reply_to.clone();
                interest.when_confirmed(hub, Wanted::Group(&group), Box::new(move || reply_to.answer(&ack)));
            }
            None => self.reply_to.answer(&ack),
        }
    }
}
