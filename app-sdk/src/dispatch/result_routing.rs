//! Routing of client messages to running calls: upload items and ends, cancellations, and results, for local methods or
//! other app servers.

use std::sync::Arc;
use std::task::Waker;

use bytestring::ByteString;
use futures_util::future::BoxFuture;
use trunkline_protocol::hub::{CancelInvocation, Completion, HubMessage, HubProtocol, Outcome, next_frame};
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;
use trunkline_protocol::service::{ClientCompletion, ClientInvocation, ErrorCompletion, ServiceMessage};

use crate::connection::{Connection, UploadEnd, UploadItem, short};
use crate::encode;
use crate::error::text;
use crate::hub_core::{Addressee, ClientResult, HubCore, NoResultReason, TooManyRequests};
use crate::node::Node;
use crate::sync::lock;

pub(super) struct ResultRouter {
    core: Arc<HubCore>,
}

impl ResultRouter {
    pub(super) fn new(core: Arc<HubCore>) -> Self {
        Self { core }
    }

    /// Handles an upload item. Drops items of unknown streams.
    pub(super) fn handle_item(&self, connection: &Connection, id: &str, item: UploadItem) {
        let waiting = {
            let mut inbox = connection.inbox();
            let waiting = inbox.push_item(id, item, &self.core.limits);
            self.core.apply_flow_control(connection, &mut inbox);
            waiting
        };
        match waiting {
            Some(waiting) => waiting.into_iter().for_each(Waker::wake),
            None => tracing::debug!(hub = %self.core.name(), stream = id, "item of an unknown stream dropped"),
        }
    }

    /// Handles the end of an upload or a client result, which may have to wait.
    pub(super) fn handle_completion(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        completion: Completion,
    ) -> Option<BoxFuture<'static, ()>> {
        let end = match &completion.outcome {
            Outcome::Error(text) => UploadEnd::Failed(text.clone()),
            Outcome::Void | Outcome::Value(_) => UploadEnd::Complete,
        };
        let waiting = {
            let mut inbox = connection.inbox();
            let waiting = inbox.end_upload(&completion.invocation_id, end);
            self.core.apply_flow_control(connection, &mut inbox);
            waiting
        };
        let Some(waiting) = waiting else {
            let (router, connection) = (Arc::clone(self), Arc::clone(connection));
            return Some(Box::pin(async move { router.route_result(&connection, completion).await }));
        };
        waiting.into_iter().for_each(Waker::wake);
        None
    }

    pub(super) fn cancel(&self, connection: &Connection, cancel: &CancelInvocation) {
        let call = connection.inbox().calls().0.active(&cancel.invocation_id);
        match call {
            Some(call) => call.cancel(),
            None => {
                tracing::debug!(hub = %self.core.name(), id = %cancel.invocation_id, "call to cancel has already ended")
            }
        }
    }

    /// Registers another app server's request to a local client. The proxy has already sent it to the client.
    pub(super) fn register_request(&self, node: &Node, request: ClientInvocation) {
        let refuse = |error: ByteString| {
            let ClientInvocation { invocation_id, connection_id, caller_server_id, .. } = request.clone();
            self.refuse_request(node, ErrorCompletion { invocation_id, connection_id, caller_server_id, error });
        };
        let Some(connection) = self.core.connections.get(&request.connection_id) else {
            // The app server that has the client now forwards the result.
            if self.core.reassigned.contains(&request.connection_id) {
                return;
            }
            return refuse(text::disconnected(&request.connection_id).into());
        };
        match self.core.expect_result_for(&request) {
            Err(TooManyRequests) => refuse("too many pending client results".into()),
            // Checked again after registering the request: a concurrent close either fails the request or is visible
            // here.
            Ok(()) if !self.core.connections.contains(&connection) => {
                self.end_input(&connection);
            }
            Ok(()) => {}
        }
    }

    /// Delivers the result of another app server's client to the method that requested it.
    pub(super) fn route_remote_result(&self, completion: ClientCompletion) {
        let ClientCompletion { invocation_id, connection_id, protocol, payload, .. } = completion;
        let completion = HubProtocol::from_name(&protocol).and_then(|protocol| {
            let frame = next_frame(protocol, &payload, LINK_FRAME_MAX_BYTES).ok()??;
            match protocol.decode(&payload.slice(frame.body)) {
                Ok(Some(HubMessage::Completion(completion))) => Some((protocol, completion)),
                _ => None,
            }
        });
        let Some((protocol, completion)) = completion else {
            tracing::debug!(hub = %self.core.name(), id = %invocation_id, "a client's result can't be read");
            let refusal = ClientResult::Refused("its answer can't be read".into());
            return lock(&self.core.client_results).refuse(&invocation_id, &connection_id, refusal);
        };
        // The request's ID comes from the frame around the payload.
        let completion = Completion { invocation_id, ..completion };
        let other_addressee = self.complete(&connection_id, protocol, &completion);
        let (hub, id) = (self.core.name(), &completion.invocation_id);
        if other_addressee.is_some() {
            self.core.count_dropped_result(id);
        }
        tracing::debug!(hub, %id, ?other_addressee, "client result from another app server");
    }

    /// Delivers a refusal to the method that requested the result. A single proxy may just not have the client.
    pub(super) fn route_refusal(&self, node: &Arc<Node>, refusal: ErrorCompletion) {
        let ErrorCompletion { invocation_id, connection_id, error, .. } = refusal;
        let refusal = if *error == *text::does_not_exist(&connection_id) {
            return lock(&self.core.client_results).deny(&invocation_id, node);
        } else if *error == *text::disconnected(&connection_id) {
            ClientResult::Disconnected
        } else if *error == *text::leaving() {
            ClientResult::Leaving
        } else {
            ClientResult::Refused(error)
        };
        lock(&self.core.client_results).refuse(&invocation_id, &connection_id, refusal);
    }

    /// Delivers a completion that ends no upload to the requester of the result.
    async fn route_result(&self, connection: &Arc<Connection>, completion: Completion) {
        let protocol = connection.protocol;
        match self.complete(connection.id(), protocol, &completion) {
            None | Some(Addressee::Local(_)) => {}
            Some(Addressee::AppServer(app_server)) => self.forward(connection, app_server, completion).await,
            Some(Addressee::Unknown) => {
                let requester = lock(&self.core.client_results).requester_of(&completion.invocation_id);
                match requester.map(ByteString::from) {
                    // Requested when its client was elsewhere, or through an app server that is gone.
                    Some(app_server) => self.forward(connection, app_server, completion).await,
                    None => self.drop_result(connection, &completion, "completion dropped: no caller waits for it"),
                }
            }
            Some(Addressee::WrongClient) => {
                self.drop_result(connection, &completion, "completion dropped: the request went to another client");
            }
        }
    }

    /// Delivers a completion to the local method that waits for it. Returns any other addressee to the caller.
    fn complete(&self, connection_id: &str, protocol: HubProtocol, completion: &Completion) -> Option<Addressee> {
        let addressee = lock(&self.core.client_results).complete(&completion.invocation_id, connection_id);
        let Addressee::Local(sender) = addressee else { return Some(addressee) };
        // A method that has just stopped waiting needs no result.
        let _ = sender.send(ClientResult::Completed(protocol, completion.outcome.clone()));
        None
    }

    fn drop_result(&self, connection: &Connection, completion: &Completion, reason: &str) {
        self.core.count_dropped_result(&completion.invocation_id);
        let (hub, connection) = (self.core.name(), short(connection.id()));
        tracing::debug!(hub, connection, id = %completion.invocation_id, "{reason}");
    }

    fn abandon_requests(&self, connection: &Connection, reason: NoResultReason) {
        let abandoned = lock(&self.core.client_results).fail_connection(connection.id(), reason);
        for abandoned in abandoned {
            let refusal = ErrorCompletion {
                invocation_id: abandoned.id,
                connection_id: connection.shared_id(),
                caller_server_id: abandoned.app_server,
                error: match reason {
                    NoResultReason::Disconnected => text::disconnected(connection.id()).into(),
                    NoResultReason::Leaving => text::leaving().into(),
                },
            };
            self.refuse_request(&connection.node(), refusal);
        }
    }

    /// Ends the uploads and client result requests of a client that sends nothing more.
    ///
    /// A connection that continues elsewhere or over another link keeps its requests, because its client can still
    /// answer.
    pub(super) fn end_input(&self, connection: &Arc<Connection>) {
        let (goes_on, is_leaving) = {
            let inbox = connection.inbox();
            (inbox.reassignment.goes_on(), inbox.ends_with_app_server())
        };
        match (goes_on, is_leaving) {
            (_, true) => drop(self.end_waits(connection, NoResultReason::Leaving)),
            (true, false) => self.end_uploads(connection, &UploadEnd::ConnectionClosed),
            (false, false) => drop(self.end_waits(connection, NoResultReason::Disconnected)),
        }
    }

    /// Fails everything that waits for a client. Returns whether there was anything.
    pub(super) fn end_waits(&self, connection: &Arc<Connection>, reason: NoResultReason) -> bool {
        let end = match reason {
            NoResultReason::Leaving => UploadEnd::Leaving,
            NoResultReason::Disconnected => UploadEnd::ConnectionClosed,
        };
        let has_pending_result = self.core.has_pending_result(connection.id());
        let had_uploads = connection.inbox().calls().0.has_open_uploads();
        self.end_uploads(connection, &end);
        self.abandon_requests(connection, reason);
        had_uploads || has_pending_result
    }

    fn end_uploads(&self, connection: &Arc<Connection>, end: &UploadEnd) {
        let waiting = {
            let mut inbox = connection.inbox();
            let (calls, flow) = inbox.calls();
            calls.end_uploads(end, flow)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Fails everything that waits for a client in reassignment, if its proxy cannot keep reading from it.
    pub(super) fn give_up_unread(&self, connection: &Arc<Connection>) {
        if !connection.node().capabilities.supports_handovers && connection.inbox().reassignment.has_begun() {
            self.end_waits(connection, NoResultReason::Leaving);
        }
    }

    /// Notifies another app server that its request will not be answered; never waits.
    fn refuse_request(&self, node: &Node, refusal: ErrorCompletion) {
        self.core.outbound.control(node, &ServiceMessage::ErrorCompletion(refusal));
    }

    /// Sends a result to the app server that requested it; may wait like a completion.
    async fn forward(&self, connection: &Connection, app_server: ByteString, completion: Completion) {
        let Completion { invocation_id, outcome, .. } = completion;
        let protocol = connection.protocol;
        let result = ClientCompletion {
            invocation_id: invocation_id.clone(),
            connection_id: connection.shared_id(),
            caller_server_id: app_server,
            protocol: ByteString::from_static(protocol.name()),
            payload: encode::completion(protocol, Vec::new(), invocation_id, outcome),
        };
        let frame = ServiceMessage::ClientCompletion(result).to_frame();
        self.core.outbound.answer(&connection.node(), &frame).await;
    }
}
