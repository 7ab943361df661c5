//! The links of one hub to one app server instance: a fixed number of slots, each open or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{AppServer, Hub, LinkHandle, home};

/// A fixed set of links.
#[derive(Debug)]
pub struct Pool {
    hub: Arc<Hub>,
    app: Arc<AppServer>,
    links: Box<[ArcSwapOption<LinkHandle>]>,
    next: AtomicUsize,
    retired: CancellationToken,
    /// Told whenever a link opens, is lost, or meets another instance than its own.
    changed: Arc<Notify>,
}

/// What a new client connection is given: the link for all it sends.
pub type Home = Arc<LinkHandle>;

impl Pool {
    /// A pool without any open link yet.
    #[must_use]
    pub fn new(hub: Arc<Hub>, app: Arc<AppServer>, size: usize, changed: Arc<Notify>) -> Self {
        Self {
            hub,
            app,
            links: (0..size).map(|_| ArcSwapOption::empty()).collect(),
            next: AtomicUsize::new(0),
            retired: CancellationToken::new(),
            changed,
        }
    }

    /// The hub whose links these are.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The app server that they lead to.
    #[must_use]
    pub fn app(&self) -> &Arc<AppServer> {
        &self.app
    }

    /// How many links it has, open or not.
    #[must_use]
    pub fn size(&self) -> usize {
        self.links.len()
    }

    /// How many links are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.links.iter().filter(|link| link.load().is_some()).count()
    }

    /// The link for a new client connection; `None` while all are down or full.
    #[must_use]
    pub fn choose_home(&self) -> Option<Home> {
        let links: Vec<_> = self.links.iter().map(ArcSwapOption::load_full).collect();
        let usable: Vec<_> = links.iter().map(|link| link.as_ref().is_some_and(|link| !link.is_full())).collect();
        let start = self.next.fetch_add(1, Ordering::Relaxed) % links.len().max(1);
        links.into_iter().nth(home::choose(&usable, start)?).flatten()
    }

    /// A link of this slot is open.
    pub fn opened(&self, slot: usize, link: Arc<LinkHandle>) {
        if let Some(place) = self.links.get(slot) {
            place.store(Some(link));
        }
        self.changed.notify_one();
    }

    /// The link of this slot is lost.
    pub fn lost(&self, slot: usize) {
        if let Some(place) = self.links.get(slot) {
            place.store(None);
        }
        self.changed.notify_one();
    }

    /// Another instance answers where ours was.
    pub fn met_another_instance(&self) {
        self.changed.notify_one();
    }

    /// Ends all its links: the instance is gone.
    pub fn retire(&self) {
        self.retired.cancel();
    }

    /// Fires when the pool is retired.
    #[must_use]
    pub fn retired(&self) -> &CancellationToken {
        &self.retired
    }
}
