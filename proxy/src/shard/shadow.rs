//! Seam for features that follow clients: a value per client that receives the client's traffic and can't change the
//! client.
//!
//! ```text
//!  opens, arrives, new rules ──► ShadowSource ──► Shadow, kept here by slot
//!  client ──► app server ───────── up ──────────►  │
//!  app server ──► client ───────── answer, down ─► │ ◄── answer, order ── app servers of the shadow itself
//!  closes, moves away ──────────── end ──────────► │
//! ```
//!
//! While no client has a shadow, a message costs one test of an empty map.

use std::fmt::Debug;

use bytes::Bytes;
use indexmap::IndexMap;
use trunkline_protocol::cause::Cause;

use super::command::ShadowOrder;
use super::connection::{Client, Connections};
use super::shard_context::ShardContext;
use super::shard_core::ShardCore;
use super::slot::Slot;
use crate::upstream::{AppServerId, Hub, HubIndex};

/// Creates the shadow of a client at this tick; `None` if no rule of the hub requires one.
pub(crate) type ShadowSource = fn(&ShardContext, &Client, &Hub, u32) -> Option<Box<dyn Shadow>>;

/// Complete messages of a client for its app server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UpwardMessages<'a> {
    pub bytes: &'a [u8],
    pub count: u64,
    pub data_type: i64,
}

/// State of a feature for one client. Times are ticks.
pub(crate) trait Shadow: Debug {
    /// Applies the current rules of the hub. Returns `false` if none requires the shadow.
    fn refresh(&mut self, context: &ShardContext, client: &Client, hub: &Hub, now: u32) -> bool;

    /// Whether [`down`](Self::down) is wanted.
    fn takes_down(&self) -> bool;

    /// Receives messages after they were forwarded.
    fn up(&mut self, context: &ShardContext, client: &Client, messages: UpwardMessages<'_>, now: u32);

    /// Receives data of the client's app servers, or, if `by` is given, of the shadow's own.
    fn answer(&mut self, context: &ShardContext, client: &Client, payload: &[u8], by: Option<AppServerId>);

    /// Receives messages that were queued for the client, from any sender.
    fn down(&mut self, client: &Client, messages: &Bytes);

    fn order(&mut self, by: AppServerId, order: ShadowOrder);

    /// Leaves a stopping app server of the client's hub.
    fn app_stopping(&mut self, client: &Client, app: AppServerId);

    fn tick(&mut self, context: &ShardContext, client: &Client, now: u32);

    /// Ends with the connection of this id.
    fn end(&mut self, id: &str, cause: Cause);
}

/// Shadows of a shard's clients.
#[derive(Debug)]
pub(crate) struct Shadows {
    source: ShadowSource,
    by_slot: IndexMap<Slot, Box<dyn Shadow>>,
}

impl Shadows {
    pub(super) fn new(source: ShadowSource) -> Self {
        Self { source, by_slot: IndexMap::new() }
    }

    /// Starts, changes or ends the shadow of a client according to the current rules of its hub.
    pub(crate) fn refresh(&mut self, core: &mut ShardCore, slot: Slot) {
        let (context, now) = (&core.context, core.tick);
        let Some((client, hub)) = core.connections.live(slot).and_then(|client| Some((client, core.hub_of(client)?)))
        else {
            return;
        };
        match self.by_slot.get_mut(&slot).map(|shadow| shadow.refresh(context, client, &hub, now)) {
            Some(true) => {}
            Some(false) => drop(self.by_slot.swap_remove(&slot)),
            None => self.by_slot.extend((self.source)(context, client, &hub, now).map(|shadow| (slot, shadow))),
        }
        let takes_down = self.by_slot.get(&slot).is_some_and(|shadow| shadow.takes_down());
        core.delivery.watches.set_copied(slot, takes_down);
    }

    /// Shows complete messages of a client after they were forwarded.
    #[inline]
    pub(crate) fn up(&mut self, core: &ShardCore, slot: Slot, messages: UpwardMessages<'_>) {
        if !self.by_slot.is_empty() {
            self.show_up(core, slot, messages);
        }
    }

    #[cold]
    fn show_up(&mut self, core: &ShardCore, slot: Slot, messages: UpwardMessages<'_>) {
        if let (Some(shadow), Some(client)) = (self.by_slot.get_mut(&slot), core.connections.get(slot)) {
            shadow.up(&core.context, client, messages, core.tick);
        }
    }

    /// Shows data of an app server to a client, or, if `by` is given, of an app server of the shadow.
    #[inline]
    pub(super) fn answer(
        &mut self,
        context: &ShardContext,
        (slot, client): (Slot, &Client),
        payload: &[u8],
        by: Option<AppServerId>,
    ) {
        if !self.by_slot.is_empty() {
            self.show_answer(context, (slot, client), payload, by);
        }
    }

    #[cold]
    fn show_answer(
        &mut self,
        context: &ShardContext,
        (slot, client): (Slot, &Client),
        payload: &[u8],
        by: Option<AppServerId>,
    ) {
        if let Some(shadow) = self.by_slot.get_mut(&slot) {
            shadow.answer(context, client, payload, by);
        }
    }

    /// Shows a batch's data for clients.
    #[cold]
    pub(super) fn down(&mut self, connections: &Connections, copies: Vec<(Slot, Bytes)>) {
        for (slot, messages) in copies {
            if let (Some(shadow), Some(client)) = (self.by_slot.get_mut(&slot), connections.get(slot)) {
                shadow.down(client, &messages);
            }
        }
    }

    pub(super) fn order(&mut self, slot: Slot, by: AppServerId, order: ShadowOrder) {
        if let Some(shadow) = self.by_slot.get_mut(&slot) {
            shadow.order(by, order);
        }
    }

    pub(super) fn app_stopping(&mut self, connections: &Connections, hub: HubIndex, app: AppServerId) {
        for (slot, shadow) in &mut self.by_slot {
            if let Some(client) = connections.get(*slot).filter(|client| client.home().hub() == hub) {
                shadow.app_stopping(client, app);
            }
        }
    }

    /// Advances by one second.
    pub(super) fn tick(&mut self, core: &ShardCore) {
        for (slot, shadow) in &mut self.by_slot {
            if let Some(client) = core.connections.get(*slot) {
                shadow.tick(&core.context, client, core.tick);
            }
        }
    }

    /// Ends the shadow of a client that closes for this cause, or moves away.
    pub(super) fn end(&mut self, core: &mut ShardCore, slot: Slot, cause: Cause) {
        let Some(mut shadow) = self.by_slot.swap_remove(&slot) else { return };
        core.delivery.watches.set_copied(slot, false);
        if let Some(client) = core.connections.get(slot) {
            shadow.end(client.id(), cause);
        }
    }
}
