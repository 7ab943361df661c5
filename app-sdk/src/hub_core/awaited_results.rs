//! Pending client results, requested by methods on this app server or by other app servers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_protocol::hub::{Completion, HubProtocol};
use trunkline_protocol::service::ClientInvocation;

use super::result_requests::{
    AbandonedRequest, Addressee, ClientResult, ClientResults, NoResultReason, Registered, TooManyRequests,
};
use crate::connection::Limits;
use crate::node::Node;
use crate::sync::lock;

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

    pub(super) fn request(
        &self,
        connection_id: &ByteString,
        asked: Vec<Arc<Node>>,
    ) -> Result<Registered, TooManyRequests> {
        lock(&self.requests).request(connection_id, asked, self.max)
    }

    pub(super) fn request_for(&self, request: &ClientInvocation) -> Result<(), TooManyRequests> {
        let ClientInvocation { invocation_id, connection_id, caller_server_id, .. } = request;
        let (app_server, id) = (caller_server_id.clone(), invocation_id.clone());
        lock(&self.requests).request_for(app_server, id, connection_id.clone(), self.max, Instant::now())
    }

    pub(super) fn forget(&self, id: &str) {
        lock(&self.requests).forget(id);
    }

    pub(crate) fn has_pending_result(&self, connection_id: &str) -> bool {
        lock(&self.requests).has_pending_result(connection_id, self.timeout, Instant::now())
    }

    pub(crate) fn requester_of<'a>(&self, id: &'a str) -> Option<&'a str> {
        lock(&self.requests).requester_of(id)
    }

    /// Delivers a completion to the local method that waits for it. Returns any other addressee to the caller.
    pub(crate) fn complete(
        &self,
        connection_id: &str,
        protocol: HubProtocol,
        completion: &Completion,
    ) -> Option<Addressee> {
        let addressee = lock(&self.requests).complete(&completion.invocation_id, connection_id);
        let Addressee::Local(sender) = addressee else { return Some(addressee) };
        // A method that has just stopped waiting needs no result.
        let _ = sender.send(ClientResult::Completed(protocol, completion.outcome.clone()));
        None
    }

    pub(crate) fn deny(&self, invocation_id: &str, node: &Arc<Node>) {
        lock(&self.requests).deny(invocation_id, node);
    }

    pub(crate) fn refuse(&self, invocation_id: &str, connection_id: &str, refusal: ClientResult) {
        lock(&self.requests).refuse(invocation_id, connection_id, refusal);
    }

    pub(crate) fn fail_connection(&self, connection_id: &str, reason: NoResultReason) -> Vec<AbandonedRequest> {
        lock(&self.requests).fail_connection(connection_id, reason)
    }

    pub(super) fn fail_node(&self, node: &Arc<Node>) {
        lock(&self.requests).fail_node(node);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.requests).len()
    }
}
