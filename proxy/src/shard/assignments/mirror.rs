//! Copies of client connections for mirrors: app servers that receive real traffic, with their messages
//! dropped.
//!
//! ```text
//!  up:    client ──► primary link ──► primary app server
//!                └─► copy: link open, not full, not paused? ─ yes ──► mirror    sent
//!                                                            └ no ──► discarded dropped
//!  down:  primary ──► client, and if compared the digests of its replies
//!         mirror ───► discarded, except the digests of its replies             differences
//! ```
//!
//! A copy delays no other traffic: messages that a mirror can't accept immediately are dropped. A lost copy restarts
//! with the client's next message, at any app server of its group, as a reassigned connection.

use bytes::Bytes;
use indexmap::IndexSet;
use tracing::warn;
use trunkline_protocol::cause::Cause;

use crate::clock::unix_ms;
use crate::routing::MirrorRule;
use crate::shard::assignments::answer_diff::{AnswerDifference, Answerer, SeenDifference};
use crate::shard::connection::{Client, Connections, MirrorCopies, MirrorCopy, MirrorOrder, Opening};
use crate::shard::content::Content;
use crate::shard::shard_context::ShardContext;
use crate::shard::shard_core::ShardCore;
use crate::shard::shared::history::short;
use crate::shard::slot::Slot;
use crate::upstream::{AppServerId, Hub, HubIndex, HubRegistry};

#[derive(Debug, Default)]
pub(crate) struct MirroredConnections(IndexSet<Slot>);

impl MirroredConnections {
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl MirroredConnections {
    /// Starts the copies of a client connection that the hub's rules require, and ends the others.
    pub(crate) fn set_mirrors(&mut self, core: &mut ShardCore, slot: Slot, hub: &Hub) {
        let rules = hub.rules();
        let now = core.tick;
        let Some(client) = core.connections.live_mut(slot) else { return };
        let mut before = client.cold_mut().replace_mirrors(MirrorCopies::new());
        let wanted = rules.iter().flat_map(|rules| rules.mirrors_of(client.id()));
        let copies: MirrorCopies = wanted
            .map(|rule| {
                let known = before.iter().position(|copy| copy.rule().is_same(rule));
                known.map_or_else(|| MirrorCopy::new(rule.clone()), |place| before.swap_remove(place))
            })
            .collect();
        before.iter().for_each(|copy| copy.end(client.id(), Cause::ClientClosed));
        core.delivery.watches.set_copied(slot, copies.iter().any(|copy| copy.rule().copies_down));
        if copies.is_empty() {
            self.0.swap_remove(&slot);
            return;
        }
        client.cold_mut().replace_mirrors(copies);
        self.0.insert(slot);
        open_copies(&core.context.shared.hubs, client, hub, now);
    }

    /// Copies a client's complete messages after forwarding.
    #[inline]
    pub(crate) fn mirror_up(&mut self, core: &mut ShardCore, slot: Slot, (bytes, count): (&[u8], u64), data_type: i64) {
        if !self.is_empty() {
            self.copy_up(core, slot, (bytes, count), data_type);
        }
    }

    #[cold]
    fn copy_up(&mut self, core: &mut ShardCore, slot: Slot, (bytes, count): (&[u8], u64), data_type: i64) {
        let now = core.tick;
        let Some(client) = core.connections.get_mut(slot).filter(|client| client.cold().has_mirrors()) else {
            return;
        };
        let any_lost = client.cold_mut().mirrors_mut().any(|copy| copy.is_lost());
        if any_lost && let Some(hub) = core.context.shared.hubs.at(client.home().hub()) {
            open_copies(&core.context.shared.hubs, client, &hub, now);
        }
        let (id, content) = (client.id().clone(), client.content());
        for copy in client.cold_mut().mirrors_mut() {
            copy.send((&id, content), (bytes, count), data_type, now);
        }
    }

    /// Compares data from the primary app server to a client, if a rule requires it.
    #[inline]
    pub(crate) fn compare_down(&self, context: &ShardContext, client: &mut Client, payload: &[u8]) {
        if !self.is_empty() {
            compare(context, client, payload, None);
        }
    }

    /// Reports calls without a timely reply from one app server.
    pub(crate) fn report_late_answers(&self, context: &ShardContext, connections: &mut Connections, now: u32) {
        for slot in &self.0 {
            let Some(client) = connections.get_mut(*slot) else { continue };
            let (id, hub) = (client.id().clone(), client.home().hub());
            for copy in client.cold_mut().mirrors_mut() {
                for difference in copy.take_late(now) {
                    report(context, (&id, hub), copy.rule(), difference);
                }
            }
        }
    }

    /// Ends the copies at a mirror's stopping app server. They restart at another one.
    pub(crate) fn leave_mirrors(&self, connections: &mut Connections, hub: HubIndex, app: AppServerId) {
        for slot in &self.0 {
            let Some(client) = connections.get_mut(*slot).filter(|client| client.home().hub() == hub) else {
                continue;
            };
            let id = client.id().clone();
            for copy in client.cold_mut().mirrors_mut() {
                if copy.is_at(app) {
                    copy.end(&id, Cause::ClientClosed);
                    copy.lose();
                }
            }
        }
    }

    pub(crate) fn end_mirrors(&mut self, core: &mut ShardCore, slot: Slot, cause: Cause) {
        if !self.0.swap_remove(&slot) {
            return;
        }
        core.delivery.watches.set_copied(slot, false);
        let Some(client) = core.connections.get_mut(slot) else { return };
        let copies = client.cold_mut().replace_mirrors(MirrorCopies::new());
        copies.iter().for_each(|copy| copy.end(client.id(), cause));
    }

    /// Sets the server group of a client that arrived from another node, and starts its mirrors.
    pub(crate) fn join_rules(&mut self, core: &mut ShardCore, slot: Slot) {
        let Some(client) = core.connections.live(slot) else { return };
        let (hubs, home) = (&core.context.shared.hubs, client.home());
        let group = hubs.at(home.hub()).and_then(|hub| hubs.groups().find(&hub.group_of(home.app())));
        if let Some(client) = core.connections.live_mut(slot) {
            client.cold_mut().set_group(group);
        }
        self.refresh_mirrors(core, slot);
    }

    /// Starts and ends copies of a client according to the current rules.
    pub(crate) fn refresh_mirrors(&mut self, core: &mut ShardCore, slot: Slot) {
        let Some(client) = core.connections.live(slot) else { return };
        if let Some(hub) = core.hub_of(client) {
            self.set_mirrors(core, slot, &hub);
        }
    }
}

/// Opens copies without an app server, if one can be reached.
fn open_copies(hubs: &HubRegistry, client: &mut Client, hub: &Hub, now: u32) {
    let (id, content, is_open) = (client.id().clone(), client.content(), client.life().is_open());
    let primary = client.home().app();
    let (copies, opening) = client.cold_mut().mirrors_with_opening();
    for copy in copies.filter(|copy| copy.is_lost()) {
        // One attempt per tick.
        if !copy.try_again(now) {
            continue;
        }
        let Some(open) = opening.and_then(Opening::read) else { continue };
        let Some(link) = hub.choose_home_in(copy.group()) else { continue };
        // The copy of an open client starts as a reassignment, without a handshake response.
        let from = is_open.then(|| hubs.instance(primary));
        copy.open(link, (&id, content), open, from.as_deref());
    }
}

/// Copies a batch's data for clients to the mirrors that receive it.
#[cold]
pub(crate) fn copy_down(connections: &mut Connections, copies: Vec<(Slot, Bytes)>) {
    for (slot, messages) in copies {
        let Some(client) = connections.get_mut(slot) else { continue };
        let Content::Hub(protocol) = client.content() else { continue };
        let id = client.id().clone();
        for copy in client.cold_mut().mirrors_mut() {
            copy.send_down(&id, protocol, &messages);
        }
    }
}

/// Compares messages from a mirror's app server (which don't reach the client), or from the primary if `mirror`
/// is `None`.
#[cold]
pub(crate) fn compare(context: &ShardContext, client: &mut Client, payload: &[u8], mirror: Option<AppServerId>) {
    let Content::Hub(protocol) = client.content() else { return };
    let (id, hub) = (client.id().clone(), client.home().hub());
    for copy in client.cold_mut().mirrors_mut() {
        if mirror.is_some_and(|app| !copy.is_at(app)) {
            continue;
        }
        let from = if mirror.is_some() { Answerer::Mirror } else { Answerer::Primary };
        for difference in copy.compare(protocol, from, payload) {
            report(context, (&id, hub), copy.rule(), difference);
        }
    }
}

/// Executes a mirror's request about a copy: pause or close.
pub(crate) fn control_copy(client: &mut Client, app: AppServerId, order: MirrorOrder) {
    let copies = client.cold_mut().mirrors_mut();
    copies.filter(|copy| copy.is_at(app)).for_each(|copy| copy.obey(order));
}

/// Counts, logs and stores a difference. The log is rate-limited and contains no content.
fn report(context: &ShardContext, (id, hub): (&str, HubIndex), rule: &MirrorRule, difference: AnswerDifference) {
    rule.counters.differences.increment();
    let AnswerDifference { target, invocation_id, primary, mirror: answer } = difference;
    let shared = &context.shared;
    let hub = shared.hubs.at(hub);
    let (hub, connection) = (hub.as_ref().map_or("", |hub| hub.name()), short(id));
    if context.may_log() {
        let shown = target.escape_debug();
        warn!(mirror = %rule.label, hub, connection, method = %shown, primary, answer, "answer of a mirror differs");
    }
    let (hub, connection) = (hub.into(), connection.into());
    let (at_ms, mirror) = (unix_ms(), rule.label.clone());
    shared.reports.differences.add(SeenDifference {
        at_ms,
        mirror,
        hub,
        connection,
        target,
        invocation_id,
        primary,
        answer,
    });
}
