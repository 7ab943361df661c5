//! Numbers of hubs, app servers and links, by which tables find them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Index of a hub in tables; used again long after nobody has named the hub any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HubIndex(pub(super) u32);

/// Number of an app server instance, never used again in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AppServerId(pub(super) u32);

/// Number of a link, for as long as its session lives; never used again in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinkId(u64);

static NEXT_LINK: AtomicU64 = AtomicU64::new(1);

impl LinkId {
    /// Number of a new link.
    pub(super) fn next() -> Self {
        Self(NEXT_LINK.fetch_add(1, Ordering::Relaxed))
    }
}

impl HubIndex {
    #[must_use]
    pub(crate) fn get(self) -> usize {
        self.0 as usize
    }
}

impl From<u32> for HubIndex {
    fn from(index: u32) -> Self {
        Self(index)
    }
}

impl Default for AppServerId {
    fn default() -> Self {
        Self::NONE
    }
}

impl AppServerId {
    /// No app server: of a client without a home.
    pub(crate) const NONE: Self = Self(u32::MAX);
    /// No app server either: of what other nodes send. No client is at home there.
    pub(crate) const OTHER_NODE: Self = Self(u32::MAX - 1);
}

impl From<u32> for AppServerId {
    fn from(id: u32) -> Self {
        Self(id)
    }
}
