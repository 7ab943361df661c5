//! Slots of links: each has one live session and at most one socket.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_link::{LinkEnd, StopReason};
use trunkline_protocol::service::{
    Answer, Attachment, Capabilities, Offer, SessionEndReason, SessionError, SessionId, UpgradeDecision,
    UpgradeRefusal, decide_upgrade,
};

use super::app_socket::SlotKey;
use super::proxy_log::{ProxyLog, end_of_connections};
use super::session::{LinkSession, SessionSocket, SessionTerms};
use crate::connection::ConnectionClose;
use crate::sync::lock;

/// Time for which the newest session ID of an empty slot is kept. No upgrade takes longer.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(crate) struct Slots {
    slots: Mutex<HashMap<SlotKey, Slot>>,
    /// Names shared by two live nodes, each reported in the log once.
    shared_names: Mutex<HashSet<Arc<str>>>,
    log: Arc<ProxyLog>,
}

#[derive(Default)]
struct Slot {
    live: Option<Arc<LinkSession>>,
    newest: Option<SessionId>,
    empty_since: Option<Instant>,
}

/// Session for an upgrade, with the permission to be its socket.
pub(super) struct SessionStart {
    pub(super) session: Arc<LinkSession>,
    pub(super) socket: SessionSocket,
    pub(super) answer: Answer,
    /// Whether the session begins with this socket.
    pub(super) is_new: bool,
}

pub(super) enum TakenSlot {
    Attached(SessionStart),
    /// This session has a socket, which must be stopped first.
    Occupied(Arc<LinkSession>),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Judged(#[from] UpgradeRefusal),
    #[error("invalid session: {0}")]
    Session(#[from] SessionError),
}

impl Slots {
    pub(super) fn take_slot(&self, terms: &SessionTerms, offer: Option<&Offer>) -> Result<TakenSlot, Refused> {
        let mut slots = lock(&self.slots);
        let outdated = newest(&slots, &terms.key).map(SessionId::before_pool);
        let slot = slots.entry(terms.key.clone()).or_default();
        let newest = slot.newest.max(outdated);
        let offer = offer.cloned().unwrap_or_else(|| plain_offer(newest));
        let judgement = match &slot.live {
            Some(live) => live.outbox.decide_upgrade(&offer, newest),
            None => decide_upgrade(&offer, None, newest),
        };
        match (judgement, &slot.live) {
            (UpgradeDecision::Refuse(refusal), _) => Err(refusal.into()),
            (UpgradeDecision::EndSocketFirst, Some(live)) => Ok(TakenSlot::Occupied(Arc::clone(live))),
            (UpgradeDecision::Resume, Some(live)) => {
                let session = Arc::clone(live);
                attach(&mut slots, session, &offer, false)
            }
            (UpgradeDecision::Begin | UpgradeDecision::EndSocketFirst | UpgradeDecision::Resume, _) => {
                self.begin_session(&mut slots, terms, &offer)
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

    /// Handles the report of another node that a node process has crashed. A node with a socket here is alive.
    pub(super) fn suspect_node(&self, boot: &str) {
        let slots = lock(&self.slots);
        let sessions = sessions_of(&slots, boot);
        if sessions.iter().all(|session| !session.outbox.is_open()) {
            sessions.iter().for_each(|session| session.reported_crashed.notify_one());
        }
    }

    /// Ends the session of a crashed node. Returns `false` if the node has a socket here and is therefore alive.
    pub(super) fn end_crashed(&self, session: &Arc<LinkSession>) -> bool {
        let mut slots = lock(&self.slots);
        let SlotKey { node, boot, .. } = &session.key;
        let sessions = sessions_of(&slots, boot);
        if sessions.iter().any(|session| session.outbox.is_open()) {
            return false;
        }
        if sessions.len() == 1 {
            tracing::info!(%node, "other proxies report that the proxy has crashed: its clients are closed");
        }
        end_session(&mut slots, session, &end_of_connections(&LinkEnd::Over(SessionEndReason::Forgotten)));
        true
    }

    /// Handles the end of a socket. Also ends the session if `over` is given or the proxy does not resume, in one step,
    /// so that no other socket is attached to it meanwhile.
    pub(super) fn let_go(&self, session: &Arc<LinkSession>, attachment: Attachment, over: Option<ConnectionClose>) {
        let mut slots = lock(&self.slots);
        let cause = session.detach(attachment);
        session.endpoint.handle_socket_ended(&session.node);
        let end = cause.map(LinkEnd::Over).or_else(|| is_of_earlier_pool(&slots, session).then_some(LinkEnd::Replaced));
        if let Some(end) = over.or_else(|| end.as_ref().map(end_of_connections)) {
            end_session(&mut slots, session, &end);
        }
    }

    fn begin_session(
        &self,
        slots: &mut HashMap<SlotKey, Slot>,
        terms: &SessionTerms,
        offer: &Offer,
    ) -> Result<TakenSlot, Refused> {
        // First, so that unsent frames of the sessions that it replaces move to it.
        let session = Arc::new(LinkSession::new(terms, offer, &self.log));
        self.sweep(slots, &terms.key);
        self.log.session_begun(&session.key, session.service_name());
        if let Some(slot) = slots.get_mut(&terms.key) {
            *slot = Slot { live: Some(Arc::clone(&session)), newest: Some(offer.session), empty_since: None };
        }
        let attached = attach(slots, session, offer, true);
        end_earlier_pools(slots, &terms.key, offer.session);
        attached
    }

    /// Ends the session in the slot, and requires a sign of life from other nodes with its name: each may be an earlier
    /// process of this node.
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

    pub(super) fn note_shared_name(&self, key: &SlotKey) {
        let slots = lock(&self.slots);
        if has_two_nodes(&slots, &key.node) && lock(&self.shared_names).insert(Arc::clone(&key.node)) {
            tracing::warn!(
                node = %key.node,
                "two proxies have this name; both are served: give each its own --node-name to distinguish them in \
                 logs and metrics"
            );
        }
    }
}

fn has_two_nodes(slots: &HashMap<SlotKey, Slot>, name: &Arc<str>) -> bool {
    let mut live = slots.iter().filter(|(key, slot)| key.node == *name && slot.live.is_some());
    live.next().is_some_and(|(first, _)| live.any(|(key, _)| key.shares_name(first)))
}

/// Newest session of a node for a hub, in any slot.
fn newest(slots: &HashMap<SlotKey, Slot>, key: &SlotKey) -> Option<SessionId> {
    slots.iter().filter(|(other, _)| other.shares_pool(key)).filter_map(|(_, slot)| slot.newest).max()
}

/// Whether the node has opened a newer pool than that of the session, which is the newest of its slot.
fn is_of_earlier_pool(slots: &HashMap<SlotKey, Slot>, session: &LinkSession) -> bool {
    let own = slots.get(&session.key).and_then(|slot| slot.newest);
    own.zip(newest(slots, &session.key)).is_some_and(|(own, newest)| own.is_of_earlier_pool(newest))
}

/// Ends the remaining sessions of earlier pools of the node: it has given them up, and without a socket they would
/// hold back sends. Their unsent frames move to the new session.
fn end_earlier_pools(slots: &mut HashMap<SlotKey, Slot>, key: &SlotKey, session: SessionId) {
    let earlier = |slot: &Slot| slot.newest.is_some_and(|newest| newest.is_of_earlier_pool(session));
    let of_pool = slots.iter().filter(|(other, slot)| other.shares_pool(key) && earlier(slot));
    let left: Vec<_> = of_pool.filter_map(|(_, slot)| slot.live.clone()).collect();
    for session in left {
        session.stop(StopReason::Replaced);
        // An open socket finishes its batch first, and ends the session in `let_go`.
        if !session.outbox.is_open() {
            end_session(slots, &session, &end_of_connections(&LinkEnd::Replaced));
        }
    }
}

/// Offer for a proxy that does not resume: the slot's next session, which ends with its socket.
fn plain_offer(newest: Option<SessionId>) -> Offer {
    let session = newest.map_or(SessionId::FIRST, SessionId::next);
    Offer { session, received: None, capabilities: Capabilities::default() }
}

fn attach(
    slots: &mut HashMap<SlotKey, Slot>,
    session: Arc<LinkSession>,
    offer: &Offer,
    is_new: bool,
) -> Result<TakenSlot, Refused> {
    match session.attach(offer) {
        Some(Ok((socket, answer))) => {
            session.node.note_received();
            Ok(TakenSlot::Attached(SessionStart { session, socket, answer, is_new }))
        }
        Some(Err(error)) => {
            end_session(slots, &session, &end_of_connections(&LinkEnd::from(error.clone())));
            Err(error.into())
        }
        // It has just ended.
        None => Err(UpgradeRefusal::Unknown.into()),
    }
}

fn sessions_of(slots: &HashMap<SlotKey, Slot>, boot: &str) -> Vec<Arc<LinkSession>> {
    let of_node = slots.iter().filter(|(key, _)| *key.boot == *boot);
    of_node.filter_map(|(_, slot)| slot.live.clone()).collect()
}

fn end_session(slots: &mut HashMap<SlotKey, Slot>, session: &Arc<LinkSession>, end: &ConnectionClose) {
    let slot = slots.get_mut(&session.key);
    if let Some(slot) = slot.filter(|slot| slot.live.as_ref().is_some_and(|live| Arc::ptr_eq(live, session))) {
        (slot.live, slot.empty_since) = (None, Some(Instant::now()));
        session.end_session(end);
    }
}

#[cfg(test)]
mod tests;
