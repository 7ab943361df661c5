//! The links of one hub to one app server instance: a fixed number of slots, each open or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{AppServer, Hub, LinkHandle, home};

/// A fixed set of links.
#[derive(Debug)]
pub(crate) struct Pool {
    hub: Arc<Hub>,
    app: Arc<AppServer>,
    links: Box<[ArcSwapOption<LinkHandle>]>,
    next: AtomicUsize,
    retired: CancellationToken,
    is_leaving: AtomicBool,
    /// Told whenever a link opens, is lost, or meets another instance than its own.
    changed: Arc<Notify>,
}

/// What a new client connection is given: the link for all it sends.
pub(crate) type Home = Arc<LinkHandle>;

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
            is_leaving: AtomicBool::new(false),
            changed,
        }
    }

    /// The hub whose links these are.
    #[must_use]
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The app server that they lead to.
    #[must_use]
    pub(crate) fn app(&self) -> &Arc<AppServer> {
        &self.app
    }

    /// How many links it has, open or not.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        self.links.len()
    }

    /// How many links are open.
    #[must_use]
    pub(crate) fn open(&self) -> usize {
        self.links.iter().filter(|link| link.load().as_ref().is_some_and(|link| link.is_open())).count()
    }

    /// How many links have lost their socket and wait for another one.
    #[must_use]
    pub(crate) fn resuming(&self) -> usize {
        self.links.iter().filter(|link| link.load().as_ref().is_some_and(|link| !link.is_open())).count()
    }

    /// What its links keep until the app server has it, in bytes.
    #[must_use]
    pub(crate) fn ring_bytes(&self) -> usize {
        self.links.iter().filter_map(|link| link.load().as_ref().map(|link| link.ring_bytes())).sum()
    }

    /// A link for what has to arrive some time: an open one, else one that is to be resumed.
    #[must_use]
    pub(crate) fn any_link(&self) -> Option<Arc<LinkHandle>> {
        self.choose_home().or_else(|| self.links.iter().find_map(ArcSwapOption::load_full))
    }

    /// The link for a new client connection; `None` while all are down or full.
    #[must_use]
    pub(crate) fn choose_home(&self) -> Option<Home> {
        if self.is_leaving() {
            return None;
        }
        let links: Vec<_> = self.links.iter().map(ArcSwapOption::load_full).collect();
        let usable: Vec<_> =
            links.iter().map(|link| link.as_ref().is_some_and(|link| link.is_open() && !link.is_full())).collect();
        let start = self.next.fetch_add(1, Ordering::Relaxed) % links.len().max(1);
        links.into_iter().nth(home::choose(&usable, start)?).flatten()
    }

    /// A link of this slot is open, perhaps again.
    pub(crate) fn opened(&self, slot: usize, link: Arc<LinkHandle>) {
        if let Some(place) = self.links.get(slot) {
            place.store(Some(link));
        }
        self.changed.notify_one();
    }

    /// The link of this slot has lost its socket; its session lives.
    pub(crate) fn interrupted(&self) {
        self.changed.notify_one();
    }

    /// The session of this slot is over.
    pub(crate) fn lost(&self, slot: usize) {
        if let Some(place) = self.links.get(slot) {
            place.store(None);
        }
        self.changed.notify_one();
    }

    /// Its app server is about to stop: it is no home any more. `false` if that was known.
    #[must_use]
    pub(crate) fn leave(&self) -> bool {
        !self.is_leaving.swap(true, Ordering::Relaxed)
    }

    /// Whether its app server is about to stop.
    #[must_use]
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    /// Another instance answers where ours was.
    pub(crate) fn met_another_instance(&self) {
        self.changed.notify_one();
    }

    /// Ends all its links: the instance is gone.
    pub(crate) fn retire(&self) {
        self.retired.cancel();
    }

    /// Fires when the pool is retired.
    #[must_use]
    pub(crate) fn retired(&self) -> &CancellationToken {
        &self.retired
    }
}
