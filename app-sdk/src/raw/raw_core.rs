//! Core of one raw endpoint, shared by its dispatcher and by the app's handles: its clients and their inboxes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytestring::ByteString;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::cause::Cause;

use super::raw_inbox::RawInbox;
use super::raw_message::RawMessage;
use crate::connection::{ConnectRequest, ConnectionClose, Limits, LinkId};
use crate::node::Node;
use crate::outbound::Outbound;
use crate::sync::lock;

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

/// Clients of one raw endpoint, and its outbound side.
pub(super) struct RawCore {
    pub(super) outbound: Arc<Outbound>,
    limits: Limits,
    /// The caller that removes a connection is the one that closes it.
    clients: Mutex<HashMap<ByteString, Arc<RawClient>>>,
}

impl RawCore {
    pub(super) fn new(outbound: Outbound, limits: Limits) -> Self {
        Self { outbound: Arc::new(outbound), limits, clients: Mutex::default() }
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

    /// Adds a message of the client to its inbox.
    pub(super) fn receive(&self, client: &RawClient, message: RawMessage) {
        let waker = {
            let mut inbox = lock(&client.inbox);
            let waker = inbox.push(message);
            self.apply_flow_control(client, &mut inbox);
            waker
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Closes a connection that its client has left; what it sent can still be received.
    pub(super) fn handle_closed(&self, client: &Arc<RawClient>, close: &ConnectionClose) {
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

    pub(super) fn get(&self, id: &str) -> Option<Arc<RawClient>> {
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
    pub(super) fn insert(&self, client: &Arc<RawClient>) -> Result<(), Arc<RawClient>> {
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

    pub(super) fn at_home(&self, link: LinkId) -> Vec<Arc<RawClient>> {
        lock(&self.clients).values().filter(|client| client.home == link).map(Arc::clone).collect()
    }
}

impl RawClient {
    pub(super) fn new(request: ConnectRequest, node: Arc<Node>, home: LinkId) -> Self {
        Self { request, node, cancellation: CancellationToken::new(), home, inbox: Mutex::default() }
    }

    fn close(&self, close_inbox: impl FnOnce(&mut RawInbox) -> Option<Waker>) {
        self.cancellation.cancel();
        let waker = close_inbox(&mut lock(&self.inbox));
        waker.into_iter().for_each(Waker::wake);
    }
}
