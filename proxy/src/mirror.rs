//! Mirrors: app servers that receive copies of client connections, with their messages dropped.
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
//! with the client's next message, at any app server of its group, as a reassigned connection. The copies of a client
//! are its [`Shadow`].

mod answer_diff;
mod mirror_copy;

use std::mem;

use bytes::Bytes;
use tracing::warn;
use trunkline_protocol::cause::Cause;

use crate::clock::unix_ms;
use crate::condition::SeenDifference;
use crate::routing::MirrorRule;
use crate::shard::{Client, Content, Shadow, ShadowOrder, ShardContext, UpwardMessages, short};
use crate::upstream::{AppServerId, Hub};
use answer_diff::{AnswerDifference, Answerer};
use mirror_copy::MirrorCopy;

/// Copies of one client connection, one for each mirror.
#[derive(Debug, Default)]
struct MirrorCopies(Vec<MirrorCopy>);

/// Starts the copies of a client connection that the hub's rules require; `None` without any.
pub(crate) fn shadow_of(context: &ShardContext, client: &Client, hub: &Hub, now: u32) -> Option<Box<dyn Shadow>> {
    let mut copies = MirrorCopies::default();
    copies.refresh(context, client, hub, now).then(|| -> Box<dyn Shadow> { Box::new(copies) })
}

impl Shadow for MirrorCopies {
    fn refresh(&mut self, context: &ShardContext, client: &Client, hub: &Hub, now: u32) -> bool {
        let mut before = mem::take(&mut self.0);
        let rules = hub.rules();
        let wanted = rules.iter().flat_map(|rules| rules.mirrors_of(client.id()));
        let kept = wanted.map(|rule| {
            let known = before.iter().position(|copy| copy.rule().is_same(rule));
            known.map_or_else(|| MirrorCopy::new(rule.clone()), |place| before.swap_remove(place))
        });
        self.0 = kept.collect();
        before.iter().for_each(|copy| copy.end(client.id(), Cause::ClientClosed));
        self.open_lost(context, client, hub, now);
        !self.0.is_empty()
    }

    fn takes_down(&self) -> bool {
        self.0.iter().any(|copy| copy.rule().copies_down)
    }

    fn up(&mut self, context: &ShardContext, client: &Client, messages: UpwardMessages<'_>, now: u32) {
        if self.0.iter().any(MirrorCopy::is_lost)
            && let Some(hub) = context.shared.hubs.at(client.home().hub())
        {
            self.open_lost(context, client, &hub, now);
        }
        for copy in &mut self.0 {
            copy.send((client.id(), client.content()), messages, now);
        }
    }

    /// Compares data of the primary, or of a mirror, if a rule requires it.
    fn answer(&mut self, context: &ShardContext, client: &Client, payload: &[u8], by: Option<AppServerId>) {
        let Content::Hub(protocol) = client.content() else { return };
        let from = if by.is_some() { Answerer::Mirror } else { Answerer::Primary };
        for copy in self.0.iter_mut().filter(|copy| by.is_none_or(|app| copy.is_at(app))) {
            for difference in copy.compare(protocol, from, payload) {
                report(context, client, copy.rule(), difference);
            }
        }
    }

    fn down(&mut self, client: &Client, messages: &Bytes) {
        let Content::Hub(protocol) = client.content() else { return };
        self.0.iter_mut().for_each(|copy| copy.send_down(client.id(), protocol, messages));
    }

    fn order(&mut self, by: AppServerId, order: ShadowOrder) {
        self.0.iter_mut().filter(|copy| copy.is_at(by)).for_each(|copy| copy.obey(order));
    }

    /// Ends the copies at a stopping app server. They restart at another one.
    fn app_stopping(&mut self, client: &Client, app: AppServerId) {
        for copy in self.0.iter_mut().filter(|copy| copy.is_at(app)) {
            copy.end(client.id(), Cause::ClientClosed);
            copy.lose();
        }
    }

    /// Reports calls without a timely reply from one app server.
    fn tick(&mut self, context: &ShardContext, client: &Client, now: u32) {
        for copy in &mut self.0 {
            for difference in copy.take_late(now) {
                report(context, client, copy.rule(), difference);
            }
        }
    }

    fn end(&mut self, id: &str, cause: Cause) {
        self.0.iter().for_each(|copy| copy.end(id, cause));
    }
}

impl MirrorCopies {
    /// Opens copies without an app server, if one can be reached.
    fn open_lost(&mut self, context: &ShardContext, client: &Client, hub: &Hub, now: u32) {
        for copy in self.0.iter_mut().filter(|copy| copy.is_lost()) {
            // One attempt per tick.
            if !copy.try_again(now) {
                continue;
            }
            let Some(open) = client.cold().read_opening() else { continue };
            let Some(link) = hub.choose_home_in(copy.group()) else { continue };
            // The copy of an open client starts as a reassignment, without a handshake response.
            let from = client.life().is_open().then(|| context.shared.hubs.instance(client.home().app()));
            copy.open(link, (client.id(), client.content()), open, from.as_deref());
        }
    }
}

/// Counts, logs and stores a difference. The log is rate-limited and contains no content.
fn report(context: &ShardContext, client: &Client, rule: &MirrorRule, difference: AnswerDifference) {
    rule.counters.differences.increment();
    let AnswerDifference { target, invocation_id, primary, mirror: answer } = difference;
    let shared = &context.shared;
    let hub = shared.hubs.at(client.home().hub());
    let (hub, connection) = (hub.as_ref().map_or("", |hub| hub.name()), short(client.id()));
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
