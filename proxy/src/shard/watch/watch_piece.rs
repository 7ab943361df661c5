//! Pieces of a watch: connections that come and go, their bytes or messages, and the hops of these.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::id::ID_CHARS;
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::{OpenConnection, RawKind, TraceReport};

use super::message_summary::{MessageSummary, MessageWay};
use crate::shard::connection::Client;
use crate::shard::content::Content;
use crate::shard::slot::Slot;
use crate::upstream::{AppServerId, HubIndex};

/// Connection of a watch, as its pieces name it.
#[derive(Debug, Clone)]
pub(crate) struct WatchedConnection {
    /// First part of its id; the rest may be secret.
    pub id: Box<str>,
    pub hub: HubIndex,
    pub user: Option<String>,
    pub content: Content,
    pub(crate) slot: Slot,
}

/// Piece of a watch.
#[derive(Debug)]
pub(crate) struct WatchPiece {
    /// Time since the watch began.
    pub at: Duration,
    pub event: WatchEvent,
}

/// Event of a watch.
#[derive(Debug)]
pub(crate) enum WatchEvent {
    /// Opening of a connection, where bytes are copied.
    Opening(Arc<WatchedConnection>, Box<WatchedOpening>),
    Connection(Arc<WatchedConnection>, ConnectionChange),
    Bytes(Arc<WatchedConnection>, MessageWay, WatchedBytes),
    Message(Box<WatchedMessage>),
    /// Later hop of the message of this number.
    Hop(u64, TraceHop),
}

/// Opening of a connection, as its app server gets it.
#[derive(Debug)]
pub(crate) struct WatchedOpening {
    pub open: OpenConnection,
    pub transport: Transport,
    /// It was open before the watch, or at another node.
    pub was_open: bool,
}

/// Bytes of one direction of a connection.
#[derive(Debug)]
pub(crate) enum WatchedBytes {
    /// Hub handshake of the client, or the answer to it.
    Handshake(Bytes),
    /// Whole messages of one kind.
    Messages(Bytes, RawKind),
}

/// Change of a connection that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectionChange {
    /// It was open when the watch began.
    Present,
    Opened,
    /// It has come from another node.
    Arrived,
    /// It has joined the group that is followed.
    Joined,
    /// It has left that group.
    Left,
    /// Another node has it from now on.
    Moved,
    Closed(Cause, Option<String>),
}

/// Message of a connection.
#[derive(Debug)]
pub(crate) struct WatchedMessage {
    /// Its number in the watch and the shard, from 0.
    pub number: u64,
    pub connection: Arc<WatchedConnection>,
    /// App server that it goes to, or comes from the home link of.
    pub app: Option<AppServerId>,
    pub way: MessageWay,
    pub summary: MessageSummary,
    /// Microseconds between socket and link at the proxy: up until it was put into the link, down since it was read
    /// from it; `None` if it has come from no link.
    pub link_us: Option<u64>,
    /// Rules about methods have refused it.
    pub is_refused: bool,
    /// More hops are to come.
    pub is_open: bool,
    /// The app server reports on it.
    pub is_marked: bool,
    /// Number of the call that it answers.
    pub answers: Option<u64>,
}

/// Hop of a message of an earlier piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TraceHop {
    /// Times in the app server.
    Hub(HubTimes),
    /// The answer has come, so long after the call was read from the client.
    Answered { us: u64 },
    /// It was written to the client's socket, so long after it was put into its outbox.
    Written { us: u64 },
    /// It was not written: the client is gone, or has missed it.
    Lost,
}

/// Times of a message in the app server, by its clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HubTimes {
    /// Microseconds from the link's reader to the connection's worker.
    pub waited_us: u64,
    /// Microseconds until the method began; `None` for a message that calls none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_us: Option<u64>,
    /// Microseconds that the method ran; `None` while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ran_us: Option<u64>,
    /// Microseconds until the answer was in the link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_us: Option<u64>,
    /// The call was answered with an error.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_failed: bool,
}

/// Messages and bytes in one direction since a watch began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WatchVolume {
    pub messages: u64,
    pub bytes: u64,
}

/// Number of things that a watch has left out since it was read last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WatchLoss {
    pub messages: u64,
    pub hops: u64,
    /// Connections that are not followed, because there are too many or no room was left.
    pub connections: u64,
}

/// Pieces of a watch since it was read last.
#[derive(Debug, Default)]
pub(crate) struct WatchBatch {
    /// Pieces in the order in which they were copied.
    pub pieces: VecDeque<WatchPiece>,
    /// Number of summaries among them, those pushed out included.
    pub messages: u64,
    pub loss: WatchLoss,
    /// Summaries of messages of clients since the watch began.
    pub up: WatchVolume,
    /// Summaries of messages for clients.
    pub down: WatchVolume,
}

impl WatchedConnection {
    /// Connection of no shard, for tests of lines.
    #[cfg(test)]
    pub(crate) fn made_up(id: &str, hub: HubIndex, user: Option<&str>, content: Content) -> Self {
        Self { id: id.into(), hub, user: user.map(Into::into), content, slot: 0 }
    }

    pub(super) fn of(slot: Slot, client: &Client, user: Option<&str>) -> Self {
        Self {
            id: client.id().get(..ID_CHARS).unwrap_or(client.id()).into(),
            hub: client.home().hub(),
            user: user.map(Into::into),
            content: client.content(),
            slot,
        }
    }
}

impl WatchPiece {
    /// Names the user of a connection that is not followed itself, if it has one.
    pub(super) fn name_user(&mut self, user_at: impl Fn(Slot, &str) -> Option<String>) {
        let WatchEvent::Message(message) = &mut self.event else { return };
        let connection = &message.connection;
        if connection.user.is_none()
            && let user @ Some(_) = user_at(connection.slot, &connection.id)
        {
            message.connection = Arc::new(WatchedConnection { user, ..(**connection).clone() });
        }
    }
}

impl WatchedBytes {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Handshake(bytes) | Self::Messages(bytes, _) => bytes.len(),
        }
    }
}

impl WatchedOpening {
    pub(super) fn bytes(&self) -> usize {
        let open = &self.open;
        let claims: usize = open.claims.iter().map(|(name, value)| name.len() + value.len()).sum();
        let values = |values: &[bytestring::ByteString]| values.iter().map(|value| value.len()).sum::<usize>();
        let headers: usize = open.headers.iter().map(|(name, all)| name.len() + values(all)).sum();
        claims + headers + open.query.as_ref().map_or(0, |query| query.len())
    }
}

impl WatchedMessage {
    /// Message of a connection, of which no hop is known.
    pub(super) fn new(connection: Arc<WatchedConnection>, way: MessageWay, summary: MessageSummary) -> Self {
        Self {
            number: 0,
            connection,
            app: None,
            way,
            summary,
            link_us: None,
            is_refused: false,
            is_open: false,
            is_marked: false,
            answers: None,
        }
    }
}

impl HubTimes {
    /// Times of a report; those that an app server has made negative are none.
    pub(super) fn of(report: &TraceReport) -> Self {
        let sound = |duration: i64| u64::try_from(duration).unwrap_or_default();
        Self {
            waited_us: sound(report.waited_us),
            queued_us: report.queued_us.map(sound),
            ran_us: report.ran_us.map(sound),
            answered_us: report.answered_us.map(sound),
            has_failed: report.has_failed,
        }
    }
}

impl WatchVolume {
    pub(super) fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }
}

/// Whole microseconds of a duration.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
