//! Waits of methods for client results. Meanwhile, other calls of the client may run, and the client is read beyond the
//! usual inbox limit, because the result may be queued behind other messages.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, oneshot};

use super::HubCore;
use super::result_requests::{ClientResult, TooManyRequests};
use crate::connection::CallScope;
use crate::node::Node;

/// The inbox of the waiting method's client is overfull, so a result may never arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InboxOverfull;

/// A wait, which ends when dropped.
pub(crate) struct ResultWait<'a> {
    core: &'a HubCore,
    scope: &'a CallScope,
}

impl<'a> ResultWait<'a> {
    /// Begins a wait. Also returns a notification that fires when the inbox becomes overfull.
    pub(crate) fn begin_wait(core: &'a HubCore, scope: &'a CallScope) -> Result<(Self, OwnedNotified), InboxOverfull> {
        let connection = &scope.connection;
        let mut inbox = connection.inbox();
        if inbox.is_overfull(&core.limits) {
            return Err(InboxOverfull);
        }
        let (calls, flow) = inbox.calls();
        let overfull: Arc<Notify> = calls.begin_result_wait(flow);
        // Created under the lock, so that no later notification is missed.
        let overfull = overfull.notified_owned();
        let needs_worker = inbox.release_slot(&scope.state, &core.limits);
        core.apply_flow_control(connection, &mut inbox);
        drop(inbox);
        if needs_worker {
            scope.start_worker();
        }
        Ok((Self { core, scope }, overfull))
    }
}

impl Drop for ResultWait<'_> {
    fn drop(&mut self) {
        let connection = &self.scope.connection;
        let mut inbox = connection.inbox();
        let (calls, flow) = inbox.calls();
        calls.end_result_wait(flow);
        self.core.apply_flow_control(connection, &mut inbox);
    }
}

/// A pending client result. Dropping it removes the request.
pub(crate) struct ExpectedResult<'a> {
    core: &'a HubCore,
    connection_id: ByteString,
    pub(crate) id: ByteString,
    receiver: oneshot::Receiver<ClientResult>,
}

impl<'a> ExpectedResult<'a> {
    pub(crate) fn register(
        core: &'a HubCore,
        connection_id: &ByteString,
        asked: Vec<Arc<Node>>,
    ) -> Result<Self, TooManyRequests> {
        let (id, receiver) = core.register_request(connection_id, asked)?;
        Ok(Self { core, connection_id: connection_id.clone(), id, receiver })
    }

    pub(crate) async fn received(&mut self) -> ClientResult {
        // The sender is dropped only with the whole hub.
        (&mut self.receiver).await.unwrap_or(ClientResult::Disconnected)
    }
}

impl Drop for ExpectedResult<'_> {
    fn drop(&mut self) {
        self.core.remove_request(&self.id, &self.connection_id);
    }
}
