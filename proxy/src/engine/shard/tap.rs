//! Seam for features that follow the messages of a shard's clients and can't change them, such as watches and mirrors.
//!
//! ```text
//!  client ── up ──► app server                      opens, changes groups, closes, … ──► event
//!  client ◄── down, down_to_set ── app servers      frames are written, or wait ───────► settle
//! ```
//!
//! While no tap is active, a message costs one test of a flag, and clients have no state for taps.

use std::any::Any;
use std::fmt::Debug;

use bytes::Bytes;
use tokio::time::Instant;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::TraceReport;

use super::command::CopyOrder;
use super::connection::{Client, Connections, SetName};
use super::delivery::framed::Framed;
use super::shard_context::ShardContext;
use super::slot::Slot;
use crate::engine::upstream::{AppServerId, HubIndex, LinkHandle};

/// Read-only view of a shard.
#[derive(Debug)]
pub(crate) struct TapView<'a> {
    pub context: &'a ShardContext,
    pub connections: &'a Connections,
    /// Whole seconds since the shard started.
    pub now: u32,
}

/// Complete messages of a client for its app server.
#[derive(Debug)]
pub(crate) struct UpwardMessages<'a> {
    pub bytes: &'a [u8],
    pub count: u64,
    pub data_type: i64,
    /// Time of the read.
    pub read_at: Option<Instant>,
    /// Link of the app server; `None` if a method rule refused the messages.
    pub to: Option<&'a LinkHandle>,
}

/// Recipients of one message to a set of clients.
#[derive(Debug)]
pub(crate) struct Recipients<'a> {
    pub(super) connections: &'a Connections,
    pub(super) hub: HubIndex,
    pub(super) name: SetName<'a>,
    /// Epoch of the send's exclusions.
    pub(super) epoch: u64,
    pub(super) message: &'a Framed,
}

impl<'a> Recipients<'a> {
    /// The client in this slot with its frame, if it is a recipient.
    pub(crate) fn at(&self, slot: Slot) -> Option<(&'a Client, &'a Bytes)> {
        let client = self.connections.get(slot)?;
        let is_member = self.connections.sets().has(client, self.hub, self.name);
        Some((client, self.frame_of(client).filter(|_| is_member)?))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &'a Client, &'a Bytes)> {
        self.connections.members(self.hub, self.name).iter().filter_map(|member| {
            let client = self.connections.get(member.slot)?;
            Some((member.slot, client, self.frame_of(client)?))
        })
    }

    fn frame_of(&self, client: &Client) -> Option<&'a Bytes> {
        let is_recipient = client.life().is_open() && !client.is_excluded(self.epoch);
        if is_recipient { self.message.get(client.content()) } else { None }
    }
}

/// Event in the life of a client.
#[derive(Debug)]
pub(crate) enum TapEvent<'a> {
    Opened,
    /// Arrived from another node.
    Arrived,
    /// The rules of its hub may have changed.
    RulesChanged,
    GroupsChanged,
    /// Data or request of an app server that has a copy of the connection.
    Copied(AppServerId, &'a CopyOrder),
    /// Report of an app server on a marked message.
    Reported(&'a TraceReport),
    /// Closes for this cause, with a detail.
    Closed(Cause, Option<&'a str>),
    /// Has moved to another node.
    Moved,
}

/// Feature that follows clients of a shard.
pub(crate) trait Tap: Any + Debug {
    /// Whether a client is followed, or may be. Otherwise, the tap receives only openings and rules.
    fn is_active(&self) -> bool;

    /// Receives client messages before they are forwarded. Returns the mark of the first message if the app server has
    /// to report on them.
    fn up(&mut self, shard: &TapView<'_>, slot: Slot, messages: &UpwardMessages<'_>) -> Option<i64>;

    /// Receives a frame for one client, from a batch read at this time.
    fn down(&mut self, slot: Slot, client: &Client, frame: &Bytes, read_at: Option<Instant>);

    /// Receives a message for a set of clients, from a batch read at this time.
    fn down_to_set(&mut self, recipients: &Recipients<'_>, read_at: Option<Instant>);

    fn event(&mut self, shard: &TapView<'_>, slot: Slot, event: &TapEvent<'_>);

    /// Leaves a stopping app server.
    fn app_stopping(&mut self, _shard: &TapView<'_>, _hub: HubIndex, _app: AppServerId) {}

    /// Ends a batch: its frames are written, or wait in the outboxes.
    fn settle(&mut self, _connections: &Connections) {}

    /// Advances by one second.
    fn tick(&mut self, _shard: &TapView<'_>) {}
}

/// Taps of a shard.
#[derive(Debug)]
pub(super) struct Taps {
    /// Set if a tap is active. Otherwise, no message is shown.
    is_active: bool,
    all: Vec<Box<dyn Tap>>,
}

impl Taps {
    pub(super) fn new(all: Vec<Box<dyn Tap>>) -> Self {
        Self { is_active: false, all }
    }

    #[inline]
    pub(super) fn is_active(&self) -> bool {
        self.is_active
    }

    #[cold]
    pub(super) fn up(&mut self, shard: &TapView<'_>, slot: Slot, messages: &UpwardMessages<'_>) -> Option<i64> {
        self.all.iter_mut().fold(None, |mark, tap| tap.up(shard, slot, messages).or(mark))
    }

    #[cold]
    pub(super) fn down(&mut self, slot: Slot, client: &Client, frame: &Bytes, read_at: Option<Instant>) {
        self.all.iter_mut().for_each(|tap| tap.down(slot, client, frame, read_at));
    }

    pub(super) fn down_to_set(&mut self, recipients: &Recipients<'_>, read_at: Option<Instant>) {
        self.all.iter_mut().for_each(|tap| tap.down_to_set(recipients, read_at));
    }

    #[inline]
    pub(super) fn event(&mut self, shard: &TapView<'_>, slot: Slot, event: &TapEvent<'_>) {
        let may_begin = matches!(event, TapEvent::Opened | TapEvent::Arrived | TapEvent::RulesChanged);
        if self.is_active || may_begin {
            self.change(shard, |tap| tap.event(shard, slot, event));
        }
    }

    pub(super) fn app_stopping(&mut self, shard: &TapView<'_>, hub: HubIndex, app: AppServerId) {
        self.change(shard, |tap| tap.app_stopping(shard, hub, app));
    }

    pub(super) fn settle(&mut self, connections: &Connections) {
        if self.is_active {
            self.all.iter_mut().for_each(|tap| tap.settle(connections));
        }
    }

    pub(super) fn tick(&mut self, shard: &TapView<'_>) {
        if self.is_active {
            self.change(shard, |tap| tap.tick(shard));
        }
    }

    /// Runs `act` on the tap of this type; `None` without one.
    pub(super) fn run<T: Tap, R>(&mut self, shard: &TapView<'_>, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        let result = self.all.iter_mut().find_map(|tap| (&mut **tap as &mut dyn Any).downcast_mut()).map(act);
        self.note_active(shard.context);
        result
    }

    fn change(&mut self, shard: &TapView<'_>, act: impl FnMut(&mut Box<dyn Tap>)) {
        self.all.iter_mut().for_each(act);
        self.note_active(shard.context);
    }

    /// Other threads record the times of their batches while a tap is active.
    fn note_active(&mut self, context: &ShardContext) {
        let is_active = self.all.iter().any(|tap| tap.is_active());
        if is_active != self.is_active {
            self.is_active = is_active;
            context.show_timed(is_active);
        }
    }
}

#[cfg(test)]
mod tests;
