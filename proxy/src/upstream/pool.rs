//! The links of one hub to one app server instance: a fixed number of slots, each open or not.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{AppServer, Hub, LinkHandle, home_choice};

/// The links of one hub from this proxy to one app server instance.
#[derive(Debug)]
pub(crate) struct Pool {
    hub: Arc<Hub>,
    app: Arc<AppServer>,
    links: Box<[ArcSwapOption<LinkHandle>]>,
    next: AtomicUsize,
    retired: CancellationToken,
    is_draining: AtomicBool,
    /// Time at which a link was lost last.
    lost_at: Mutex<Option<Instant>>,
    /// Notified when a link opens, is lost, or meets another instance than its own.
    changed: Arc<Notify>,
}

/// The home link of a client connection: it carries everything that the client sends.
pub(crate) type HomeLink = Arc<LinkHandle>;

impl Pool {
    /// A pool without any open link yet.
    #[must_use]
    pub(crate) fn new(hub: Arc<Hub>, app: Arc<AppServer>, size: usize, changed: Arc<Notify>) -> Self {
        Self {
            hub,
            app,
            links: (0..size).map(|_| ArcSwapOption::empty()).collect(),
            next: AtomicUsize::new(0),
            retired: CancellationToken::new(),
            is_draining: AtomicBool::new(false),
            lost_at: Mutex::new(None),
            changed,
        }
    }

    #[must_use]
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    #[must_use]
    pub(crate) fn app(&self) -> &Arc<AppServer> {
        &self.app
    }

    /// Number of slots, open or not.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        self.links.len()
    }

    /// Number of open links.
    #[must_use]
    pub(crate) fn open(&self) -> usize {
        self.links.iter().filter(|link| link.load().as_ref().is_some_and(|link| link.is_open())).count()
    }

    /// Number of links that have lost their socket and wait for another one.
    #[must_use]
    pub(crate) fn resuming(&self) -> usize {
        self.links.iter().filter(|link| link.load().as_ref().is_some_and(|link| !link.is_open())).count()
    }

    /// Bytes that its links keep until the app server has them.
    #[must_use]
    pub(crate) fn ring_bytes(&self) -> usize {
        self.links.iter().filter_map(|link| link.load().as_ref().map(|link| link.ring_bytes())).sum()
    }

    /// A link for a message that may arrive late: an open one, else one that is to be resumed.
    #[must_use]
    pub(crate) fn any_link(&self) -> Option<Arc<LinkHandle>> {
        self.choose_home().or_else(|| self.links.iter().find_map(ArcSwapOption::load_full))
    }

    /// The link for a new client connection; `None` while all are down or full.
    #[must_use]
    pub(crate) fn choose_home(&self) -> Option<HomeLink> {
        if self.is_draining() {
            return None;
        }
        let links: Vec<_> = self.links.iter().map(ArcSwapOption::load_full).collect();
        let usable: Vec<_> =
            links.iter().map(|link| link.as_ref().is_some_and(|link| link.is_open() && !link.is_full())).collect();
        let start = self.next.fetch_add(1, Ordering::Relaxed) % links.len().max(1);
        links.into_iter().nth(home_choice::choose(&usable, start)?).flatten()
    }

    /// Time at which a link was lost last, if its app server may be back soon: it neither stops nor was given up.
    #[must_use]
    pub(crate) fn lost_at(&self) -> Option<Instant> {
        let is_expected = !self.is_draining() && !self.retired.is_cancelled();
        self.lost_at.lock().unwrap_or_else(PoisonError::into_inner).filter(|_| is_expected)
    }

    /// Notes that the link of a slot is open, perhaps again.
    pub(crate) fn opened(&self, slot: usize, link: Arc<LinkHandle>) {
        if let Some(entry) = self.links.get(slot) {
            entry.store(Some(link));
        }
        self.changed.notify_one();
        self.hub.wake_waiters();
    }

    /// Notes that an open link is about to be none: its socket has ended, its session perhaps too.
    pub(crate) fn socket_ended(&self) {
        *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Notes that a link has lost its socket; its session lives.
    pub(crate) fn interrupted(&self) {
        self.changed.notify_one();
    }

    /// Notes that the session of a slot is over.
    pub(crate) fn lost(&self, slot: usize) {
        if let Some(entry) = self.links.get(slot) {
            entry.store(None);
        }
        self.changed.notify_one();
    }

    /// Begins the drain of an app server that is about to stop: it gets no new clients. `false` if it had begun.
    #[must_use]
    pub(crate) fn begin_drain(&self) -> bool {
        let has_begun = !self.is_draining.swap(true, Ordering::Relaxed);
        self.hub.wake_waiters();
        has_begun
    }

    /// Whether its app server is about to stop.
    #[must_use]
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
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
