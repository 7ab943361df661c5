//! Events of a watch: connection changes, messages, and their hops.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::id::ID_CHARS;
use trunkline_protocol::service::TraceReport;

use super::message_summary::{MessageDirection, MessageSummary};
use crate::engine::shard::{Client, Slot};
use crate::engine::upstream::{AppServerId, HubIndex};

/// Watched connection, as identified in events.
#[derive(Debug, Clone)]
pub(crate) struct WatchedConnection {
    /// First part of the id; the rest may be secret.
    pub id: Box<str>,
    pub hub: HubIndex,
    pub user: Option<String>,
    pub(crate) slot: Slot,
}

#[derive(Debug)]
pub(crate) struct WatchPiece {
    /// Time since the watch started.
    pub at: Duration,
    pub event: WatchEvent,
}

#[derive(Debug)]
pub(crate) enum WatchEvent {
    Connection(Arc<WatchedConnection>, ConnectionChange),
    Message(Box<WatchedMessage>),
    /// Later hop of the message with this number.
    Hop(u64, TraceHop),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectionChange {
    /// Already open when the watch started.
    Present,
    Opened,
    /// Arrived from another node.
    Arrived,
    /// Joined the followed group.
    Joined,
    /// Left the followed group.
    Left,
    /// Moved to another node.
    Moved,
    Closed(Cause, Option<String>),
}

#[derive(Debug)]
pub(crate) struct WatchedMessage {
    /// Number in the watch and shard, starting at 0.
    pub number: u64,
    pub connection: Arc<WatchedConnection>,
    /// App server that receives it, or that has the primary link.
    pub app: Option<AppServerId>,
    pub way: MessageDirection,
    pub summary: MessageSummary,
    /// Microseconds between socket and link in the proxy: upstream until queued in the link, downstream since read from
    /// the link; `None` for a message that came from no link.
    pub link_us: Option<u64>,
    /// Set if a method rule refused the message.
    pub is_refused: bool,
    /// Set if more hops follow.
    pub is_open: bool,
    /// Set if the app server reports on the message.
    pub is_marked: bool,
    /// Number of the call that the message answers.
    pub answers: Option<u64>,
}

/// Hop of a message in an earlier event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TraceHop {
    /// Times in the app server.
    Hub(HubTimes),
    /// Time from reading the call to the arrival of its reply.
    Answered { us: u64 },
    /// Time from queueing to the write to the client's socket.
    Written { us: u64 },
    /// Not written: the client is gone or missed it.
    Lost,
}

/// Times of a message in the app server, by its clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HubTimes {
    /// Microseconds from the link's reader to the connection's worker.
    pub waited_us: u64,
    /// Microseconds until the method started; `None` for a message without a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_us: Option<u64>,
    /// Microseconds of the method's execution; `None` while running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ran_us: Option<u64>,
    /// Microseconds until the reply was queued in the link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_us: Option<u64>,
    /// Set if the reply was an error.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_failed: bool,
}

/// Messages and bytes in one direction since a watch started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WatchVolume {
    pub messages: u64,
    pub bytes: u64,
}

/// Number of items omitted by a watch since its last read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WatchLoss {
    pub messages: u64,
    pub hops: u64,
    /// Connections not followed, because of a limit.
    pub connections: u64,
}

/// Events of a watch since its last read.
#[derive(Debug, Default)]
pub(crate) struct WatchBatch {
    /// Events in the order of capture.
    pub pieces: VecDeque<WatchPiece>,
    /// Number of summaries, including evicted ones.
    pub messages: u64,
    pub loss: WatchLoss,
    /// Upstream volume since the watch started.
    pub up: WatchVolume,
    /// Downstream volume since the watch started.
    pub down: WatchVolume,
}

impl WatchedConnection {
    pub(super) fn from_client(slot: Slot, client: &Client, user: Option<&str>) -> Self {
        Self {
            id: client.id.get(..ID_CHARS).unwrap_or(&client.id).into(),
            hub: client.home().hub(),
            user: user.map(Into::into),
            slot,
        }
    }
}

impl WatchPiece {
    /// Sets the user of a connection that is not followed itself.
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

impl WatchedMessage {
    /// Message of a connection without hops yet.
    pub(super) fn new(connection: Arc<WatchedConnection>, way: MessageDirection, summary: MessageSummary) -> Self {
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
    /// Times of a report. Negative times of an app server become 0.
    pub(super) fn from_report(report: &TraceReport) -> Self {
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
    pub(super) fn add_bytes(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
