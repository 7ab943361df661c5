//! Slots of links: one live session each, and at most one socket for that.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_link::{LinkClock, LinkEnd, LinkOutbox, OutboxPolicy, StopReason};
use trunkline_protocol::limits::RESUME_WINDOW_MS;
use trunkline_protocol::service::{
    Answer, Attachment, Capabilities, Incoming, Offer, Role, Session, SessionEndReason, SessionError, SessionId,
    SessionSettings, UpgradeDecision, UpgradeRefusal, decide_upgrade,
};

use super::proxy_log::ProxyLog;
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
    log: Arc<ProxyLog>,
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

    /// Ends a session, unless it has a socket again.
    pub(super) fn end_detached(&self, session: &Arc<LinkSession>, end: &ConnectionClose) {
        let mut slots = lock(&self.slots);
        if !session.outbox.is_open() {
            end_session(&mut slots, session, end);
        }
    }

    /// Doubts that a start of a node lives, because another node says that it has crashed. One that has a socket here lives.
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
        self.log.session_begun(&session.key, session.service_name());
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
        told_crashed: tokio::sync::Notify::new(),
        patience: Duration::from_millis(window_ms.min(RESUME_WINDOW_MS)),
        over: tokio_util::sync::CancellationToken::new(),
        clock: LinkClock::start(),
        log: Arc::clone(&link.slots.log),
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
mod tests {
    use tokio::time::sleep;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::Hub;
    use crate::dispatch::Dispatcher;
    use crate::hub_core::HubCore;
    use crate::metrics::Metrics;
    use crate::outbound::Outbound;

    /// An app server, and links of a proxy to it.
    struct Scene {
        slots: Arc<Slots>,
        hub: Arc<Dispatcher>,
    }

    impl Scene {
        fn new() -> Self {
            let hub = Hub::new("/test").build().unwrap();
            let outbound = Outbound::new("test", Metrics::new().hub("test"));
            let (protocols, naming) = (hub.settings.protocols.clone(), hub.settings.naming);
            let core = HubCore::new("me".into(), protocols, naming, hub.settings.limits, outbound);
            Self { slots: Arc::default(), hub: Dispatcher::new(hub, Arc::new(core), TaskTracker::new()) }
        }

        /// Gives the session of a slot a socket, until the value is dropped.
        async fn attach(&self, boot: &str, slot: u32, received: Option<u64>) -> Attached {
            let (hub, node) = ("test".into(), "proxy".into());
            let resuming =
                Capabilities { resume_ring_bytes: Some(10_000), window_ms: Some(10_000), ..Capabilities::plain() };
            let link = Link {
                endpoint: Arc::new(Arc::clone(&self.hub)) as _,
                key: SlotKey { hub, node, boot: boot.into(), slot },
                service: None,
                slots: Arc::clone(&self.slots),
                ring_max_bytes: 10_000,
                capabilities: resuming,
                shutdown: CancellationToken::new(),
                tasks: TaskTracker::new(),
            };
            let offer = Offer { session: SessionId::FIRST, received, capabilities: resuming };
            let (attached, _) = link.attach(Some(offer)).await.unwrap();
            attached
        }

        /// Number of sessions of a start of the proxy some seconds after another proxy has said that it has crashed.
        async fn left_when_doubted(&self, boot: &str) -> usize {
            self.slots.doubt_node(boot);
            // sleep: time is virtual, and what is shown is that nothing comes
            sleep(Duration::from_secs(5)).await;
            sessions_of(&lock(&self.slots.slots), boot).len()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_sessions_of_a_proxy_that_has_crashed_are_over_at_once_and_no_other_ones() {
        let scene = Scene::new();
        let other = scene.attach("other", 2, None).await;
        for slot in [0, 1] {
            drop(scene.attach("boot", slot, None).await);
        }
        drop(other);
        assert_eq!(scene.left_when_doubted("boot").await, 0);
        assert_eq!(sessions_of(&lock(&scene.slots.slots), "other").len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_with_a_socket_lives_whatever_others_say() {
        let scene = Scene::new();
        drop(scene.attach("boot", 0, None).await);
        let _socket = scene.attach("boot", 1, None).await;
        assert_eq!(scene.left_when_doubted("boot").await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_comes_back_within_the_doubt_has_lost_nothing() {
        let scene = Scene::new();
        for slot in [0, 1] {
            drop(scene.attach("boot", slot, None).await);
        }
        scene.slots.doubt_node("boot");
        tokio::task::yield_now().await;
        let _socket = scene.attach("boot", 0, Some(0)).await;
        // sleep: as above
        sleep(Duration::from_secs(5)).await;
        assert_eq!(sessions_of(&lock(&scene.slots.slots), "boot").len(), 2);
    }
}
