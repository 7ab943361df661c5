//! Dispatcher of one raw endpoint: connections come and go, and each has a task that runs the handler.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::{CloseConnection, ConnectionData, OpenConnection, RawKind};

use super::raw_connection::RawConnection;
use super::raw_handler::ServeFuture;
use super::raw_inbox::RawInbox;
use super::raw_message::RawMessage;
use crate::connection::{ConnectRequest, ConnectionClose, Limits, LinkId, short};
use crate::dispatch::panic_error;
use crate::endpoint::Endpoint;
use crate::node::Node;
use crate::outbound::{ID_IN_USE, Outbound};
use crate::sync::lock;

/// The handler with its types erased and its state bound.
pub(crate) type RawServe = dyn Fn(RawConnection) -> ServeFuture + Send + Sync;

/// One raw connection, as its endpoint knows it.
#[derive(Debug)]
pub(super) struct RawClient {
    pub(super) request: ConnectRequest,
    pub(super) node: Arc<Node>,
    /// Fires when the connection closes.
    pub(super) cancellation: CancellationToken,
    home: LinkId,
    inbox: Mutex<RawInbox>,
}

/// Runs the handler of one raw endpoint for each of its clients.
pub(crate) struct RawDispatcher {
    pub(crate) outbound: Arc<Outbound>,
    limits: Limits,
    serve: Arc<RawServe>,
    /// The caller that removes a connection is the one that closes it.
    clients: Mutex<HashMap<ByteString, Arc<RawClient>>>,
    tasks: TaskTracker,
}

impl RawDispatcher {
    pub(crate) fn new(outbound: Outbound, limits: Limits, serve: Arc<RawServe>, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self { outbound: Arc::new(outbound), limits, serve, clients: Mutex::default(), tasks })
    }

    /// Closes a connection from this side, once. What waits in its inbox is dropped.
    pub(super) fn close(&self, client: &Arc<RawClient>, error: Option<ByteString>) {
        let cause = if error.is_some() { Cause::AppError } else { Cause::AppClosed };
        let close = ConnectionClose { cause, error };
        if self.remove(client, &close) {
            self.outbound.close_at_proxy(&client.node, client.request.shared_id(), cause, close.error);
            client.close(RawInbox::discard);
        }
    }

    pub(super) fn poll_next(&self, client: &RawClient, cx: &Context<'_>) -> Poll<Option<RawMessage>> {
        let mut inbox = lock(&client.inbox);
        let next = inbox.poll_next(cx);
        self.apply_flow_control(client, &mut inbox);
        next
    }

    /// Drops what waits for a handler that has dropped its connection.
    pub(super) fn stop_reading(&self, client: &RawClient) {
        let mut inbox = lock(&client.inbox);
        inbox.discard();
        self.apply_flow_control(client, &mut inbox);
    }

    /// Runs the handler, and closes the connection when it returns.
    async fn run(self: Arc<Self>, client: Arc<RawClient>) {
        let connection = RawConnection::new(Arc::clone(&client), Arc::clone(&self));
        // A panic hurts nobody else.
        let serving = AssertUnwindSafe(async { (self.serve)(connection).await }).catch_unwind();
        let served = serving.await.unwrap_or_else(|panic| Err(panic_error(&*panic)));
        let is_closed = client.cancellation.is_cancelled();
        let error = served.err().map(|error| {
            let (hub, connection) = (&*self.outbound.name, short(client.request.id()));
            if is_closed {
                // Most often a send that came too late.
                tracing::debug!(hub, connection, ?error, "handler failed after its connection had ended");
            } else {
                tracing::error!(hub, connection, ?error, "handler failed");
            }
            ByteString::from(error.to_string())
        });
        self.close(&client, error);
    }

    /// Closes a connection that its client has left; what it sent can still be received.
    fn handle_closed(&self, client: &Arc<RawClient>, close: &ConnectionClose) {
        if self.remove(client, close) {
            client.close(RawInbox::close);
        }
    }

    /// Asks the proxy to pause or resume the client, if that is due. Called with the inbox under its lock, or a later
    /// request could overtake an earlier one.
    fn apply_flow_control(&self, client: &RawClient, inbox: &mut RawInbox) {
        // A client that has left needs no pause.
        if !client.cancellation.is_cancelled()
            && let Some(operation) = inbox.poll_flow(&self.limits)
        {
            self.outbound.control_flow(&client.node, client.request.shared_id(), operation);
        }
    }

    fn get(&self, id: &str) -> Option<Arc<RawClient>> {
        lock(&self.clients).get(id).map(Arc::clone)
    }

    /// Removes this very connection. Returns `false` if it is not here any more.
    fn remove(&self, client: &Arc<RawClient>, close: &ConnectionClose) -> bool {
        let mut clients = lock(&self.clients);
        let is_here = clients.get(client.request.id()).is_some_and(|present| Arc::ptr_eq(present, client));
        if is_here {
            clients.remove(client.request.id());
            self.outbound.count_closed(client.request.id(), close);
        }
        is_here
    }

    /// Adds a connection. Fails with the present connection of the same id, which stays.
    fn insert(&self, client: &Arc<RawClient>) -> Result<(), Arc<RawClient>> {
        match lock(&self.clients).entry(client.request.shared_id()) {
            Entry::Occupied(present) => Err(Arc::clone(present.get())),
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::clone(client));
                self.outbound.metrics.connections.inc();
                self.outbound.metrics.opened.inc();
                Ok(())
            }
        }
    }
}

impl RawClient {
    fn close(&self, close_inbox: impl FnOnce(&mut RawInbox) -> Option<Waker>) {
        self.cancellation.cancel();
        let waker = close_inbox(&mut lock(&self.inbox));
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Endpoint for Arc<RawDispatcher> {
    fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    fn handle_open(&self, home: LinkId, node: &Arc<Node>, body: &Bytes, message: OpenConnection) {
        let (request, inbox) = (ConnectRequest::new(body, &message), Mutex::default());
        let (node, cancellation) = (Arc::clone(node), CancellationToken::new());
        let client = Arc::new(RawClient { request, node, cancellation, home, inbox });
        if let Err(present) = self.insert(&client) {
            if !Arc::ptr_eq(&present.node, &client.node) {
                return self.outbound.refuse(&client.node, client.request.shared_id(), Cause::IdInUse, ID_IN_USE);
            }
            // The proxy opens an id anew when it knows that the old connection is gone.
            self.handle_closed(&present, &ConnectionClose::new(Cause::Superseded));
            if self.insert(&client).is_err() {
                return;
            }
        }
        tracing::debug!(hub = %self.outbound.name, connection = short(client.request.id()), "connection opened");
        self.tasks.spawn(Arc::clone(self).run(client));
    }

    fn handle_data(&self, data: ConnectionData) {
        let Some(client) = self.get(&data.connection_id) else { return };
        let message = RawMessage::new(RawKind::from_data_type(data.data_type), data.payload);
        let waker = {
            let mut inbox = lock(&client.inbox);
            let waker = inbox.push(message);
            self.apply_flow_control(&client, &mut inbox);
            waker
        };
        waker.into_iter().for_each(Waker::wake);
    }

    fn handle_close(&self, close: CloseConnection) {
        let Some(client) = self.get(&close.connection_id) else { return };
        self.handle_closed(&client, &ConnectionClose::from_frame(&close));
    }

    fn handle_link_ended(&self, link: LinkId, close: &ConnectionClose) {
        let at_home: Vec<_> =
            lock(&self.clients).values().filter(|client| client.home == link).map(Arc::clone).collect();
        at_home.iter().for_each(|client| self.handle_closed(client, close));
    }
}
