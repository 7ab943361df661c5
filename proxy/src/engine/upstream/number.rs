//! Numbers of hubs, app servers and links, used as table keys.

use std::sync::atomic::{AtomicU64, Ordering};

/// Index of a hub in tables, reused long after the hub was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HubIndex(pub(super) u32);

/// Number of an app server instance, never reused in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AppServerId(pub(super) u32);

/// Number of a link for the lifetime of its session, never reused in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinkId(u64);

static NEXT_LINK: AtomicU64 = AtomicU64::new(1);

impl LinkId {
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
    /// No app server: for a client without a home.
    pub(crate) const NONE: Self = Self(u32::MAX);
    /// Another node as the sender. Never a client's home.
    pub(crate) const OTHER_NODE: Self = Self(u32::MAX - 1);
}

impl From<u32> for AppServerId {
    fn from(id: u32) -> Self {
        Self(id)
    }
}
