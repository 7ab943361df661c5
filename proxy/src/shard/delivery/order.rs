//! What a downward frame asks of the shards, in a form that any of them can carry out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::{Ack, AckStatus, ClientInvocation, FlowOperation, RawKind, ServiceMessage};

use super::Framed;
use crate::shard::directory::Slot;
use crate::upstream::{AppServerId, HubIndex, LinkHandle, LinkId};

/// Whom a message is for.
#[derive(Debug, Clone)]
pub(crate) struct Receivers {
    pub who: Who,
    /// Connections that are left out.
    pub excluded: Vec<ByteString>,
    /// Users whose connections are left out.
    pub excluded_users: Vec<ByteString>,
}

/// Who gets a message, before anybody is left out.
#[derive(Debug, Clone)]
pub(crate) enum Who {
    /// All connections of the hub.
    Everyone,
    Connections(Vec<ByteString>),
    /// The members of groups, once per group.
    Groups(Vec<ByteString>),
    /// The connections of users.
    Users(Vec<ByteString>),
}

impl From<Who> for Receivers {
    fn from(who: Who) -> Self {
        Self { who, excluded: Vec::new(), excluded_users: Vec::new() }
    }
}

/// One thing to do. Orders of one link are carried out in the order of its frames.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    /// Something for one connection.
    One {
        /// The hub of the link that brought it: a connection of another hub is out of its reach.
        hub: HubIndex,
        /// The app server at the link's far end.
        app: AppServerId,
        connection_id: ByteString,
        /// Where it was when the order was made: there it is, or nowhere.
        slot: Slot,
        act: Act,
    },
    /// One message for many.
    Send { hub: HubIndex, to: Receivers, message: Framed },
    /// All connections of a user join or leave groups.
    UserGroup {
        hub: HubIndex,
        user: ByteString,
        change: GroupOrder,
        /// Who waits for it.
        ack: Option<Arc<PendingAck>>,
    },
    /// Is anybody there? The answer is the ack.
    Check {
        hub: HubIndex,
        /// Who is looked for.
        who: Who,
        /// Only members of this group count.
        within_group: Option<ByteString>,
        /// Who waits for it.
        ack: Arc<PendingAck>,
    },
    /// Many connections are to be closed.
    CloseMany {
        hub: HubIndex,
        to: Receivers,
        /// What the clients are told.
        reason: Option<ByteString>,
        /// Who waits for it.
        ack: Arc<PendingAck>,
    },
    /// The session of a link is over: those whose home it was get another one.
    LinkLost(LinkId, Cause),
    /// A link is open: those who wait for a home may have it.
    LinkOpened(Arc<LinkHandle>),
    /// An app server is about to stop: those at home there get another one.
    AppLeaves { hub: HubIndex, app: AppServerId },
    /// The node stops: all are closed, spread over this time.
    Drain(Duration),
}

/// What is done to one connection.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Bytes from its own app server; from another they don't count.
    Data {
        payload: Bytes,
        /// What they are to a client of a raw endpoint.
        kind: RawKind,
    },
    /// It joins or leaves groups.
    Group {
        change: GroupOrder,
        /// Who waits for it.
        ack: Option<Arc<PendingAck>>,
    },
    /// It is closed; what its app server sent before still goes out.
    Close {
        /// Why, where it is an error.
        error: Option<ByteString>,
        /// Which cause the app server names.
        cause: Option<Cause>,
    },
    /// Its own app server hands it over to another one.
    HandOver { headers: Vec<(ByteString, Vec<ByteString>)> },
    /// It is asked for a result by an app server that may not be its own.
    Ask { link: Arc<LinkHandle>, question: ClientInvocation },
    /// It is to be read no more, or again.
    Flow(FlowOperation),
}

/// A change of a connection's groups.
#[derive(Debug, Clone)]
pub(crate) enum GroupOrder {
    Join(ByteString),
    Leave(ByteString),
    LeaveAll,
}

/// An ack that is owed: sent when the last shard that had to do something lets go of it.
#[derive(Debug)]
pub(crate) struct PendingAck {
    link: Arc<LinkHandle>,
    ack_id: i64,
    is_found: AtomicBool,
}

impl PendingAck {
    /// An ack for the far end of `link`, `NotFound` unless somebody is found.
    #[must_use]
    pub(crate) fn new(link: Arc<LinkHandle>, ack_id: i64) -> Arc<Self> {
        Arc::new(Self { link, ack_id, is_found: AtomicBool::new(false) })
    }

    /// Whom it was about is here, and it was done.
    pub(crate) fn found(&self) {
        self.is_found.store(true, Ordering::Relaxed);
    }
}

impl Drop for PendingAck {
    fn drop(&mut self) {
        let status = if self.is_found.load(Ordering::Relaxed) { AckStatus::Ok } else { AckStatus::NotFound };
        // An empty text, not nil: so does the service that this protocol was made for.
        let message = Some(ByteString::new());
        self.link.send(&ServiceMessage::Ack(Ack { ack_id: self.ack_id, status, message }));
    }
}
