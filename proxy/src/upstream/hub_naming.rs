//! Naming of a hub: whether anybody names it, whether the start of the node waits for it, and since when nobody names
//! it.
//!
//! ```text
//!  named ──(no app server that is linked names it)──► unnamed ──(--hold-timeout)──► forgotten ──(nobody holds it)──► free
//!    ▲                                                   │                             │
//!    └────────────────────── named again ────────────────┴─────────────────────────────┘
//! ```
//!
//! A hub without links and clients is idle. A full table of hubs evicts idle hubs before their time.
//!
//! A forgotten hub is found by nobody, but keeps its index: what still holds it may end in peace. A free one gives its
//! index to the next hub that is learnt.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::auth::Signer;

/// Time in which a node that starts waits for the first links of each hub. A hub whose links never open would keep it
/// out of its balancer for ever, although it serves others.
const FIRST_LINKS_TIMEOUT: Duration = Duration::from_secs(10);

/// Naming of one hub.
#[derive(Debug)]
pub(super) struct HubNaming {
    /// An app server of the default group has named it.
    is_of_default: AtomicBool,
    is_forgotten: AtomicBool,
    /// The node served no hub when it was learnt, and it was not served since.
    is_awaited: AtomicBool,
    /// Signer of the token with which it was named when it was learnt.
    named_by: Mutex<Signer>,
    times: Mutex<NamingTimes>,
}

#[derive(Debug)]
struct NamingTimes {
    learnt_at: Instant,
    unnamed_since: Option<Instant>,
    /// Time since which it has neither links nor clients.
    idle_since: Option<Instant>,
}

impl HubNaming {
    pub(super) fn new() -> Self {
        Self {
            is_of_default: AtomicBool::new(false),
            is_forgotten: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            named_by: Mutex::default(),
            times: Mutex::new(NamingTimes { learnt_at: Instant::now(), unnamed_since: None, idle_since: None }),
        }
    }

    pub(super) fn is_of_default(&self) -> bool {
        self.is_of_default.load(Ordering::Relaxed)
    }

    pub(super) fn name_by_default(&self) {
        self.is_of_default.store(true, Ordering::Relaxed);
    }

    /// Whether it was a token by this signer that has named it.
    pub(super) fn is_by(&self, signer: &Signer) -> bool {
        *self.named_by.lock().unwrap_or_else(PoisonError::into_inner) == *signer
    }

    /// Notes who has signed the token that has named it.
    pub(super) fn name_by(&self, signer: &Signer) {
        *self.named_by.lock().unwrap_or_else(PoisonError::into_inner) = signer.clone();
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.is_forgotten.load(Ordering::Relaxed)
    }

    pub(super) fn learnt_at(&self) -> Instant {
        self.with_times(|times| times.learnt_at)
    }

    /// Has the start of the node wait for its first links.
    pub(super) fn await_links(&self) {
        self.is_awaited.store(true, Ordering::Relaxed);
    }

    /// Whether the start of the node waits for its first links still.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::Relaxed) && self.learnt_at().elapsed() < FIRST_LINKS_TIMEOUT
    }

    /// Notes that a link is open.
    pub(super) fn note_link(&self) {
        self.is_awaited.store(false, Ordering::Relaxed);
        self.recall();
    }

    /// Notes that it is named; `true` if it was forgotten.
    pub(super) fn recall(&self) -> bool {
        let was_forgotten = self.is_forgotten.swap(false, Ordering::Relaxed);
        self.with_times(|times| {
            (times.unnamed_since, times.idle_since) = (None, None);
            if was_forgotten {
                times.learnt_at = Instant::now();
            }
        });
        was_forgotten
    }

    /// Notes whether anybody names it now. Returns how long nobody has; `None` while somebody does.
    pub(super) fn note(&self, is_named: bool) -> Option<Duration> {
        self.with_times(|times| {
            times.unnamed_since = if is_named { None } else { times.unnamed_since.or_else(|| Some(Instant::now())) };
            times.unnamed_since.map(|since| since.elapsed())
        })
    }

    /// Notes whether it has links or clients now.
    pub(super) fn note_use(&self, is_used: bool) {
        self.with_times(|times| {
            times.idle_since = if is_used { None } else { times.idle_since.or_else(|| Some(Instant::now())) };
        });
    }

    /// Time since which it has neither links nor clients; `None` while it has some.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.with_times(|times| times.idle_since)
    }

    /// Forgets that anybody has named it.
    pub(super) fn forget(&self) {
        self.is_forgotten.store(true, Ordering::Relaxed);
        self.is_of_default.store(false, Ordering::Relaxed);
        self.is_awaited.store(false, Ordering::Relaxed);
    }

    fn with_times<T>(&self, act: impl FnOnce(&mut NamingTimes) -> T) -> T {
        act(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_without_a_name_begins_anew_whenever_somebody_names_it() {
        let naming = HubNaming::new();
        assert_eq!(naming.note(true), None);
        assert_eq!(naming.note(false), Some(Duration::ZERO));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(naming.note(false), Some(Duration::from_secs(5)));
        assert!(!naming.recall());
        assert_eq!(naming.note(false), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_forgotten_hub_that_comes_back_is_as_a_new_one() {
        let naming = HubNaming::new();
        naming.name_by_default();
        tokio::time::advance(Duration::from_secs(5)).await;
        naming.forget();
        assert!(naming.is_forgotten() && !naming.is_of_default());
        assert!(naming.recall() && !naming.is_forgotten());
        assert_eq!(naming.learnt_at().elapsed(), Duration::ZERO);
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
}
