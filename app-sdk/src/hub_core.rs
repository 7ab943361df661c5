//! Core of one hub, shared by its dispatcher and the app's code: connections, proxies, pending results.
//!
//! ```text
//!            ┌─ Connections: client connections of this app server
//!            ├─ Outbound: the proxies and their queues; ClientPath: sends to one client
//!  HubCore ──┼─ Acks: pending acknowledgements
//!            └─ ClientResults: pending client results
//! ```
//!
//! Each part has its own lock, held for one step at a time. Ending a connection and notifying its proxy are one step.
//! Nothing here runs app code: a method returns `true` if its caller must start a worker for the connection's inbox.

mod acks;
mod client_path;
mod connections;
mod records;
mod result_requests;
mod result_wait;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Close, HubMessage, HubProtocol};
use trunkline_protocol::service::{ClientInvocation, DataType, FlowOperation, ServiceMessage};

use crate::connection::{CallScope, Connection, ConnectionClose, Inbox, Limits};
use crate::encode;
use crate::naming::{Codec, Naming};
use crate::node::Node;
use crate::outbound::Outbound;
use crate::sync::lock;

use acks::QueryLimit;
pub(crate) use acks::{Acks, WAITING_MAX, announce_shutdown, fence};
use client_path::connection_data;
pub(crate) use client_path::{ClientPath, NoRoom, WAITING_SENDS_MAX};
pub(crate) use connections::TakenOver;
use connections::{Connections, RecentIds, TakeOvers};
pub(crate) use records::Records;
pub(crate) use result_requests::{Addressee, ClientResult, NoResultReason, TooManyRequests};
use result_requests::{ClientResults, ID_PREFIX, Registered};
pub(crate) use result_wait::{ExpectedResult, InboxOverfull, ResultWait};

pub(crate) struct HubCore {
    pub(crate) instance: Arc<str>,
    pub(crate) protocols: Vec<HubProtocol>,
    pub(crate) naming: Naming,
    pub(crate) limits: Limits,
    pub(crate) outbound: Outbound,
    pub(crate) connections: Connections,
    pub(crate) acks: Acks,
    pub(crate) client_results: Mutex<ClientResults>,
    pub(crate) taken_over: TakeOvers,
    /// Set once any connection has begun reassignment; from then on pending results affect reassignments.
    has_reassignments: AtomicBool,
    /// IDs of the connections recently handed over to other app servers.
    pub(crate) reassigned: RecentIds,
    /// Limit of concurrent queries about groups and users.
    pub(crate) questions: QueryLimit,
    pub(crate) records: Records,
}

impl HubCore {
    pub(crate) fn new(
        instance: Arc<str>,
        protocols: Vec<HubProtocol>,
        naming: Naming,
        limits: Limits,
        records: Records,
        outbound: Outbound,
    ) -> Self {
        Self {
            connections: Connections::default(),
            acks: Acks::default(),
            client_results: Mutex::new(ClientResults::new(&instance, &limits)),
            taken_over: TakeOvers::default(),
            has_reassignments: AtomicBool::new(false),
            reassigned: RecentIds::default(),
            questions: QueryLimit::default(),
            records,
            instance,
            protocols,
            naming,
            limits,
            outbound,
        }
    }

    pub(crate) fn codec(&self, protocol: HubProtocol) -> Codec {
        Codec::new(protocol, self.naming)
    }

    pub(crate) fn name(&self) -> &str {
        &self.outbound.name
    }

    pub(crate) fn to<'a>(&'a self, connection: &'a Connection) -> ClientPath<'a> {
        ClientPath { outbound: &self.outbound, connection, limits: &self.limits }
    }

    pub(crate) fn handle_node_lost(&self, node: &Arc<Node>) {
        self.acks.fail_node(node);
        lock(&self.client_results).fail_node(node);
    }
}

impl HubCore {
    /// Closes a connection from this side, once: sends a hub close message, then the close. Discards its inbox.
    #[must_use = "a worker must be started"]
    pub(crate) fn close_connection(
        &self,
        connection: &Arc<Connection>,
        message: Close,
        close: ConnectionClose,
    ) -> bool {
        let payload = encode::message(connection.protocol, &HubMessage::Close(message));
        self.close_after(connection, payload, DataType::Close, close)
    }

    /// Closes a connection after its handshake failed, without a close message.
    #[must_use = "a worker must be started"]
    pub(crate) fn refuse_handshake(&self, connection: &Arc<Connection>, answer: Bytes) -> bool {
        let close = ConnectionClose::new(Cause::AppHandshakeRefused);
        self.close_after(connection, answer, DataType::Handshake, close)
    }

    /// Removes a connection that the other side has closed, once. The rest of its inbox is still processed.
    #[must_use = "a worker must be started"]
    pub(crate) fn handle_closed(&self, connection: &Arc<Connection>, close: ConnectionClose) -> bool {
        if !self.end_connection(connection, || ()) {
            return false;
        }
        self.outbound.count_closed(connection.id(), &close);
        connection.cancel();
        connection.inbox().close(close)
    }

    /// Removes a connection that another app server or link takes over, without closing it. Returns `false` if it is
    /// not on this app server.
    pub(crate) fn remove_reassigned(&self, connection: &Arc<Connection>) -> bool {
        self.end_reassigned(connection, || ())
    }

    /// Offers a connection and its items to its proxy for another app server; never waits. Returns `false` if it is
    /// not on this app server.
    pub(crate) fn give_away(&self, connection: &Arc<Connection>, node: &Node, items: Option<String>) -> bool {
        self.end_reassigned(connection, || self.outbound.hand_over(node, connection.shared_id(), items))
    }

    fn end_reassigned(&self, connection: &Arc<Connection>, tell: impl FnOnce()) -> bool {
        let was_here = self.end_connection(connection, tell);
        if was_here {
            self.outbound.metrics.connections.dec();
        }
        was_here
    }

    #[must_use = "a worker must be started"]
    pub(crate) fn abandon_calls(&self, connection: &Arc<Connection>) -> bool {
        // Before the cancellation: a send woken by it continues to the next app server.
        let is_due = connection.inbox().close_reassigned();
        connection.cancel();
        is_due
    }

    /// Ends a connection on this app server. Frames that waited for the end of a pause go ahead of the notification.
    fn end_connection(&self, connection: &Arc<Connection>, tell: impl FnOnce()) -> bool {
        self.connections.end_connection(connection, || {
            connection.home.end_pause();
            tell();
        })
    }

    /// Closes a raw connection from this side, once. Its proxy gets the error. Discards its inbox.
    #[must_use = "a worker must be started"]
    pub(crate) fn close_raw(&self, connection: &Arc<Connection>, close: ConnectionClose) -> bool {
        let (node, id, error) = (connection.node(), connection.shared_id(), close.error.clone());
        self.close_by([Outbound::close_of(&node, id, close.cause, error)], connection, close)
    }

    fn close_after(
        &self,
        connection: &Arc<Connection>,
        last_payload: Bytes,
        data_type: DataType,
        close: ConnectionClose,
    ) -> bool {
        let last = connection_data(connection, last_payload, data_type);
        let closing = Outbound::close_of(&connection.node(), connection.shared_id(), close.cause, None);
        self.close_by([last, closing], connection, close)
    }

    /// Closes a connection by the last messages to its proxy.
    fn close_by<const N: usize>(
        &self,
        messages: [ServiceMessage; N],
        connection: &Arc<Connection>,
        close: ConnectionClose,
    ) -> bool {
        let was_here = self.connections.end_connection(connection, || {
            if connection.home.keep_last(&messages.each_ref().map(ServiceMessage::to_frame)) {
                return self.connections.keep_tombstone(connection);
            }
            connection.home.end_pause();
            let node = connection.node();
            messages.iter().for_each(|message| self.outbound.control(&node, message));
        });
        if !was_here {
            return false;
        }
        self.outbound.count_closed(connection.id(), &close);
        connection.cancel();
        let mut inbox = connection.inbox();
        inbox.discard();
        inbox.close(close)
    }
}

impl HubCore {
    pub(crate) fn apply_flow_control(&self, connection: &Connection, inbox: &mut Inbox<CallScope>) {
        self.to(connection).apply_flow_control(inbox);
        if inbox.reassignment.has_begun()
            && connection.node().capabilities.supports_handovers
            && let Some(operation) = inbox.poll_reassignment(self.has_pending_result(connection.id()))
        {
            self.outbound.control_flow(&connection.node(), connection.shared_id(), operation);
        }
    }

    /// Begins the reassignment of a connection: its proxy stops reading from the client unless asked to continue.
    #[must_use = "a worker must be started"]
    pub(crate) fn begin_reassignment(&self, connection: &Connection) -> bool {
        self.has_reassignments.store(true, Ordering::Relaxed);
        connection.inbox().begin_reassignment()
    }

    /// Begins the reassignment of a connection if it has no running calls and no pending client result. Otherwise asks
    /// its proxy to continue reading from the client, and keeps the connection.
    #[must_use = "a worker must be started"]
    pub(crate) fn begin_idle_reassignment(&self, connection: &Connection) -> bool {
        let mut inbox = connection.inbox();
        if inbox.is_quiet() && !self.has_pending_result(connection.id()) {
            self.has_reassignments.store(true, Ordering::Relaxed);
            return inbox.begin_reassignment();
        }
        self.outbound.control_flow(&connection.node(), connection.shared_id(), FlowOperation::ReadOn);
        false
    }

    /// Advances the reassignment of a connection after a change of its pending results.
    #[must_use = "a worker must be started"]
    pub(crate) fn advance_reassignment(&self, connection: &Connection) -> bool {
        let mut inbox = connection.inbox();
        self.apply_flow_control(connection, &mut inbox);
        inbox.reassignment.has_begun() && inbox.start_reassignment(self.has_pending_result(connection.id()))
    }
}

impl HubCore {
    fn register_request(
        &self,
        connection_id: &ByteString,
        asked: Vec<Arc<Node>>,
    ) -> Result<Registered, TooManyRequests> {
        let registered = lock(&self.client_results).request(connection_id, asked)?;
        self.requests_changed(connection_id);
        Ok(registered)
    }

    pub(crate) fn has_pending_result(&self, connection_id: &str) -> bool {
        lock(&self.client_results).has_pending_result(connection_id, Instant::now())
    }

    fn remove_request(&self, id: &str, connection_id: &str) {
        lock(&self.client_results).forget(id);
        self.requests_changed(connection_id);
    }

    /// Updates whether the proxy keeps reading from a client that is about to be reassigned.
    fn requests_changed(&self, connection_id: &str) {
        if self.has_reassignments.load(Ordering::Relaxed)
            && let Some(connection) = self.connections.get(connection_id)
        {
            let mut inbox = connection.inbox();
            self.apply_flow_control(&connection, &mut inbox);
        }
    }

    /// Counts a result that matches no request. Completions of abandoned uploads are not counted.
    pub(crate) fn count_dropped_result(&self, id: &str) {
        if id.starts_with(ID_PREFIX) {
            self.outbound.metrics.client_results_dropped.inc();
        }
    }

    pub(crate) fn expect_result_for(&self, request: &ClientInvocation) -> Result<(), TooManyRequests> {
        lock(&self.client_results).request_for(request, Instant::now())?;
        self.requests_changed(&request.connection_id);
        Ok(())
    }
}
