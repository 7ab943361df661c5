//! Hub under test: the same at each app server of the fleet.

use std::sync::Arc;

use super::far_end::FarEnd;
use crate::server::LinkedHub;

/// Hub under test, with the far ends of its links.
#[derive(Debug)]
pub(super) struct TestHub {
    pub(super) path: String,
    pub(super) requires_user: bool,
    pub(super) far_end: Arc<FarEnd>,
    /// The hub at each app server, in the order of the links.
    pub(super) servers: Vec<LinkedHub>,
}
