//! Path of the observer page and of the API that it uses.

/// Path of the page: below the prefix that no app server gets a client's request for.
pub(super) const PAGE_PATH: &str = "/.trunkline/observer";
