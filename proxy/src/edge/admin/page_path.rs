//! Path of the observer page and its API.

/// Path of the page, below the prefix never passed through to app servers.
pub(super) const PAGE_PATH: &str = "/.trunkline/observer";
