//! Identity of a hub, shared with its pools: index, names, naming, and the clients that wait for its links.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use super::app_server::AppServer;
use super::capability::HubCapabilities;
use super::link_waiter::LinkWaiters;
use super::number::HubIndex;
use crate::ground::auth::Signer;
use crate::ground::limits::IDLE_TIMEOUT;

#[derive(Debug)]
pub(crate) struct HubIdentity {
    pub(crate) index: HubIndex,
    name: String,
    pub(super) origin: HubOrigin,
    /// Unique name in the fleet: hubs of different origins may share a name.
    key: String,
    pub(super) naming: HubNaming,
    waiters: LinkWaiters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HubOrigin {
    /// Named by the manifests of app servers that this node dials, with settings and path.
    Manifest,
    /// Named by app servers that dial in. Clients use the path of dial-in.
    DialIn,
    /// Named by the operator, with a webhook in place of app servers. Clients use the path of dial-in or of the hub.
    Webhook,
    /// Named by a client, and served by a webhook for all matching names.
    WebhookPattern,
}

impl HubIdentity {
    pub(super) fn new(index: HubIndex, origin: HubOrigin, name: &str) -> Self {
        let (key, name) = (origin.key(name), name.to_owned());
        Self { index, name, origin, key, naming: HubNaming::new(), waiters: LinkWaiters::default() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn capabilities(&self) -> &'static HubCapabilities {
        match self.origin {
            HubOrigin::Manifest => &HubCapabilities::MANIFEST,
            HubOrigin::DialIn => &HubCapabilities::DIAL_IN,
            HubOrigin::Webhook | HubOrigin::WebhookPattern => &HubCapabilities::WEBHOOK,
        }
    }

    /// Notes that a link is open. An open link names a removed hub again.
    pub(super) fn note_link(&self, app: &AppServer) {
        self.naming.note_link();
        if app.group.is_default() && self.origin == HubOrigin::Manifest {
            self.naming.name_by_default();
        }
        self.wake_waiters();
    }

    /// Waits until `until` returns `None` or its time has come.
    pub(super) async fn wait(&self, until: impl Fn() -> Option<Instant>) {
        self.waiters.wait(until).await;
    }

    /// Wakes all waiters, which check their conditions again.
    pub(crate) fn wake_waiters(&self) {
        self.waiters.wake();
    }
}

/// Prefix of the keys of hubs that have only a name.
const BY_NAME: &str = "?hub=";

impl HubOrigin {
    /// Key of a hub with this name. Names in manifests contain no question mark.
    #[must_use]
    pub(crate) fn key(self, name: &str) -> String {
        match self {
            Self::Manifest => name.to_owned(),
            Self::DialIn | Self::Webhook | Self::WebhookPattern => format!("{BY_NAME}{name}"),
        }
    }

    pub(crate) fn name_in(key: &str) -> &str {
        key.strip_prefix(BY_NAME).unwrap_or(key)
    }
}

/// Maximum time for which a starting node waits for the first links of a hub. A hub without working app servers would
/// otherwise keep the node out of its load balancer, although the node serves other hubs.
const FIRST_LINKS_TIMEOUT: Duration = Duration::from_secs(10);

/// ```text
///  named ──(no linked app server names it)──► unnamed ──(--hold-timeout)──► removed ──(nothing holds it)──► free index
///    ▲                                           │                             │
///    └────────────────── named again ────────────┴─────────────────────────────┘
/// ```
///
/// A hub without links and clients is idle, and evicted before the hold timeout if the table is full: immediately if
/// its app servers have left, else after [`IDLE_TIMEOUT`], because the first one may be about to link.
///
/// Lookups don't find a removed hub. Its index is reused once nothing refers to it.
#[derive(Debug)]
pub(super) struct HubNaming {
    /// An app server of the default group has named it.
    is_of_default: AtomicBool,
    is_removed: AtomicBool,
    /// The node served no hub when the hub was registered, and no link of the hub has opened since.
    is_awaited: AtomicBool,
    was_linked: AtomicBool,
    /// Signer of the token that registered the hub.
    named_by: Mutex<Signer>,
    times: Mutex<NamingTimes>,
}

#[derive(Debug)]
struct NamingTimes {
    registered_at: Instant,
    unnamed_since: Option<Instant>,
    /// Start of the time without links and clients.
    idle_since: Option<Instant>,
}

impl HubNaming {
    pub(super) fn new() -> Self {
        Self {
            is_of_default: AtomicBool::new(false),
            is_removed: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            was_linked: AtomicBool::new(false),
            named_by: Mutex::default(),
            times: Mutex::new(NamingTimes { registered_at: Instant::now(), unnamed_since: None, idle_since: None }),
        }
    }

    pub(super) fn is_of_default(&self) -> bool {
        self.is_of_default.load(Ordering::Relaxed)
    }

    pub(super) fn name_by_default(&self) {
        self.is_of_default.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_by(&self, signer: &Signer) -> bool {
        *self.named_by.lock().unwrap_or_else(PoisonError::into_inner) == *signer
    }

    pub(super) fn name_by(&self, signer: &Signer) {
        *self.named_by.lock().unwrap_or_else(PoisonError::into_inner) = signer.clone();
    }

    pub(super) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::Relaxed)
    }

    pub(super) fn registered_at(&self) -> Instant {
        self.with_times(|times| times.registered_at)
    }

    /// Makes the start of the node wait for the first links.
    pub(super) fn await_links(&self) {
        self.is_awaited.store(true, Ordering::Relaxed);
    }

    /// Whether the starting node still waits for the first links.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::Relaxed) && self.registered_at().elapsed() < FIRST_LINKS_TIMEOUT
    }

    pub(super) fn note_link(&self) {
        self.is_awaited.store(false, Ordering::Relaxed);
        self.was_linked.store(true, Ordering::Relaxed);
        self.recall();
    }

    /// Records that the hub is named; returns `true` if the hub was removed.
    pub(super) fn recall(&self) -> bool {
        let was_removed = self.is_removed.swap(false, Ordering::Relaxed);
        self.with_times(|times| {
            (times.unnamed_since, times.idle_since) = (None, None);
            if was_removed {
                times.registered_at = Instant::now();
            }
        });
        was_removed
    }

    /// Records whether the hub is named. Returns the time for which it was unnamed; `None` while it is named.
    pub(super) fn note_naming(&self, is_named: bool) -> Option<Duration> {
        self.with_times(|times| {
            times.unnamed_since = if is_named { None } else { times.unnamed_since.or_else(|| Some(Instant::now())) };
            times.unnamed_since.map(|since| since.elapsed())
        })
    }

    pub(super) fn note_use(&self, is_used: bool) {
        self.with_times(|times| {
            times.idle_since = if is_used { None } else { times.idle_since.or_else(|| Some(Instant::now())) };
        });
    }

    /// Time since which a full table may evict the hub; `None` if it may not.
    pub(super) fn evictable_since(&self) -> Option<Instant> {
        let wait = if self.was_linked.load(Ordering::Relaxed) { Duration::ZERO } else { IDLE_TIMEOUT };
        let since = self.with_times(|times| times.idle_since)? + wait;
        Some(since).filter(|since| *since <= Instant::now())
    }

    pub(super) fn remove(&self) {
        self.is_removed.store(true, Ordering::Relaxed);
        self.is_of_default.store(false, Ordering::Relaxed);
        self.is_awaited.store(false, Ordering::Relaxed);
    }

    fn with_times<T>(&self, act: impl FnOnce(&mut NamingTimes) -> T) -> T {
        act(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Decodes the escapes of a path, except escaped slashes. A path with invalid UTF-8 stays unchanged.
///
/// They are decoded once, as in ASP.NET Core and in route rules.
pub(crate) fn decode_path(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let kept = path.replace("%2f", "%252f").replace("%2F", "%252F");
    let decoded = percent_decode_str(&kept).decode_utf8().map(Cow::into_owned);
    decoded.map_or(Cow::Borrowed(path), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    impl HubIdentity {
        /// Identity of the first hub, without the hub.
        pub(crate) fn detached() -> Arc<Self> {
            Arc::new(Self::new(HubIndex::from(0), HubOrigin::Manifest, "chat"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_unnamed_time_starts_again_each_time_the_hub_is_named() {
        let naming = HubNaming::new();
        assert_eq!(naming.note_naming(true), None);
        assert_eq!(naming.note_naming(false), Some(Duration::ZERO));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(naming.note_naming(false), Some(Duration::from_secs(5)));
        assert!(!naming.recall());
        assert_eq!(naming.note_naming(false), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_hub_that_is_named_again_is_like_a_new_hub() {
        let naming = HubNaming::new();
        naming.name_by_default();
        tokio::time::advance(Duration::from_secs(5)).await;
        naming.remove();
        assert!(naming.is_removed() && !naming.is_of_default());
        assert!(naming.recall() && !naming.is_removed());
        assert_eq!(naming.registered_at().elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn first_links_are_awaited_until_one_is_open_and_never_for_long() {
        let (linked, never) = (HubNaming::new(), HubNaming::new());
        for naming in [&linked, &never] {
            naming.await_links();
            assert!(naming.is_awaited());
        }
        linked.note_link();
        assert!(!linked.is_awaited() && never.is_awaited());
        tokio::time::advance(FIRST_LINKS_TIMEOUT).await;
        assert!(!never.is_awaited());
    }

    #[test]
    fn escapes_are_decoded_once_except_those_of_slashes() {
        for (path, expected) in [
            ("/bench", "/bench"),
            ("/b%65nch", "/bench"),
            ("/%7Eann%40home", "/~ann@home"),
            ("/caf%C3%A9", "/café"),
            ("/a%2Fb%2fc", "/a%2Fb%2fc"),
            ("/b%2565nch", "/b%65nch"),
            ("/%ff", "/%ff"),
            ("/100%", "/100%"),
        ] {
            assert_eq!(decode_path(path), expected, "{path}");
        }
    }
}
