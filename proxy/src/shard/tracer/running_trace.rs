//! One running trace of a shard: whom it follows, what it has told, and its bounds.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::id::ID_CHARS;

use super::trace_filter::{TraceFilter, TraceSubject};
use super::traced_message::{
    ConnectionChange, TraceBatch, TraceEvent, TraceHop, TracePiece, TracedConnection, TracedMessage, micros,
};
use crate::shard::connection::Client;
use crate::shard::slot::Slot;
use crate::shard::tap::tapped_message::TapSummary;

/// Maximum number of connections that a trace follows at a time in one shard.
pub(super) const FOLLOWED_MAX: usize = 256;

/// Maximum number of messages that a trace tells in a second, in one shard.
pub(super) const TOLD_PER_SECOND_MAX: u32 = 500;

/// Limit of the bytes of one trace that were not read yet, in one shard.
const UNREAD_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Bytes that a piece costs beside its texts.
const PIECE_BYTES: usize = 200;

/// Maximum number of calls whose answers are awaited.
const CALLS_MAX: usize = 1_024;

/// Call that waits for its answer.
#[derive(Debug)]
struct AwaitedCall {
    number: u64,
    read_at: Instant,
}

/// One trace of a shard.
#[derive(Debug)]
pub(super) struct RunningTrace {
    pub(super) number: u64,
    pub(super) filter: TraceFilter,
    pub(super) idle_ticks: u32,
    started: Instant,
    followed: HashMap<Slot, Arc<TracedConnection>>,
    /// Calls that wait for their answers, by client and invocation id.
    calls: HashMap<(Slot, String), AwaitedCall>,
    next_message: u64,
    told_this_second: u32,
    unread: TraceBatch,
    unread_bytes: usize,
}

impl RunningTrace {
    pub(super) fn new(number: u64, filter: TraceFilter, started: Instant) -> Self {
        let (followed, calls, unread) = (HashMap::new(), HashMap::new(), TraceBatch::default());
        Self {
            number,
            filter,
            idle_ticks: 0,
            started,
            followed,
            calls,
            next_message: 0,
            told_this_second: 0,
            unread,
            unread_bytes: 0,
        }
    }

    pub(super) fn read(&mut self) -> TraceBatch {
        (self.idle_ticks, self.unread_bytes) = (0, 0);
        mem::take(&mut self.unread)
    }

    pub(super) fn tick(&mut self) {
        self.idle_ticks += 1;
        self.told_this_second = 0;
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.followed.keys().copied()
    }

    pub(super) fn follows_a_method(&self) -> bool {
        matches!(self.filter.subject, TraceSubject::Method(_))
    }

    /// Whether it is a trace of the method that a message calls.
    pub(super) fn follows_method_of(&self, summary: &TapSummary) -> bool {
        match (&self.filter.subject, &summary.target) {
            (TraceSubject::Method(method), Some(target)) => target.to_lowercase() == method.to_lowercase(),
            _ => false,
        }
    }

    /// Whether a message of this client may be one of the trace: only then it is read.
    pub(super) fn may_take(&self, slot: Slot, client: &Client) -> bool {
        match self.follows_a_method() {
            true => self.is_at_hub(client),
            false => self.followed.contains_key(&slot),
        }
    }

    /// Takes a message if it is one of the trace.
    pub(super) fn take(
        &mut self,
        slot: Slot,
        (client, user): (&Client, Option<&str>),
        summary: &TapSummary,
    ) -> Option<Arc<TracedConnection>> {
        let is_wanted = match self.follows_a_method() {
            true => self.is_at_hub(client) && (self.follows_method_of(summary) || self.awaits(slot, summary)),
            false => self.followed.contains_key(&slot),
        };
        if !is_wanted {
            return None;
        }
        if self.told_this_second >= TOLD_PER_SECOND_MAX || self.unread_bytes >= UNREAD_MAX_BYTES {
            self.unread.dropped_messages += 1;
            // Nobody has seen the call either.
            return None;
        }
        self.told_this_second += 1;
        Some(self.followed.get(&slot).cloned().unwrap_or_else(|| Arc::new(connection_of(slot, client, user))))
    }

    /// Summary as the trace shows it.
    pub(super) fn shown(&self, summary: &TapSummary) -> TapSummary {
        TapSummary { payload: summary.payload.clone().filter(|_| self.filter.with_payloads), ..summary.clone() }
    }

    /// Tells a message that was read at this time; returns its number.
    pub(super) fn tell(&mut self, mut message: TracedMessage, read_at: Instant) -> u64 {
        message.number = self.next_message;
        self.next_message += 1;
        let (number, bytes) = (message.number, message.text_bytes());
        self.unread.messages += 1;
        self.push(read_at.saturating_duration_since(self.started), TraceEvent::Message(Box::new(message)), bytes);
        number
    }

    /// Tells a later hop of a message.
    pub(super) fn tell_hop(&mut self, number: u64, hop: TraceHop) {
        if self.unread_bytes >= UNREAD_MAX_BYTES {
            self.unread.dropped_hops += 1;
            return;
        }
        self.push(self.started.elapsed(), TraceEvent::Hop(number, hop), 0);
    }

    /// Awaits the answer to a call that is about to be told.
    pub(super) fn await_answer(&mut self, slot: Slot, call: &TracedMessage, read_at: Instant) {
        if let Some(id) = call.invocation_id.clone().filter(|_| self.calls.len() < CALLS_MAX) {
            self.calls.insert((slot, id), AwaitedCall { number: self.next_message, read_at });
        }
    }

    /// Returns the number of the call that a message answers, and tells how long that took.
    pub(super) fn answered(&mut self, slot: Slot, summary: &TapSummary, now: Instant) -> Option<u64> {
        let key = (slot, summary.invocation_id.clone()?);
        let number = self.calls.get(&key)?.number;
        if summary.is_answer()
            && let Some(call) = self.calls.remove(&key)
        {
            let us = micros(now.saturating_duration_since(call.read_at));
            self.tell_hop(number, TraceHop::Answered { us });
        }
        summary.is_of_reply().then_some(number)
    }

    /// Counts messages that are not told one by one.
    pub(super) fn leave_out(&mut self, messages: u64) {
        self.unread.dropped_messages += messages;
    }

    /// Follows a client if it matches.
    pub(super) fn found(
        &mut self,
        slot: Slot,
        (client, user): (&Client, Option<&str>),
        is_member: &impl Fn(&str) -> bool,
        change: ConnectionChange,
    ) {
        let matches = match &self.filter.subject {
            subject @ TraceSubject::Connection(_) => subject.is_connection(&client.id),
            TraceSubject::User(wanted) => user == Some(wanted),
            TraceSubject::Group(name) => is_member(name),
            TraceSubject::Method(_) => false,
        };
        if !matches || !self.is_at_hub(client) || self.followed.contains_key(&slot) {
            return;
        }
        if self.followed.len() >= FOLLOWED_MAX {
            self.unread.dropped_connections += 1;
            return;
        }
        let connection = Arc::new(connection_of(slot, client, user));
        self.followed.insert(slot, connection.clone());
        self.push(self.started.elapsed(), TraceEvent::Connection(connection, change), 0);
    }

    /// Follows a client whose groups have changed, or follows it no longer.
    pub(super) fn regrouped(&mut self, slot: Slot, client: (&Client, Option<&str>), is_member: &impl Fn(&str) -> bool) {
        let TraceSubject::Group(name) = &self.filter.subject else { return };
        if is_member(name) {
            self.found(slot, client, is_member, ConnectionChange::Joined);
        } else {
            self.lose(slot, ConnectionChange::Left);
        }
    }

    /// Follows a client no longer whose connection is closed, or has moved.
    pub(super) fn closed(&mut self, slot: Slot, cause: Option<Cause>, detail: Option<&str>) {
        self.calls.retain(|(of, _), _| *of != slot);
        let change = match cause {
            Some(cause) => ConnectionChange::Closed(cause, detail.map(Into::into)),
            None => ConnectionChange::Moved,
        };
        self.lose(slot, change);
    }

    fn lose(&mut self, slot: Slot, change: ConnectionChange) {
        if let Some(connection) = self.followed.remove(&slot) {
            // Always: there is one for each that was followed.
            self.push(self.started.elapsed(), TraceEvent::Connection(connection, change), 0);
        }
    }

    fn is_at_hub(&self, client: &Client) -> bool {
        self.filter.hub.is_none_or(|hub| client.home.hub() == hub)
    }

    /// Whether it belongs to a call that the trace has told.
    fn awaits(&self, slot: Slot, summary: &TapSummary) -> bool {
        let id = summary.invocation_id.as_ref();
        !self.calls.is_empty() && id.is_some_and(|id| self.calls.contains_key(&(slot, id.clone())))
    }

    fn push(&mut self, at: Duration, event: TraceEvent, bytes: usize) {
        self.unread_bytes += bytes + PIECE_BYTES;
        self.unread.pieces.push(TracePiece { at, event });
    }
}

fn connection_of(slot: Slot, client: &Client, user: Option<&str>) -> TracedConnection {
    let id = client.id.get(..ID_CHARS).unwrap_or(&client.id).into();
    TracedConnection { id, hub: client.home.hub(), user: user.map(Into::into), slot }
}
