//! Acts of operators: changes at all nodes of the fleet, ordered at any of them.
//!
//! ```text
//!  body ─► order, checked ─► shards of this node, other nodes ─► report: result, names of nodes without an answer
//! ```
//!
//! The audit log runs each act in a task of its own (`admin/audit.rs`), so a disconnecting caller can't interrupt it
//! halfway.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::api_error::ApiError;
use crate::fleet::{FleetEntry, NamedHub};

/// Maximum number of concurrent acts of a kind. A silent node delays one by some seconds.
const UNDER_WAY_MAX: usize = 32;

/// Limit of the acts of one kind; clones share it.
#[derive(Debug, Clone)]
pub(super) struct ActLimit {
    /// Plural noun for error texts.
    kind: &'static str,
    under_way: Arc<Semaphore>,
}

impl ActLimit {
    pub(super) fn new(kind: &'static str) -> Self {
        Self { kind, under_way: Arc::new(Semaphore::new(UNDER_WAY_MAX)) }
    }

    /// Takes a permit for an act, held while the act is in progress.
    pub(super) fn take(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let busy = |_| ApiError::busy(format!("{UNDER_WAY_MAX} {} are in progress, which is the limit", self.kind));
        self.under_way.clone().try_acquire_owned().map_err(busy)
    }
}

/// Finds the hub of an order. Fails if no node can have it.
pub(super) fn hub_of_order(fleet: &FleetEntry, name: &str) -> Result<NamedHub, ApiError> {
    let hub = fleet.hub_named(name);
    let is_possible = hub.here().is_some() || fleet.has_others();
    if is_possible { Ok(hub) } else { Err(ApiError::unknown_hub(Some(name))) }
}

/// Names of nodes without an answer, for a log line.
pub(super) fn silent(missing: &[String]) -> Option<String> {
    (!missing.is_empty()).then(|| missing.join(", "))
}
