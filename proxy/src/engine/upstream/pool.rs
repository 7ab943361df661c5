//! Pool: the links of one hub to one app server instance, in slots. An app server that dials in chooses their number.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_process::{LinePermit, LogLimit};
use trunkline_protocol::manifest::PresenceScope;
use trunkline_protocol::service::SessionId;

use super::asked_methods::AskedMethods;
use super::{AppServer, AppTarget, HubIdentity, LinkCounts, LinkHandle, LinkId};

/// Minimum interval between warnings.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Time within which an app server that stops closes all its links.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// Maximum number of pending requests of an app server for records of a hub; the SDK has fewer.
const RECORD_REQUESTS_MAX: usize = 4096;

/// Number of pools opened by this process.
static OPENED: AtomicU32 = AtomicU32::new(0);

#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) hub: Arc<HubIdentity>,
    pub(crate) app: Arc<AppServer>,
    number: u32,
    links: ArcSwap<Vec<Option<HomeLink>>>,
    next: AtomicUsize,
    pub(crate) retired: CancellationToken,
    presence: PresenceScope,
    is_draining: AtomicBool,
    /// Clients move as soon as another app server is up.
    is_reassigning: AtomicBool,
    /// The app server is about to stop, and has closed a link gracefully.
    has_said_goodbye: AtomicBool,
    /// Changes when the app server has left gracefully.
    left: watch::Sender<()>,
    /// Time of the last loss of a link.
    lost_at: Mutex<Option<Instant>>,
    /// Time of the last link that the app server has closed by a WebSocket close. A crashed process sends none.
    closed_at: Mutex<Option<Instant>>,
    /// Notified when a link opens, is lost, or reaches another instance.
    changed: Arc<Notify>,
    /// Limit of warnings: the links of a pool are usually lost together.
    warnings: LogLimit,
    /// Client methods that the app server has invoked for a result.
    pub(crate) asked: AskedMethods,
    /// Permits for requests of the app server for records.
    pub(crate) record_requests: Arc<Semaphore>,
}

/// Home link of a client connection: carries all its messages.
pub(crate) type HomeLink = Arc<LinkHandle>;

impl Pool {
    pub(crate) fn new(hub: Arc<HubIdentity>, app: Arc<AppServer>, size: usize, changed: Arc<Notify>) -> Self {
        Self {
            hub,
            app,
            number: OPENED.fetch_add(1, Ordering::Relaxed),
            links: ArcSwap::from_pointee(vec![None; size]),
            next: AtomicUsize::new(0),
            retired: CancellationToken::new(),
            presence: PresenceScope::default(),
            is_draining: AtomicBool::new(false),
            is_reassigning: AtomicBool::new(false),
            has_said_goodbye: AtomicBool::new(false),
            left: watch::Sender::new(()),
            lost_at: Mutex::new(None),
            closed_at: Mutex::new(None),
            changed,
            warnings: LogLimit::new(1, WARNING_INTERVAL),
            asked: AskedMethods::default(),
            record_requests: Arc::new(Semaphore::new(RECORD_REQUESTS_MAX)),
        }
    }

    #[must_use]
    pub(crate) fn with_presence(self, presence: PresenceScope) -> Self {
        Self { presence, ..self }
    }

    /// Another link, preferably with a socket.
    pub(crate) fn link_beside(&self, lost: LinkId) -> Option<Arc<LinkHandle>> {
        let links = self.links();
        let is_other = |link: &&Arc<LinkHandle>| link.id != lost && !link.is_closed();
        links.iter().filter(is_other).find(|link| link.is_open()).or_else(|| links.iter().find(is_other)).cloned()
    }

    /// Presence changes to report to the app server; none for a mirror.
    pub(crate) fn presence(&self) -> PresenceScope {
        if self.app.group.is_mirror() { PresenceScope::default() } else { self.presence }
    }

    /// First session of each slot: newer than the sessions of an earlier pool to the same app server.
    pub(crate) fn first_session(&self) -> SessionId {
        SessionId::first_of(self.number)
    }

    pub(crate) fn size(&self) -> usize {
        self.links.load().len()
    }

    /// Number of open links that may carry clients.
    pub(crate) fn open_links(&self) -> usize {
        self.count(|link| link.is_open() && link.may_carry_clients())
    }

    /// Whether the app server has an open link that may carry clients, and is not about to stop.
    pub(crate) fn is_up(&self) -> bool {
        self.open_links() > 0 && !self.is_draining()
    }

    /// Open links that may carry clients.
    pub(crate) fn homes(&self) -> Vec<HomeLink> {
        let links = self.links.load();
        links.iter().flatten().filter(|link| link.is_open() && link.may_carry_clients()).cloned().collect()
    }

    /// All links, whether they may carry clients or not.
    pub(crate) fn links(&self) -> Vec<Arc<LinkHandle>> {
        self.links.load().iter().flatten().cloned().collect()
    }

    /// Whether the pool has no link, open or not.
    pub(crate) fn is_empty(&self) -> bool {
        self.links.load().iter().all(Option::is_none)
    }

    fn count(&self, is_counted: impl Fn(&LinkHandle) -> bool) -> usize {
        self.links.load().iter().flatten().filter(|link| is_counted(link)).count()
    }

    /// Number of disconnected links waiting to be resumed.
    pub(crate) fn resuming(&self) -> usize {
        self.count(|link| !link.is_open())
    }

    /// Number of missing links; none of an app server that dials in, which chooses the number.
    pub(crate) fn down(&self) -> usize {
        let is_dialled = !matches!(self.app.target, AppTarget::DialsIn(_));
        self.links.load().iter().filter(|link| is_dialled && link.is_none()).count()
    }

    pub(crate) fn link_counts(&self) -> LinkCounts {
        let is_dialled = !matches!(self.app.target, AppTarget::DialsIn(_));
        LinkCounts {
            is_known: !self.is_empty(),
            open: self.open_links(),
            wanted: is_dialled.then(|| self.size()),
            is_draining: self.is_draining(),
        }
    }

    /// Bytes that the links keep until the app server acknowledges them.
    pub(crate) fn ring_bytes(&self) -> usize {
        self.links.load().iter().flatten().map(|link| link.ring_bytes()).sum()
    }

    /// A link for a message that may arrive late: an open link if any, or else a disconnected one.
    pub(crate) fn any_link(&self) -> Option<Arc<LinkHandle>> {
        self.choose_home().or_else(|| self.links.load().iter().flatten().next().cloned())
    }

    /// Home link for a new client connection; `None` while all links are down or full.
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
        links.get(choose_slot(&usable, client, turn)?)?.clone()
    }

    /// Time of the last loss of a link, if the app server may return soon: it is neither stopping nor retired.
    pub(crate) fn lost_at(&self) -> Option<Instant> {
        let is_expected = !self.is_draining() && !self.retired.is_cancelled();
        self.lost_at.lock().unwrap_or_else(PoisonError::into_inner).filter(|_| is_expected)
    }

    /// Time without any data from the app server, or without a socket. With the default window, each end pings every
    /// 2.5 s. `None` before the first link, and while the app server is about to stop.
    pub(crate) fn silence(&self) -> Option<Duration> {
        let links = self.links.load();
        let open = links.iter().flatten().filter(|link| link.is_open());
        match open.map(|link| link.outbox().silent_ms()).min() {
            Some(silent_ms) => Some(Duration::from_millis(silent_ms)).filter(|_| !self.is_draining()),
            None => self.lost_at().map(|lost_at| lost_at.elapsed()),
        }
    }

    /// Notes that the link of a slot has opened, for the first time or again.
    pub(crate) fn opened(&self, slot: usize, link: HomeLink) {
        self.set(slot, Some(&link));
        self.changed.notify_one();
        self.hub.note_link(&self.app);
    }

    /// Adds a link that the app server has dialled. Returns a free slot, or else a new slot.
    pub(crate) fn add_link(&self, link: &HomeLink) -> usize {
        let mut slot = 0;
        if self.is_empty() {
            // The app server has returned, even if it said goodbye before.
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

    /// Removes a link that the app server had dialled, and the unused slots at the end.
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

    /// Notes that the socket of an open link has ended, and perhaps the session.
    pub(crate) fn socket_ended(&self) {
        *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Notes that the app server has closed a link that it had dialled.
    pub(crate) fn closed_by_app(&self) {
        *self.closed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether the app server has announced its stop, or has closed all its links, of which some sockets may have been
    /// reset.
    pub(crate) fn is_stopping(&self) -> bool {
        let [lost_at, closed_at] =
            [&self.lost_at, &self.closed_at].map(|time| *time.lock().unwrap_or_else(PoisonError::into_inner));
        let times = lost_at.zip(closed_at).filter(|_| self.is_empty());
        self.is_draining() || times.is_some_and(|(lost, closed)| lost.saturating_duration_since(closed) < CLOSE_TIME)
    }

    /// Notes that a link has lost its socket. The session lives on.
    pub(crate) fn interrupted(&self) {
        self.report_if_left();
        self.changed.notify_one();
    }

    /// Notes that the app server has closed a link gracefully. An app server that stops closes all open links.
    pub(crate) fn said_goodbye(&self) {
        if self.is_draining() {
            self.has_said_goodbye.store(true, Ordering::Relaxed);
        }
        self.report_if_left();
    }

    /// Receiver that changes when the app server has left gracefully, so that a disconnected link will not return.
    pub(crate) fn left(&self) -> watch::Receiver<()> {
        self.left.subscribe()
    }

    fn report_if_left(&self) {
        if self.has_said_goodbye.load(Ordering::Relaxed) && self.open_links() == 0 {
            self.left.send_replace(());
        }
    }

    pub(crate) fn lost(&self, slot: usize) {
        self.set(slot, None);
        self.changed.notify_one();
    }

    /// Begins to drain an app server that is about to stop: no new clients. `false` if the drain had begun.
    #[must_use]
    pub(crate) fn begin_drain(&self) -> bool {
        let has_begun = !self.is_draining.swap(true, Ordering::Relaxed);
        self.hub.wake_waiters();
        has_begun
    }

    /// Begins to reassign the clients of an app server that is about to stop. `false` if this had begun.
    #[must_use]
    pub(crate) fn begin_reassigning(&self) -> bool {
        !self.is_reassigning.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_reassigning(&self) -> bool {
        self.is_reassigning.load(Ordering::Relaxed)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Permission to log a warning about a link, with the number of suppressed ones; `None` to suppress it.
    pub(crate) fn may_warn(&self) -> Option<LinePermit> {
        self.warnings.take_line()
    }

    pub(crate) fn met_another_instance(&self) {
        self.changed.notify_one();
    }

    /// Ends all links, because the instance is gone.
    pub(crate) fn retire(&self) {
        self.retired.cancel();
        self.hub.wake_waiters();
    }
}

/// First usable slot, cyclically from the slot whose turn it is; `None` if all are unusable. A turn covers several
/// consecutive clients: only messages on one link share a write, a read and a wake-up, which matters most with few
/// clients. Many are distributed evenly anyway.
///
/// Pure. Round robin, because always choosing the emptiest link would flood one that has just reopened. Scanning a
/// small pool is cheap.
pub(super) fn choose_slot(usable: &[bool], client: usize, turn: usize) -> Option<usize> {
    let (count, start) = (usable.len(), client / turn.max(1));
    (0..count).map(|step| (start + step) % count).find(|&slot| usable.get(slot).copied().unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_turns_while_all_are_usable() {
        let slots: Vec<_> = (0..7).map(|client| choose_slot(&[true; 3], client, 1).unwrap()).collect();
        assert_eq!(slots, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn clients_of_one_turn_share_a_link() {
        let slots: Vec<_> = (0..7).map(|client| choose_slot(&[true; 3], client, 2).unwrap()).collect();
        assert_eq!(slots, [0, 0, 1, 1, 2, 2, 0]);
    }

    #[test]
    fn skips_links_that_are_down_or_full() {
        assert_eq!(choose_slot(&[false, false, true], 0, 1), Some(2));
        assert_eq!(choose_slot(&[true, false, false], 1, 1), Some(0));
    }

    #[test]
    fn without_links_there_is_no_home() {
        assert_eq!(choose_slot(&[], 0, 1), None);
        assert_eq!(choose_slot(&[false, false], 5, 1), None);
    }
}
