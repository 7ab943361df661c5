//! Reassignment of one raw connection.
//!
//! ```text
//!  its proxy stops reading, and asks ──► inbox is received ──► None ──► the handler returns
//!                                                     waiting sends ──► queued ──► handed over with its items
//! ```

use std::sync::Mutex;

use serde::Serialize;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio_util::sync::CancellationToken;
use trunkline_protocol::hub::HubProtocol;

use crate::call::rehomed::{self, ITEMS_MAX_BYTES};
use crate::error::HubError;
use crate::sync::lock;

/// Encoding of the items of raw connections, which have no hub protocol.
pub(super) const ITEMS_ENCODING: HubProtocol = HubProtocol::Json;

#[derive(Debug)]
pub(super) struct RawReassignment {
    /// Cancelled when the connection is about to be reassigned or closes.
    pub(super) leaving: CancellationToken,
    /// Locked for reading by each send and for writing by the reassignment, which therefore comes after all sends.
    way: RwLock<()>,
    items: Mutex<Option<String>>,
}

impl RawReassignment {
    pub(super) fn new(cancellation: &CancellationToken) -> Self {
        Self { leaving: cancellation.child_token(), way: RwLock::default(), items: Mutex::default() }
    }

    /// Delays a reassignment while a message is being queued.
    pub(super) async fn send(&self) -> RwLockReadGuard<'_, ()> {
        self.way.read().await
    }

    /// Waits until no message is being queued, and blocks further ones.
    pub(super) async fn block(&self) -> RwLockWriteGuard<'_, ()> {
        self.way.write().await
    }

    pub(super) fn set_items(&self, items: &impl Serialize) -> Result<(), HubError> {
        let items = ITEMS_ENCODING.payload(items).map_err(|error| HubError::invalid_data(error.to_string()))?;
        let wrapped = rehomed::wrap(&items).ok_or_else(|| {
            let length = items.as_bytes().len();
            HubError::new(format!(
                "the items have {length} bytes, but a connection is handed over with at most \
                                   {ITEMS_MAX_BYTES}"
            ))
        })?;
        *lock(&self.items) = Some(wrapped);
        Ok(())
    }

    pub(super) fn take_items(&self) -> Option<String> {
        lock(&self.items).take()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_reassignment_waits_for_begun_sends_and_blocks_later_ones() {
        let reassignment = RawReassignment::new(&CancellationToken::new());
        let sending = reassignment.send().await;
        let mut blocking = Box::pin(reassignment.block());
        assert!((&mut blocking).now_or_never().is_none());
        let mut late = Box::pin(reassignment.send());
        assert!((&mut late).now_or_never().is_none());
        drop(sending);
        let blocked = (&mut blocking).now_or_never().expect("nothing is being sent");
        assert!((&mut late).now_or_never().is_none());
        drop(blocked);
        assert!(late.now_or_never().is_some());
    }
}
