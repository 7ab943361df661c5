//! The links of one hub to one app server instance: slots, each open or not. Of an app server that we dial their number
//! is fixed; of one that dials in it is what that one wants.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::manifest::{ExclusiveTasks, PresenceScope};

use super::asked_methods::AskedMethods;
use super::{AppServer, AppTarget, HubIdentity, LinkHandle, LinkLook, home_choice};
use crate::limits::LogThrottle;

/// The links of one hub from this proxy to one app server instance.
#[derive(Debug)]
pub(crate) struct Pool {
    hub: Arc<HubIdentity>,
    app: Arc<AppServer>,
    links: ArcSwap<Vec<Option<HomeLink>>>,
    next: AtomicUsize,
    retired: CancellationToken,
    terms: PoolTerms,
    is_draining: AtomicBool,
    /// Its clients are to go elsewhere, as soon as there is another app server.
    is_reassigning: AtomicBool,
    /// It is about to stop, and has ended a link in order.
    has_said_goodbye: AtomicBool,
    /// Changes when its app server has left in order.
    left: watch::Sender<()>,
    /// Time at which a link was lost last.
    lost_at: Mutex<Option<Instant>>,
    /// Notified when a link opens, is lost, or meets another instance than its own.
    changed: Arc<Notify>,
    /// Throttle of warnings about its links: they are lost together.
    warnings: LogThrottle,
    /// Methods of clients that its app server has asked for results.
    pub(crate) asked: AskedMethods,
}

/// Terms of an app server for a hub: what its manifest says of itself, and not of the hub.
#[derive(Debug, Default)]
pub(crate) struct PoolTerms {
    /// It restores lost clients.
    pub restores: bool,
    /// Changes of which it wants to be told.
    pub presence: PresenceScope,
    /// Exclusive tasks that it stands for.
    pub exclusive_tasks: Option<Arc<ExclusiveTasks>>,
}

/// The home link of a client connection: it carries everything that the client sends.
pub(crate) type HomeLink = Arc<LinkHandle>;

impl Pool {
    /// A pool without any open link yet.
    #[must_use]
    pub(crate) fn new(hub: Arc<HubIdentity>, app: Arc<AppServer>, size: usize, changed: Arc<Notify>) -> Self {
        Self {
            hub,
            app,
            links: ArcSwap::from_pointee(vec![None; size]),
            next: AtomicUsize::new(0),
            retired: CancellationToken::new(),
            terms: PoolTerms::default(),
            is_draining: AtomicBool::new(false),
            is_reassigning: AtomicBool::new(false),
            has_said_goodbye: AtomicBool::new(false),
            left: watch::Sender::new(()),
            lost_at: Mutex::new(None),
            changed,
            warnings: LogThrottle::default(),
            asked: AskedMethods::default(),
        }
    }

    /// The pool with terms of its app server.
    #[must_use]
    pub(crate) fn with_terms(self, terms: PoolTerms) -> Self {
        Self { terms, ..self }
    }

    /// Whether its app server keeps what a lost client had, and answers queries for it.
    #[must_use]
    pub(crate) fn restores(&self) -> bool {
        self.terms.restores
    }

    /// Changes of which its app server is told; none of a mirror's.
    #[must_use]
    pub(crate) fn presence(&self) -> PresenceScope {
        if self.app.group.is_mirror() { PresenceScope::default() } else { self.terms.presence }
    }

    /// Exclusive tasks that its app server stands for; a mirror's runs none.
    #[must_use]
    pub(crate) fn exclusive_tasks(&self) -> Option<&Arc<ExclusiveTasks>> {
        self.terms.exclusive_tasks.as_ref().filter(|_| !self.app.group.is_mirror())
    }

    #[must_use]
    pub(crate) fn hub(&self) -> &Arc<HubIdentity> {
        &self.hub
    }

    #[must_use]
    pub(crate) fn app(&self) -> &Arc<AppServer> {
        &self.app
    }

    /// Number of slots, open or not.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        self.links.load().len()
    }

    /// Number of open links that may carry clients.
    #[must_use]
    pub(crate) fn open(&self) -> usize {
        self.count(|link| link.is_open() && link.may_carry_clients())
    }

    /// Whether its app server can be reached, and is not about to stop.
    #[must_use]
    pub(crate) fn is_up(&self) -> bool {
        self.open() > 0 && !self.is_draining()
    }

    /// Open links that may carry clients.
    #[must_use]
    pub(crate) fn homes(&self) -> Vec<HomeLink> {
        let links = self.links.load();
        links.iter().flatten().filter(|link| link.is_open() && link.may_carry_clients()).cloned().collect()
    }

    /// All links, whether they may carry clients or not.
    #[must_use]
    pub(crate) fn links(&self) -> Vec<Arc<LinkHandle>> {
        self.links.load().iter().flatten().cloned().collect()
    }

    /// Whether it has no link at all.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.links.load().iter().all(Option::is_none)
    }

    fn count(&self, is_counted: impl Fn(&LinkHandle) -> bool) -> usize {
        self.links.load().iter().flatten().filter(|link| is_counted(link)).count()
    }

    /// Number of links that have lost their socket and wait for another one.
    #[must_use]
    pub(crate) fn resuming(&self) -> usize {
        self.count(|link| !link.is_open())
    }

    /// Number of slots that should have a link and have none. One that dials in decides itself how many it wants.
    #[must_use]
    pub(crate) fn down(&self) -> usize {
        let is_dialled = !matches!(self.app.target, AppTarget::DialsIn);
        self.links.load().iter().filter(|link| is_dialled && link.is_none()).count()
    }

    /// Its links, as they are now.
    #[must_use]
    pub(crate) fn look(&self) -> LinkLook {
        let is_dialled = !matches!(self.app.target, AppTarget::DialsIn);
        LinkLook {
            is_known: !self.is_empty(),
            open: self.open(),
            wanted: is_dialled.then(|| self.size()),
            is_draining: self.is_draining(),
        }
    }

    /// Bytes that its links keep until the app server has them.
    #[must_use]
    pub(crate) fn ring_bytes(&self) -> usize {
        self.links.load().iter().flatten().map(|link| link.ring_bytes()).sum()
    }

    /// A link for a message that may arrive late: an open one, else one that is to be resumed.
    #[must_use]
    pub(crate) fn any_link(&self) -> Option<Arc<LinkHandle>> {
        self.choose_home().or_else(|| self.links.load().iter().flatten().next().cloned())
    }

    /// The link for a new client connection; `None` while all are down or full.
    #[must_use]
    pub(crate) fn choose_home(&self) -> Option<HomeLink> {
        if self.is_draining() {
            return None;
        }
        let links = self.links.load();
        let is_usable = |link: &HomeLink| link.is_open() && !link.is_full() && link.may_carry_clients();
        let usable: Vec<_> = links.iter().map(|link| link.as_ref().is_some_and(is_usable)).collect();
        let client = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = self.app.group.terms().pool_turn;
        links.get(home_choice::choose(&usable, client, turn)?)?.clone()
    }

    /// Time at which a link was lost last, if its app server may be back soon: it neither stops nor was given up.
    #[must_use]
    pub(crate) fn lost_at(&self) -> Option<Instant> {
        let is_expected = !self.is_draining() && !self.retired.is_cancelled();
        self.lost_at.lock().unwrap_or_else(PoisonError::into_inner).filter(|_| is_expected)
    }

    /// Time for which its app server has sent nothing over any link, or has had none with a socket. Each end pings
    /// every 2.5 s with the usual window. `None` before the first link, and while it is about to stop.
    #[must_use]
    pub(crate) fn silence(&self) -> Option<Duration> {
        let links = self.links.load();
        let open = links.iter().flatten().filter(|link| link.is_open());
        match open.map(|link| link.outbox().silent_ms()).min() {
            Some(silent_ms) => Some(Duration::from_millis(silent_ms)).filter(|_| !self.is_draining()),
            None => self.lost_at().map(|lost_at| lost_at.elapsed()),
        }
    }

    /// Notes that the link of a slot is open, perhaps again.
    pub(crate) fn opened(&self, slot: usize, link: HomeLink) {
        self.set(slot, Some(&link));
        self.changed.notify_one();
        self.hub.note_link(&self.app);
    }

    /// Adds a link that the app server has dialled; returns its slot, a new one unless one is free.
    pub(crate) fn add(&self, link: &HomeLink) -> usize {
        let mut slot = 0;
        if self.is_empty() {
            // It has come back, whatever it said before it went.
            self.is_draining.store(false, Ordering::Relaxed);
            self.is_reassigning.store(false, Ordering::Relaxed);
        }
        self.links.rcu(|links| {
            let mut links = links.to_vec();
            slot = links.iter().position(Option::is_none).unwrap_or(links.len());
            match links.get_mut(slot) {
                Some(free) => *free = Some(link.clone()),
                None => links.push(Some(link.clone())),
            }
            links
        });
        self.changed.notify_one();
        self.hub.note_link(&self.app);
        slot
    }

    /// Removes a link that the app server had dialled, with the slots that nobody needs any more.
    pub(crate) fn remove(&self, link: &HomeLink) {
        self.links.rcu(|links| {
            let is_other = |other: &HomeLink| !Arc::ptr_eq(other, link);
            let mut links: Vec<_> = links.iter().map(|other| other.clone().filter(is_other)).collect();
            links.truncate(links.iter().rposition(Option::is_some).map_or(0, |last| last + 1));
            links
        });
        self.changed.notify_one();
    }

    fn set(&self, slot: usize, link: Option<&HomeLink>) {
        self.links.rcu(|links| {
            let mut links = links.to_vec();
            if let Some(entry) = links.get_mut(slot) {
                *entry = link.cloned();
            }
            links
        });
    }

    /// Notes that an open link is about to be none: its socket has ended, its session perhaps too.
    pub(crate) fn socket_ended(&self) {
        *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Notes that a link has lost its socket; its session lives.
    pub(crate) fn interrupted(&self) {
        self.tell_if_left();
        self.changed.notify_one();
    }

    /// Notes that the app server has ended a link in order, as it does with all that have a socket when it stops.
    pub(crate) fn said_goodbye(&self) {
        if self.is_draining() {
            self.has_said_goodbye.store(true, Ordering::Relaxed);
        }
        self.tell_if_left();
    }

    /// Receiver that changes when the app server has left in order: a link without a socket does not come back then.
    #[must_use]
    pub(crate) fn left(&self) -> watch::Receiver<()> {
        self.left.subscribe()
    }

    fn tell_if_left(&self) {
        if self.has_said_goodbye.load(Ordering::Relaxed) && self.open() == 0 {
            self.left.send_replace(());
        }
    }

    /// Notes that the session of a slot is over.
    pub(crate) fn lost(&self, slot: usize) {
        self.set(slot, None);
        self.changed.notify_one();
    }

    /// Begins the drain of an app server that is about to stop: it gets no new clients. `false` if it had begun.
    #[must_use]
    pub(crate) fn begin_drain(&self) -> bool {
        let has_begun = !self.is_draining.swap(true, Ordering::Relaxed);
        self.hub.wake_waiters();
        has_begun
    }

    /// Begins to give the clients of an app server that is about to stop to others. `false` if that had begun.
    #[must_use]
    pub(crate) fn begin_reassigning(&self) -> bool {
        !self.is_reassigning.swap(true, Ordering::Relaxed)
    }

    /// Whether its clients are to go elsewhere.
    #[must_use]
    pub(crate) fn is_reassigning(&self) -> bool {
        self.is_reassigning.load(Ordering::Relaxed)
    }

    /// Whether its app server is about to stop.
    #[must_use]
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Permission for a warning about a link, with the number of those that were left out before it; `None` where it is
    /// to be left out.
    #[must_use]
    pub(crate) fn may_warn(&self) -> Option<u64> {
        self.warnings.pass(Instant::now())
    }

    /// Notes that another instance answers at the address.
    pub(crate) fn met_another_instance(&self) {
        self.changed.notify_one();
    }

    /// Ends all links: the instance is gone.
    pub(crate) fn retire(&self) {
        self.retired.cancel();
        self.hub.wake_waiters();
    }

    /// Token that fires when the pool is retired.
    #[must_use]
    pub(crate) fn retired(&self) -> &CancellationToken {
        &self.retired
    }
}
