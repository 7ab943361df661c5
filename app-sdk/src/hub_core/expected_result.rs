//! A client result to come: registered, awaited, and forgotten with its handle.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::sync::oneshot;

use super::HubCore;
use super::result_requests::{ClientResult, TooManyRequests};
use crate::node::Node;

/// A client result to come; its request is forgotten when this is dropped.
pub(crate) struct ExpectedResult<'a> {
    core: &'a HubCore,
    connection_id: ByteString,
    id: ByteString,
    receiver: oneshot::Receiver<ClientResult>,
}

impl<'a> ExpectedResult<'a> {
    /// Registers a request to a client: one that is here, or one that any of the asked proxies may have.
    pub(crate) fn register(
        core: &'a HubCore,
        connection_id: &ByteString,
        asked: Vec<Arc<Node>>,
    ) -> Result<Self, TooManyRequests> {
        let (id, receiver) = core.register_request(connection_id, asked)?;
        Ok(Self { core, connection_id: connection_id.clone(), id, receiver })
    }

    /// The id to ask with.
    pub(crate) fn id(&self) -> &ByteString {
        &self.id
    }

    /// Waits for the result.
    pub(crate) async fn received(&mut self) -> ClientResult {
        // The sender is dropped only with the whole hub.
        (&mut self.receiver).await.unwrap_or(ClientResult::Disconnected)
    }
}

impl Drop for ExpectedResult<'_> {
    fn drop(&mut self) {
        self.core.forget_request(&self.id, &self.connection_id);
    }
}
