//! Pieces of a trace: connections that come and go, their messages, and the hops of these.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::TraceReport;

use crate::shard::slot::Slot;
use crate::shard::tap::tapped_message::{TapDirection, TapSummary};
use crate::upstream::{AppServerId, HubIndex};

/// Connection of a trace, as its pieces name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TracedConnection {
    /// First part of its id; the rest may be secret.
    pub id: Box<str>,
    pub hub: HubIndex,
    pub user: Option<String>,
    pub(super) slot: Slot,
}

/// Piece of a trace.
#[derive(Debug)]
pub(crate) struct TracePiece {
    /// Time since the trace began.
    pub at: Duration,
    pub event: TraceEvent,
}

/// Event of a trace.
#[derive(Debug)]
pub(crate) enum TraceEvent {
    Connection(Arc<TracedConnection>, ConnectionChange),
    Message(Box<TracedMessage>),
    /// Later hop of the message of this number.
    Hop(u64, TraceHop),
}

/// Change of a connection that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectionChange {
    /// It was open when the trace began.
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
pub(crate) struct TracedMessage {
    /// Its number in the trace and the shard, from 0.
    pub number: u64,
    pub connection: Arc<TracedConnection>,
    /// App server that it goes to, or comes from the home link of.
    pub app: Option<AppServerId>,
    pub way: TapDirection,
    pub kind: &'static str,
    pub target: Option<String>,
    pub invocation_id: Option<String>,
    pub bytes: u64,
    pub payload: Option<String>,
    /// Microseconds between socket and link at the proxy: up until it was put into the link, down since it was read from it;
    /// `None` if it has come from no link.
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

/// Hop of a message that was told before.
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
pub(crate) struct HubTimes {
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

/// Pieces of a trace since it was read last.
#[derive(Debug, Default)]
pub(crate) struct TraceBatch {
    /// Pieces in the order in which they were told.
    pub pieces: Vec<TracePiece>,
    /// Number of messages among them.
    pub messages: u64,
    /// Messages that were left out.
    pub dropped_messages: u64,
    /// Hops that were left out.
    pub dropped_hops: u64,
    /// Connections that are not followed, because there are too many.
    pub dropped_connections: u64,
}

impl TracePiece {
    /// Names the user of a connection whose trace does not know it, if anybody does.
    pub(in crate::shard) fn name_user(&mut self, user_at: impl Fn(Slot, &str) -> Option<String>) {
        let TraceEvent::Message(message) = &mut self.event else { return };
        let connection = &message.connection;
        if connection.user.is_none()
            && let user @ Some(_) = user_at(connection.slot, &connection.id)
        {
            message.connection = Arc::new(TracedConnection { user, ..(**connection).clone() });
        }
    }
}

impl TracedMessage {
    /// Message of a connection, of which no hop is known.
    pub(super) fn new(connection: Arc<TracedConnection>, way: TapDirection, summary: TapSummary) -> Self {
        let TapSummary { kind, target, invocation_id, bytes, payload } = summary;
        Self {
            number: 0,
            connection,
            app: None,
            way,
            kind,
            target,
            invocation_id,
            bytes,
            payload,
            link_us: None,
            is_refused: false,
            is_open: false,
            is_marked: false,
            answers: None,
        }
    }

    /// Bytes of its texts.
    pub(super) fn text_bytes(&self) -> usize {
        let texts = [&self.target, &self.invocation_id, &self.payload];
        texts.into_iter().flatten().map(String::len).sum()
    }
}

impl HubTimes {
    /// Times of a report; those that an app server has made negative are none.
    pub(super) fn of(report: &TraceReport) -> Self {
        let told = |duration: i64| u64::try_from(duration).unwrap_or_default();
        Self {
            waited_us: told(report.waited_us),
            queued_us: report.queued_us.map(told),
            ran_us: report.ran_us.map(told),
            answered_us: report.answered_us.map(told),
            has_failed: report.has_failed,
        }
    }
}

/// Whole microseconds of a duration.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
