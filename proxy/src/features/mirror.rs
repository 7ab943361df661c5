//! Mirrors: app servers that receive copies of client connections, with their messages dropped.
//!
//! ```text
//!  up:    client ──► primary link ──► primary app server
//!                └─► copy: link open, not full, not paused? ─ yes ──► mirror    sent
//!                                                            └ no ──► discarded dropped
//!  down:  primary ──► client
//!         mirror ───► discarded
//! ```
//!
//! A copy delays no other traffic: messages that a mirror can't accept immediately are dropped. A lost copy restarts
//! with the client's next message, at any app server of its group, as a reassigned connection. The mirrors of a
//! shard are a [`Tap`].

mod mirror_copy;

use std::mem;

use bytes::Bytes;
use indexmap::{IndexMap, IndexSet};
use tokio::time::Instant;
use trunkline_protocol::cause::Cause;

use crate::engine::shard::{Client, Content, CopyOrder, Recipients, Slot, Tap, TapEvent, TapView, UpwardMessages};
use crate::engine::transport::websocket::{Unframed, unframe_whole};
use crate::engine::upstream::{AppServerId, Hub, HubIndex};
use mirror_copy::MirrorCopy;

/// Maximum number of clients of one shard with mirrored downward data. Each broadcast checks all of them.
const COPIED_MAX: usize = 1024;

/// Mirrored clients of a shard.
#[derive(Debug, Default)]
pub(crate) struct Mirrors {
    by_slot: IndexMap<Slot, MirrorCopies>,
    /// Clients with mirrored downward data.
    copied: IndexSet<Slot>,
}

/// Copies of one client connection, one for each mirror.
#[derive(Debug, Default)]
struct MirrorCopies(Vec<MirrorCopy>);

impl Tap for Mirrors {
    fn is_active(&self) -> bool {
        !self.by_slot.is_empty()
    }

    fn up(&mut self, shard: &TapView<'_>, slot: Slot, messages: &UpwardMessages<'_>) -> Option<i64> {
        let copies = self.by_slot.get_mut(&slot).filter(|_| messages.to.is_some())?;
        copies.up(shard, shard.connections.get(slot)?, messages);
        None
    }

    fn down(&mut self, slot: Slot, client: &Client, frame: &Bytes, _: Option<Instant>) {
        if self.copied.contains(&slot)
            && let Some(copies) = self.by_slot.get_mut(&slot)
        {
            copies.down(client, frame);
        }
    }

    fn down_to_set(&mut self, recipients: &Recipients<'_>, _: Option<Instant>) {
        for slot in &self.copied {
            if let (Some(copies), Some((client, frame))) = (self.by_slot.get_mut(slot), recipients.at(*slot)) {
                copies.down(client, frame);
            }
        }
    }

    fn event(&mut self, shard: &TapView<'_>, slot: Slot, event: &TapEvent<'_>) {
        match *event {
            TapEvent::Opened | TapEvent::Arrived | TapEvent::RulesChanged => self.refresh(shard, slot),
            TapEvent::Copied(by, order) => {
                self.by_slot.get_mut(&slot).into_iter().for_each(|copies| copies.order(by, order));
            }
            TapEvent::Closed(cause, _) => self.end_copies(shard, slot, cause),
            TapEvent::Moved => self.end_copies(shard, slot, Cause::ClientClosed),
            TapEvent::GroupsChanged | TapEvent::Reported(_) => {}
        }
    }

    /// Ends the copies at a stopping app server. They restart at another one.
    fn app_stopping(&mut self, shard: &TapView<'_>, hub: HubIndex, app: AppServerId) {
        for (slot, copies) in &mut self.by_slot {
            if let Some(client) = shard.connections.get(*slot).filter(|client| client.home().hub() == hub) {
                copies.app_stopping(client, app);
            }
        }
    }
}

impl Mirrors {
    /// Starts, changes or ends the copies of a client according to the current rules of its hub.
    fn refresh(&mut self, shard: &TapView<'_>, slot: Slot) {
        let Some(client) = shard.connections.live(slot) else { return };
        let Some(hub) = shard.context.shared.hubs.at(client.home().hub()) else { return };
        let mut copies = self.by_slot.swap_remove(&slot).unwrap_or_default();
        copies.refresh(shard, client, &hub);
        if !copies.take_down() {
            self.copied.swap_remove(&slot);
        } else if self.copied.len() < COPIED_MAX {
            self.copied.insert(slot);
        }
        if !copies.0.is_empty() {
            self.by_slot.insert(slot, copies);
        }
    }

    fn end_copies(&mut self, shard: &TapView<'_>, slot: Slot, cause: Cause) {
        self.copied.swap_remove(&slot);
        if let (Some(copies), Some(client)) = (self.by_slot.swap_remove(&slot), shard.connections.get(slot)) {
            copies.0.iter().for_each(|copy| copy.end_copy(&client.id, cause));
        }
    }
}

impl MirrorCopies {
    fn refresh(&mut self, shard: &TapView<'_>, client: &Client, hub: &Hub) {
        let mut before = mem::take(&mut self.0);
        let rules = hub.rules();
        let wanted = rules.iter().flat_map(|rules| rules.mirrors_of(&client.id));
        let kept = wanted.map(|rule| {
            let known = before.iter().position(|copy| copy.rule.is_same(rule));
            known.map_or_else(|| MirrorCopy::new(rule.clone()), |place| before.swap_remove(place))
        });
        self.0 = kept.collect();
        before.iter().for_each(|copy| copy.end_copy(&client.id, Cause::ClientClosed));
        self.open_lost(shard, client, hub);
    }

    fn take_down(&self) -> bool {
        self.0.iter().any(|copy| copy.rule.copies_down)
    }

    fn up(&mut self, shard: &TapView<'_>, client: &Client, messages: &UpwardMessages<'_>) {
        if self.0.iter().any(MirrorCopy::is_lost)
            && let Some(hub) = shard.context.shared.hubs.at(client.home().hub())
        {
            self.open_lost(shard, client, &hub);
        }
        for copy in &mut self.0 {
            copy.send(&client.id, messages);
        }
    }

    fn down(&mut self, client: &Client, frame: &Bytes) {
        let (Content::Hub(protocol), Some(Unframed::Payload(messages))) = (client.content(), unframe_whole(frame))
        else {
            return;
        };
        self.0.iter_mut().for_each(|copy| copy.send_down(&client.id, protocol, &messages));
    }

    fn order(&mut self, by: AppServerId, order: &CopyOrder) {
        self.0.iter_mut().filter(|copy| copy.is_at(by)).for_each(|copy| copy.obey(order));
    }

    fn app_stopping(&mut self, client: &Client, app: AppServerId) {
        for copy in self.0.iter_mut().filter(|copy| copy.is_at(app)) {
            copy.end_copy(&client.id, Cause::ClientClosed);
            copy.lose();
        }
    }

    /// Opens copies without an app server, if one can be reached.
    fn open_lost(&mut self, shard: &TapView<'_>, client: &Client, hub: &Hub) {
        for copy in self.0.iter_mut().filter(|copy| copy.is_lost()) {
            // One attempt per tick.
            if !copy.try_again(shard.now) {
                continue;
            }
            let Some(open) = client.cold().read_opening() else { continue };
            let Some(link) = hub.choose_home_in(copy.group()) else { continue };
            // The copy of an open client starts as a reassignment, without a handshake response.
            let from = client.life().is_open().then(|| shard.context.shared.hubs.instance(client.home().app));
            copy.open_copy(link, (&client.id, client.content()), open, from.as_deref());
        }
    }
}
