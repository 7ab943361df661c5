//! Slots of links: one live session each, and at most one socket for that.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_link::{LinkClock, LinkEnd, LinkOutbox, OutboxPolicy, StopReason};
use trunkline_protocol::limits::RESUME_WINDOW_MS;
use trunkline_protocol::service::{
    Answer, Attachment, Capabilities, Incoming, Offer, Role, Session, SessionError, SessionId, SessionSettings,
    UpgradeDecision, UpgradeRefusal, decide_upgrade,
};

use super::session::{self, LinkSession};
use super::session_policy::end_of_connections;
use super::{Attached, Link};
use crate::connection::{ConnectionClose, LinkId};
use crate::node::NodeName;
use crate::sync::lock;

/// How long the newest session of a slot is remembered after it was over: no upgrade is under way for longer.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// Longest window that proxies may ask for: a longer one would keep connections of a dead proxy for too long.
const WINDOW_MAX_MS: u64 = 600_000;

/// A place in a pool, of one start of one node, for one hub. Its name is for people: two nodes may have one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SlotKey {
    pub(crate) hub: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) boot: Arc<str>,
    pub(crate) slot: u32,
}

/// All slots of a server.
#[derive(Default)]
pub(crate) struct Slots {
    slots: Mutex<HashMap<SlotKey, Slot>>,
    /// Names that two nodes have, of which people were told. Each has links of both.
    shared_names: Mutex<HashSet<Arc<str>>>,
}

#[derive(Default)]
struct Slot {
    live: Option<Arc<LinkSession>>,
    newest: Option<SessionId>,
    empty_since: Option<Instant>,
}

/// Outcome of an upgrade.
pub(super) enum TakenSlot {
    Attached(Attached, Answer),
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
    pub(super) fn take(self: &Arc<Self>, link: &Link, offer: Option<&Offer>) -> Result<TakenSlot, Refused> {
        let mut slots = lock(&self.slots);
        let slot = slots.entry(link.key.clone()).or_default();
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
                self.resume(&mut slots, session, &offer)
            }
            (UpgradeDecision::Begin | UpgradeDecision::EndSocketFirst | UpgradeDecision::Resume, _) => {
                self.begin(&mut slots, link, &offer)
            }
        }
    }

    /// Ends a session that has no socket; `false` when it has one again.
    pub(super) fn end_detached(&self, session: &Arc<LinkSession>, end: &ConnectionClose) -> bool {
        let mut slots = lock(&self.slots);
        let is_detached = !session.outbox.is_open();
        if is_detached {
            end_session(&mut slots, session, end);
        }
        is_detached
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

    fn resume(
        self: &Arc<Self>,
        slots: &mut HashMap<SlotKey, Slot>,
        session: Arc<LinkSession>,
        offer: &Offer,
    ) -> Result<TakenSlot, Refused> {
        match Attached::new(Arc::clone(&session), Arc::clone(self), offer) {
            Some(Ok((attached, answer))) => {
                session.node.note_heard();
                Ok(TakenSlot::Attached(attached, answer))
            }
            Some(Err(error)) => {
                end_session(slots, &session, &end_of_connections(&LinkEnd::from(error.clone())));
                Err(error.into())
            }
            // It has ended in this very moment.
            None => Err(UpgradeRefusal::Unknown.into()),
        }
    }

    fn begin(
        self: &Arc<Self>,
        slots: &mut HashMap<SlotKey, Slot>,
        link: &Link,
        offer: &Offer,
    ) -> Result<TakenSlot, Refused> {
        self.sweep(slots, &link.key);
        let session = Arc::new(new_session(link, offer));
        if let Some(slot) = slots.get_mut(&link.key) {
            *slot = Slot { live: Some(Arc::clone(&session)), newest: Some(offer.session), empty_since: None };
        }
        link.tasks.spawn(session::keep(Arc::clone(&session), Arc::clone(self)));
        self.resume(slots, session, offer)
    }

    /// Ends the session that has the slot, and doubts those of other nodes of the same name: they may be of an earlier start
    /// of this one.
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

impl SlotKey {
    /// Whether both are of nodes with one name, which are not the same one.
    fn shares_name(&self, other: &Self) -> bool {
        self.node == other.node && self.boot != other.boot
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

fn new_session(link: &Link, offer: &Offer) -> LinkSession {
    static LATEST: AtomicU64 = AtomicU64::new(0);
    let SlotKey { node, boot, slot, .. } = &link.key;
    let window_ms = offer.capabilities.window_ms.unwrap_or(RESUME_WINDOW_MS).clamp(1, WINDOW_MAX_MS);
    let settings = SessionSettings::new(link.ring_max_bytes, window_ms);
    let session = Session::new(offer.session, Role::AppServer, settings, 0);
    let outbox = Arc::new(LinkOutbox::new(OutboxPolicy::waiting(), Some(session)));
    let service = link.service.as_ref().map(|service| &*service.name);
    let name = NodeName { name: node, boot, service };
    LinkSession {
        id: LinkId(LATEST.fetch_add(1, Ordering::Relaxed)),
        key: link.key.clone(),
        node: link.endpoint.outbound().begin_session(name, link.capabilities, *slot, Arc::clone(&outbox)),
        service: link.service.clone(),
        endpoint: Arc::clone(&link.endpoint),
        outbox,
        incoming: Mutex::new(Incoming::default()),
        due: Arc::default(),
        shutdown: link.shutdown.clone(),
        socket: Mutex::default(),
        detached: tokio::sync::Notify::new(),
        doubted: tokio::sync::Notify::new(),
        patience: Duration::from_millis(window_ms.min(RESUME_WINDOW_MS)),
        over: tokio_util::sync::CancellationToken::new(),
        clock: LinkClock::start(),
    }
}

fn end_session(slots: &mut HashMap<SlotKey, Slot>, session: &Arc<LinkSession>, end: &ConnectionClose) {
    let slot = slots.get_mut(&session.key);
    if let Some(slot) = slot.filter(|slot| slot.live.as_ref().is_some_and(|live| Arc::ptr_eq(live, session))) {
        (slot.live, slot.empty_since) = (None, Some(Instant::now()));
        session.end(end);
    }
}
