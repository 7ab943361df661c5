//! Commands: downward frames in a form that any shard can apply.

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
    Ack, AckStatus, ClientInvocation, FlowOperation, RawKind, RefreshAuth, ServiceMessage, TraceReport,
};

use super::connection::MirrorOrder;
use super::delivery::framed::Framed;
use super::shared::own_interest::OwnInterest;
use super::shared::user_group::ExpiredMembership;
use super::slot::Slot;
use crate::upstream::{AppServerId, Asker, HubIndex, LinkHandle, LinkId};
use audience::SendOrigin;
pub(crate) use audience::{Audience, MembershipChange, Receivers};
use member_query::{ListedSet, MemberListing, MemberTally};

/// Command to a shard. Commands of one link are applied in the order of its frames.
#[derive(Debug, Clone)]
pub(crate) enum ShardCommand {
    /// Command to one connection.
    One {
        /// The hub of the link that brought it: a connection of another hub is out of its reach.
        hub: HubIndex,
        /// The app server at the link's far end.
        app: AppServerId,
        connection_id: ByteString,
        /// Its slot when the frame was read: it has that slot, or is gone.
        slot: Slot,
        command: ConnectionCommand,
    },
    /// One message for many.
    Send { hub: HubIndex, to: Receivers, message: Framed, origin: SendOrigin },
    /// All of these connections join or leave groups.
    ChangeGroups { hub: HubIndex, to: Receivers, change: MembershipChange, ack: Option<Arc<PendingAck>> },
    /// Asks whether any of these is there; the answer is the ack.
    Check {
        hub: HubIndex,
        who: Audience,
        /// Only members of this group count.
        within_group: Option<ByteString>,
        ack: Arc<PendingAck>,
    },
    /// Lists members of a set that this shard has, then those of the shards behind it.
    ListMembers(Box<MemberListing>),
    /// Counts the members of a set that this shard has.
    CountMembers { hub: HubIndex, set: ListedSet, tally: Arc<MemberTally> },
    /// Counts the receivers of a message that this shard has.
    CountReceivers { hub: HubIndex, to: Receivers, tally: Arc<MemberTally> },
    CloseMany {
        hub: HubIndex,
        /// The app server at the link's far end.
        app: AppServerId,
        to: Receivers,
        /// Text for the clients.
        reason: Option<ByteString>,
        ack: Arc<PendingAck>,
    },
    /// The session of a link is over: its clients are reassigned.
    LinkLost(Arc<LinkLoss>),
    /// An app server has handed a connection over that is not here any more: it has not heard of its end.
    HandedOver { hub: HubIndex, app: AppServerId, connection_id: ByteString },
    /// A link has opened: clients that wait for a home may have it.
    LinkOpened(Arc<LinkHandle>),
    /// A link is about to be given up: its clients are moved to others of its app server.
    LeaveLink(Arc<LinkHandle>),
    /// An app server is about to stop: its clients are handed over.
    AppShuttingDown { hub: HubIndex, app: AppServerId },
    /// The node stops: all clients are closed, spread over this time.
    Drain(Duration),
    /// The time of a user's membership in a group is over.
    Expire { hub: HubIndex, over: ExpiredMembership },
    /// The routes are asked anew for these clients, in steps.
    Reroute(Vec<Slot>),
}

impl ShardCommand {
    /// Its message and where it comes from, if it is one for all of these receivers of the hub, and they are one set:
    /// whoever gets one of two such messages gets the other one behind it.
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

/// End of the session of a link.
#[derive(Debug)]
pub(crate) struct LinkLoss {
    pub link: LinkId,
    /// Cause for client connections that can't go on.
    pub cause: Cause,
    /// Seconds until the app server has certainly noticed it too, if it has other links: before that it takes no client
    /// again that it had by this one.
    pub noticed_within_s: u32,
    /// The app server may not notice it for long, and have the connections as before.
    pub may_be_unnoticed: bool,
    /// The app server has said goodbye: it has ended what connections it still had.
    pub is_goodbye: bool,
    /// Connections of whose ends the app server was told over this link, and may not know; in order.
    pub unheard: Vec<ByteString>,
}

/// Command to one connection.
#[derive(Debug, Clone)]
pub(crate) enum ConnectionCommand {
    /// Bytes of its own app server; those of another are dropped.
    Data {
        payload: Bytes,
        /// Kind of message to a client of a raw endpoint.
        kind: RawKind,
    },
    /// Bytes of a mirror's app server, to be compared.
    Mirrored { payload: Bytes, kind: RawKind },
    /// Order of a mirror's app server about its copy.
    Mirror(MirrorOrder),
    /// It joins or leaves groups.
    Group { change: MembershipChange, ack: Option<Arc<PendingAck>> },
    /// Closes it; what its app server sent before still goes out.
    Close {
        /// Error, if it is one.
        error: Option<ByteString>,
        /// Cause that the app server names.
        cause: Option<Cause>,
        /// Link of dial-in that the order has come by.
        by: Option<LinkId>,
    },
    /// Closes it, if the app server is one of its own: a frame for it was skipped.
    Skipped { problem: String },
    /// Mark of an app server behind its data for the client, to be confirmed when the client has taken the data.
    Mark { number: i64, asker: Arc<dyn Asker> },
    /// It closes at this time, in seconds since 1970, if it closes with its token.
    Refresh { expires_s: u64, ack: Arc<PendingAck> },
    /// It has a newer log-in of its user.
    RefreshAuth { refresh: Box<RefreshAuth>, ack: Arc<PendingAck> },
    /// Somebody asks for its claims.
    GetClaims { ack: Arc<PendingAck> },
    /// Its own app server hands it over to another one.
    HandOver { headers: Vec<(ByteString, Vec<ByteString>)> },
    /// Somebody asks it for a client result: an app server, maybe not its own, or another node.
    Invoke { asker: Arc<dyn Asker>, request: ClientInvocation, origin: SendOrigin },
    /// An app server delivers what it sends to it to another node, from this epoch on.
    Moved { from: AppServerId, epoch: i64 },
    /// An app server reports on a message of it that a trace follows.
    Traced(Box<TraceReport>),
    /// Pauses or resumes reading it.
    Flow {
        operation: FlowOperation,
        /// Link of dial-in that the order has come by.
        by: Option<LinkId>,
    },
}

/// Ack that is owed: sent when the last shard that had to do something drops it.
#[derive(Debug)]
pub(crate) struct PendingAck {
    asker: Arc<dyn Asker>,
    ack_id: i64,
    is_found: AtomicBool,
    /// Why a shard has not done it, with a text for the app.
    problem: OnceLock<(AckStatus, ByteString)>,
    /// Content of a positive answer.
    payload: OnceLock<Bytes>,
    /// Group that somebody has joined, of which other nodes have to know first.
    joined: Option<JoinedGroup>,
}

#[derive(Debug)]
struct JoinedGroup {
    interest: Arc<OwnInterest>,
    hub: HubIndex,
    group: ByteString,
}

impl PendingAck {
    /// Ack for this asker: `NotFound`, unless a shard finds a receiver.
    #[must_use]
    pub(crate) fn new(asker: Arc<dyn Asker>, ack_id: i64) -> Arc<Self> {
        Arc::new(Self::of(asker, ack_id, None))
    }

    /// Ack for joining a group: whoever gets it may send to the group at any node, so it waits until the other nodes
    /// know that the group has members here.
    #[must_use]
    pub(crate) fn of_join(
        asker: Arc<dyn Asker>,
        ack_id: i64,
        interest: Option<&Arc<OwnInterest>>,
        group: Option<&ByteString>,
    ) -> Arc<Self> {
        let hub = asker.hub();
        let joined = interest.zip(group);
        let joined =
            joined.map(|(interest, group)| JoinedGroup { interest: interest.clone(), hub, group: group.clone() });
        Arc::new(Self::of(asker, ack_id, joined))
    }

    fn of(asker: Arc<dyn Asker>, ack_id: i64, joined: Option<JoinedGroup>) -> Self {
        Self {
            asker,
            ack_id,
            is_found: AtomicBool::new(false),
            problem: OnceLock::new(),
            payload: OnceLock::new(),
            joined,
        }
    }

    /// Notes that a receiver is here, and the command was applied.
    pub(crate) fn found(&self) {
        self.is_found.store(true, Ordering::Relaxed);
    }

    /// Notes that a receiver is here, and the command can't be applied, for this reason; the first one counts.
    pub(crate) fn failed(&self, problem: impl Into<ByteString>) {
        self.refused(AckStatus::InternalServerError, problem);
    }

    /// Notes that the command is not applied, with this status and reason; the first one counts.
    pub(crate) fn refused(&self, status: AckStatus, problem: impl Into<ByteString>) {
        drop(self.problem.set((status, problem.into())));
    }

    /// Notes that the command was applied, with this answer.
    pub(crate) fn found_with(&self, payload: Bytes) {
        self.found();
        drop(self.payload.set(payload));
    }
}

impl Drop for PendingAck {
    fn drop(&mut self) {
        let (status, text) = match (self.problem.take(), self.is_found.load(Ordering::Relaxed)) {
            (Some(problem), _) => problem,
            // An empty text, not nil: so does the service that this protocol was made for.
            (None, true) => (AckStatus::Ok, ByteString::new()),
            (None, false) => (AckStatus::NotFound, ByteString::new()),
        };
        let payload = self.payload.take().filter(|_| status == AckStatus::Ok);
        let ack = ServiceMessage::Ack(Ack { ack_id: self.ack_id, status, message: Some(text), payload });
        match self.joined.take() {
            Some(JoinedGroup { interest, hub, group }) => {
                let asker = self.asker.clone();
                interest.when_heard(hub, Wanted::Group(&group), move || asker.answer(&ack));
            }
            None => self.asker.answer(&ack),
        }
    }
}
