//! Running watch of a shard: followed clients, unread events and limits.
//!
//! Without room, new events, or the oldest if the watch keeps the newest, are dropped and counted. Changes of followed
//! connections always fit, since each connection ends only once.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::message_summary::{MessageDirection, MessageSummary};
use super::watch_order::{WatchBounds, WatchDetail, WatchOrder};
use super::watch_piece::{
    ConnectionChange, TraceHop, WatchBatch, WatchEvent, WatchPiece, WatchedConnection, WatchedMessage, micros,
};
use crate::engine::shard::{Client, Connections, SetName, Slot};

/// Ticks without a read after which a watch ends, because its reader has gone silently.
pub(super) const IDLE_TICKS: u32 = 10;

/// Maximum number of calls with pending replies.
const CALLS_MAX: usize = 1_024;

#[derive(Debug)]
struct AwaitedCall {
    number: u64,
    read_at: Instant,
}

#[derive(Debug)]
pub(super) struct RunningWatch {
    number: u64,
    order: WatchOrder,
    bounds: WatchBounds,
    idle_ticks: u32,
    started: Instant,
    followed: HashMap<Slot, Arc<WatchedConnection>>,
    /// Calls with pending replies, by client and invocation id.
    calls: HashMap<(Slot, String), AwaitedCall>,
    next_message: u64,
    told_this_second: u32,
    unread: WatchBatch,
    unread_bytes: usize,
}

impl RunningWatch {
    pub(super) fn new(number: u64, order: WatchOrder, started: Instant) -> Self {
        Self {
            number,
            bounds: order.detail.bounds(),
            order,
            idle_ticks: 0,
            started,
            followed: HashMap::new(),
            calls: HashMap::new(),
            next_message: 0,
            told_this_second: 0,
            unread: WatchBatch::default(),
            unread_bytes: 0,
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn detail(&self) -> WatchDetail {
        self.order.detail
    }

    pub(super) fn with_payloads(&self) -> bool {
        self.order.with_payloads
    }

    /// Takes the events since the last batch.
    pub(super) fn read_batch(&mut self) -> WatchBatch {
        (self.idle_ticks, self.unread_bytes) = (0, 0);
        let WatchBatch { up, down, .. } = self.unread;
        mem::replace(&mut self.unread, WatchBatch { up, down, ..WatchBatch::default() })
    }

    /// Advances by one second. Returns `false` when the watch is no longer read.
    pub(super) fn tick(&mut self) -> bool {
        self.told_this_second = 0;
        self.idle_ticks += 1;
        self.idle_ticks <= IDLE_TICKS
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.followed.keys().copied()
    }

    pub(super) fn follows_a_method(&self) -> bool {
        self.order.method().is_some()
    }

    pub(super) fn follows_method_of(&self, summary: &MessageSummary) -> bool {
        match (self.order.method(), &summary.target) {
            (Some(method), Some(target)) => target.to_lowercase() == method.to_lowercase(),
            _ => false,
        }
    }

    /// Whether the watch may capture a message of this client. Otherwise the message is not parsed.
    pub(super) fn may_take(&self, slot: Slot, client: &Client) -> bool {
        match self.follows_a_method() {
            true => self.order.is_at(client.home().hub()),
            false => self.followed.contains_key(&slot),
        }
    }

    /// Follows a client if it matches.
    pub(super) fn follow(&mut self, connections: &Connections, slot: Slot, change: ConnectionChange) {
        let Some(client) = connections.get(slot) else { return };
        let (hub, user) = (client.home().hub(), connections.user_of(client));
        let is_member = |group: &str| connections.sets().has(client, hub, SetName::Group(group));
        let is_wanted = self.order.is_at(hub) && self.order.follows(&client.id, user, is_member);
        if !is_wanted || self.followed.contains_key(&slot) {
            return;
        }
        if self.followed.len() >= self.bounds.followed {
            self.unread.loss.connections += 1;
            return;
        }
        let connection = Arc::new(WatchedConnection::from_client(slot, client, user));
        self.followed.insert(slot, connection.clone());
        self.push(self.started.elapsed(), WatchEvent::Connection(connection, change), 0);
    }

    /// Follows or drops a client after its groups changed.
    pub(super) fn regroup(&mut self, connections: &Connections, slot: Slot) {
        let Some(group) = self.order.group() else { return };
        let Some(client) = connections.live(slot) else { return };
        if connections.sets().has(client, client.home().hub(), SetName::Group(group)) {
            self.follow(connections, slot, ConnectionChange::Joined);
        } else {
            self.lose(slot, ConnectionChange::Left);
        }
    }

    /// Stops following a client with a closed or moved connection.
    pub(super) fn stop_following(&mut self, slot: Slot, change: ConnectionChange) {
        self.calls.retain(|(of, _), _| *of != slot);
        self.lose(slot, change);
    }

    fn lose(&mut self, slot: Slot, change: ConnectionChange) {
        if let Some(connection) = self.followed.remove(&slot) {
            self.push(self.started.elapsed(), WatchEvent::Connection(connection, change), 0);
        }
    }

    pub(super) fn admit_message(
        &mut self,
        slot: Slot,
        (client, user): (&Client, Option<&str>),
        summary: &MessageSummary,
    ) -> Option<Arc<WatchedConnection>> {
        let is_of_method = || self.follows_method_of(summary) || self.awaits(slot, summary);
        if !self.may_take(slot, client) || self.follows_a_method() && !is_of_method() {
            return None;
        }
        if self.told_this_second >= self.bounds.per_second || !self.has_room(summary.text_bytes()) {
            // The call is also missing from the events.
            self.unread.loss.messages += 1;
            return None;
        }
        self.told_this_second += 1;
        let followed = self.followed.get(&slot).cloned();
        Some(followed.unwrap_or_else(|| Arc::new(WatchedConnection::from_client(slot, client, user))))
    }

    /// Summary with the fields that the watch shows.
    pub(super) fn shown(&self, summary: &MessageSummary) -> MessageSummary {
        MessageSummary { payload: summary.payload.clone().filter(|_| self.order.with_payloads), ..summary.clone() }
    }

    /// Adds a message read at this time. Returns its number.
    pub(super) fn add_message(&mut self, mut message: WatchedMessage, read_at: Instant) -> u64 {
        message.number = self.next_message;
        self.next_message += 1;
        let (number, bytes) = (message.number, message.summary.text_bytes());
        self.unread.messages += 1;
        match message.way {
            MessageDirection::Up => self.unread.up.add_bytes(message.summary.bytes),
            MessageDirection::Down => self.unread.down.add_bytes(message.summary.bytes),
        }
        if self.bounds.newest.is_some_and(|most| self.unread.pieces.len() >= most)
            && let Some(WatchPiece { event: WatchEvent::Message(_), .. }) = self.unread.pieces.pop_front()
        {
            self.unread.loss.messages += 1;
        }
        self.push(read_at.saturating_duration_since(self.started), WatchEvent::Message(Box::new(message)), bytes);
        number
    }

    pub(super) fn add_hop(&mut self, number: u64, hop: TraceHop) {
        if self.has_room(0) {
            self.push(self.started.elapsed(), WatchEvent::Hop(number, hop), 0);
        } else {
            self.unread.loss.hops += 1;
        }
    }

    /// Waits for the reply to the call that is added next.
    pub(super) fn await_answer(&mut self, slot: Slot, call: &MessageSummary, read_at: Instant) {
        if let Some(id) = call.invocation_id.clone().filter(|_| self.calls.len() < CALLS_MAX) {
            self.calls.insert((slot, id), AwaitedCall { number: self.next_message, read_at });
        }
    }

    /// Returns the number of the call that a message answers, and adds its duration.
    pub(super) fn answered(&mut self, slot: Slot, summary: &MessageSummary, now: Instant) -> Option<u64> {
        let key = (slot, summary.invocation_id.clone()?);
        let number = self.calls.get(&key)?.number;
        if summary.is_answer()
            && let Some(call) = self.calls.remove(&key)
        {
            let us = micros(now.saturating_duration_since(call.read_at));
            self.add_hop(number, TraceHop::Answered { us });
        }
        summary.is_of_reply().then_some(number)
    }

    /// Counts messages that were omitted.
    pub(super) fn leave_out(&mut self, messages: u64) {
        self.unread.loss.messages += messages;
    }

    fn awaits(&self, slot: Slot, summary: &MessageSummary) -> bool {
        let id = summary.invocation_id.as_ref();
        !self.calls.is_empty() && id.is_some_and(|id| self.calls.contains_key(&(slot, id.clone())))
    }

    fn has_room(&self, bytes: usize) -> bool {
        let unread = self.unread_bytes.saturating_add(bytes).saturating_add(self.bounds.piece_bytes);
        unread <= self.bounds.unread_bytes
    }

    fn push(&mut self, at: Duration, event: WatchEvent, bytes: usize) {
        self.unread_bytes = self.unread_bytes.saturating_add(bytes + self.bounds.piece_bytes);
        self.unread.pieces.push_back(WatchPiece { at, event });
    }
}
