//! Slots of links: one live session each, and at most one socket for that.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_link::{LinkEnd, StopReason};
use trunkline_protocol::service::{
    Answer, Attachment, Capabilities, Offer, SessionEndReason, SessionError, SessionId, UpgradeDecision,
    UpgradeRefusal, decide_upgrade,
};

use super::peer::SlotKey;
use super::proxy_log::{ProxyLog, end_of_connections};
use super::session::{LinkSession, SessionSocket, SessionTerms};
use crate::connection::ConnectionClose;
use crate::sync::lock;

/// How long the newest session of a slot is remembered after it was over: no upgrade is under way for longer.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// All slots of a server.
#[derive(Default)]
pub(crate) struct Slots {
    slots: Mutex<HashMap<SlotKey, Slot>>,
    /// Names that two nodes have, of which people were told. Each has links of both.
    shared_names: Mutex<HashSet<Arc<str>>>,
    log: Arc<ProxyLog>,
}

#[derive(Default)]
struct Slot {
    live: Option<Arc<LinkSession>>,
    newest: Option<SessionId>,
    empty_since: Option<Instant>,
}

/// Session that an upgrade gets, with the right to be its socket.
pub(super) struct SessionStart {
    pub(super) session: Arc<LinkSession>,
    pub(super) socket: SessionSocket,
    pub(super) answer: Answer,
    /// Whether the session begins with this socket.
    pub(super) is_new: bool,
}

/// Outcome of an upgrade.
pub(super) enum TakenSlot {
    Attached(SessionStart),
    /// This session has a socket, which is to be ended first.
    Occupied(Arc<LinkSession>),
}

/// Why an upgrade was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Judged(#[from] UpgradeRefusal),
    #[error("the session makes no sense: {0}")]
    Session(#[from] SessionError),
}

impl Slots {
    /// Gives an upgrade its session, new or not.
    pub(super) fn take(&self, terms: &SessionTerms, offer: Option<&Offer>) -> Result<TakenSlot, Refused> {
        let mut slots = lock(&self.slots);
        let slot = slots.entry(terms.key.clone()).or_default();
        let offer = offer.cloned().unwrap_or_else(|| plain_offer(slot.newest));
        let judgement = match &slot.live {
            Some(live) => live.outbox.decide_upgrade(&offer, slot.newest),
            None => decide_upgrade(&offer, None, slot.newest),
        };
        match (judgement, &slot.live) {
            (UpgradeDecision::Refuse(refusal), _) => Err(refusal.into()),
            (UpgradeDecision::EndSocketFirst, Some(live)) => Ok(TakenSlot::Occupied(Arc::clone(live))),
            (UpgradeDecision::Resume, Some(live)) => {
                let session = Arc::clone(live);
                attach(&mut slots, session, &offer, false)
            }
            (UpgradeDecision::Begin | UpgradeDecision::EndSocketFirst | UpgradeDecision::Resume, _) => {
                self.begin(&mut slots, terms, &offer)
            }
        }
    }

    /// Ends a session, unless it has a socket again.
    pub(super) fn end_detached(&self, session: &Arc<LinkSession>, end: &ConnectionClose) {
        let mut slots = lock(&self.slots);
        if !session.outbox.is_open() {
            end_session(&mut slots, session, end);
        }
    }

    /// Doubts that a start of a node lives, because another node says that it has crashed. One that has a socket here
    /// lives.
    pub(super) fn doubt_node(&self, boot: &str) {
        let slots = lock(&self.slots);
        let sessions = sessions_of(&slots, boot);
        if sessions.iter().all(|session| !session.outbox.is_open()) {
            sessions.iter().for_each(|session| session.told_crashed.notify_one());
        }
    }

    /// Ends a session whose node has crashed; `false` when that has a socket here, and so lives.
    pub(super) fn end_crashed(&self, session: &Arc<LinkSession>) -> bool {
        let mut slots = lock(&self.slots);
        let SlotKey { node, boot, .. } = &session.key;
        let sessions = sessions_of(&slots, boot);
        if sessions.iter().any(|session| session.outbox.is_open()) {
            return false;
        }
        if sessions.len() == 1 {
            tracing::info!(%node, "the proxy has crashed, as other proxies say: its clients are gone");
        }
        end_session(&mut slots, session, &end_of_connections(&LinkEnd::Over(SessionEndReason::Forgotten)));
        true
    }

    /// A socket has ended, and with it the session, if there is an `over` or the proxy does not resume. In one step, so
    /// that no other socket is attached to a session that is about to end.
    pub(super) fn let_go(&self, session: &Arc<LinkSession>, attachment: Attachment, over: Option<ConnectionClose>) {
        let mut slots = lock(&self.slots);
        let cause = session.detach(attachment);
        session.endpoint.handle_socket_ended(&session.node);
        if let Some(end) = over.or_else(|| cause.map(|cause| end_of_connections(&LinkEnd::Over(cause)))) {
            end_session(&mut slots, session, &end);
        }
    }

    fn begin(
        &self,
        slots: &mut HashMap<SlotKey, Slot>,
        terms: &SessionTerms,
        offer: &Offer,
    ) -> Result<TakenSlot, Refused> {
        self.sweep(slots, &terms.key);
        let session = Arc::new(LinkSession::new(terms, offer, &self.log));
        self.log.session_begun(&session.key, session.service_name());
        if let Some(slot) = slots.get_mut(&terms.key) {
            *slot = Slot { live: Some(Arc::clone(&session)), newest: Some(offer.session), empty_since: None };
        }
        attach(slots, session, offer, true)
    }

    /// Ends the session that has the slot, and doubts those of other nodes of the same name: they may be of an earlier
    /// start of this one.
    fn sweep(&self, slots: &mut HashMap<SlotKey, Slot>, key: &SlotKey) {
        if let Some(session) = slots.get(key).and_then(|slot| slot.live.clone()) {
            session.stop(StopReason::Replaced);
            end_session(slots, &session, &end_of_connections(&LinkEnd::Replaced));
        }
        let of_name = slots.iter().filter(|(other, _)| other.shares_name(key));
        of_name.filter_map(|(_, slot)| slot.live.as_ref()).for_each(|session| session.doubted.notify_one());
        slots.retain(|other, slot| {
            other == key || slot.empty_since.is_none_or(|since| since.elapsed() < REMEMBERED_FOR)
        });
        lock(&self.shared_names).retain(|name| has_two_nodes(slots, name));
    }

    /// Tells people, once, that two nodes have a name and live.
    pub(super) fn note_shared_name(&self, key: &SlotKey) {
        let slots = lock(&self.slots);
        if has_two_nodes(&slots, &key.node) && lock(&self.shared_names).insert(Arc::clone(&key.node)) {
            tracing::warn!(
                node = %key.node,
                "two proxies have this name; both are served, but give each its own --node-name, so that people can tell them apart"
            );
        }
    }
}

/// Whether two nodes of a name have links.
fn has_two_nodes(slots: &HashMap<SlotKey, Slot>, name: &Arc<str>) -> bool {
    let mut live = slots.iter().filter(|(key, slot)| key.node == *name && slot.live.is_some());
    live.next().is_some_and(|(first, _)| live.any(|(key, _)| key.shares_name(first)))
}

/// Offer for a proxy that doesn't resume: the next session of the slot, which ends with its socket.
fn plain_offer(newest: Option<SessionId>) -> Offer {
    let session = newest.map_or(SessionId::FIRST, SessionId::next);
    Offer { session, received: None, capabilities: Capabilities::default() }
}

/// Attaches a socket to a session.
fn attach(
    slots: &mut HashMap<SlotKey, Slot>,
    session: Arc<LinkSession>,
    offer: &Offer,
    is_new: bool,
) -> Result<TakenSlot, Refused> {
    match session.attach(offer) {
        Some(Ok((socket, answer))) => {
            session.node.note_heard();
            Ok(TakenSlot::Attached(SessionStart { session, socket, answer, is_new }))
        }
        Some(Err(error)) => {
            end_session(slots, &session, &end_of_connections(&LinkEnd::from(error.clone())));
            Err(error.into())
        }
        // It has ended in this very moment.
        None => Err(UpgradeRefusal::Unknown.into()),
    }
}

/// Live sessions of one start of a node.
fn sessions_of(slots: &HashMap<SlotKey, Slot>, boot: &str) -> Vec<Arc<LinkSession>> {
    let of_node = slots.iter().filter(|(key, _)| *key.boot == *boot);
    of_node.filter_map(|(_, slot)| slot.live.clone()).collect()
}

fn end_session(slots: &mut HashMap<SlotKey, Slot>, session: &Arc<LinkSession>, end: &ConnectionClose) {
    let slot = slots.get_mut(&session.key);
    if let Some(slot) = slot.filter(|slot| slot.live.as_ref().is_some_and(|live| Arc::ptr_eq(live, session))) {
        (slot.live, slot.empty_since) = (None, Some(Instant::now()));
        session.end(end);
    }
}

#[cfg(test)]
mod tests;
