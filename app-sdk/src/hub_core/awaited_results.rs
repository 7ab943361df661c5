//! Results of clients that are awaited: by methods here, and by other app servers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_protocol::hub::{Completion, HubProtocol};
use trunkline_protocol::service::ClientInvocation;

use super::result_requests::{
    AbandonedRequest, Addressee, ClientResult, ClientResults, ClientSilence, Registered, TooManyRequests,
};
use crate::connection::Limits;
use crate::node::Node;
use crate::sync::lock;

/// Requests for results of the clients of one hub.
#[derive(Debug)]
pub(crate) struct AwaitedResults {
    requests: Mutex<ClientResults>,
    max: usize,
    timeout: Duration,
}

impl AwaitedResults {
    pub(super) fn new(instance: &str, limits: &Limits) -> Self {
        let requests = Mutex::new(ClientResults::new(instance));
        Self { requests, max: limits.client_results_max, timeout: limits.client_result_timeout }
    }

    /// Registers a request to a client that is here, or that one of the asked proxies may have.
    pub(super) fn request(
        &self,
        connection_id: &ByteString,
        asked: Vec<Arc<Node>>,
    ) -> Result<Registered, TooManyRequests> {
        lock(&self.requests).request(connection_id, asked, self.max)
    }

    /// Registers the request of another app server to a client that is here.
    pub(super) fn request_for(&self, request: &ClientInvocation) -> Result<(), TooManyRequests> {
        let ClientInvocation { invocation_id, connection_id, caller_server_id, .. } = request;
        let (app_server, id) = (caller_server_id.clone(), invocation_id.clone());
        lock(&self.requests).request_for(app_server, id, connection_id.clone(), self.max, Instant::now())
    }

    /// Forgets a request that nobody waits for any more.
    pub(super) fn forget(&self, id: &str) {
        lock(&self.requests).forget(id);
    }

    /// Whether a result of this connection is waited for.
    pub(crate) fn is_asked(&self, connection_id: &str) -> bool {
        lock(&self.requests).is_asked(connection_id, self.timeout, Instant::now())
    }

    /// The other app server that has asked a question of this id.
    pub(crate) fn requester_of<'a>(&self, id: &'a str) -> Option<&'a str> {
        lock(&self.requests).requester_of(id)
    }

    /// Passes a client's completion on to the method here that waits for it; the caller handles other addressees.
    pub(crate) fn complete(
        &self,
        connection_id: &str,
        protocol: HubProtocol,
        completion: &Completion,
    ) -> Option<Addressee> {
        let addressee = lock(&self.requests).complete(&completion.invocation_id, connection_id);
        let Addressee::Local(sender) = addressee else { return Some(addressee) };
        // A method that has stopped waiting in this moment wants no result.
        let _ = sender.send(ClientResult::Completed(protocol, completion.outcome.clone()));
        None
    }

    /// Notes that a proxy does not have the client that a request is for.
    pub(crate) fn deny(&self, invocation_id: &str, node: &Arc<Node>) {
        lock(&self.requests).deny(invocation_id, node);
    }

    /// Fails a request of a method here.
    pub(crate) fn refuse(&self, invocation_id: &str, connection_id: &str, refusal: ClientResult) {
        lock(&self.requests).refuse(invocation_id, connection_id, refusal);
    }

    /// Fails the requests to a connection that gives no results here any more. Returns those of other app servers,
    /// which must be told.
    pub(crate) fn fail_connection(&self, connection_id: &str, silence: ClientSilence) -> Vec<AbandonedRequest> {
        lock(&self.requests).fail_connection(connection_id, silence)
    }

    /// Fails the requests to a proxy that has no links any more.
    pub(super) fn fail_node(&self, node: &Arc<Node>) {
        lock(&self.requests).fail_node(node);
    }

    /// Number of requests that are open.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.requests).len()
    }
}
