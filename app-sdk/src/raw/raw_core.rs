//! Core of one raw endpoint, shared by its dispatcher and the app's handles: its clients, their inboxes and their
//! reassignment.
//!
//! ```text
//!  its proxy stops reading, and asks ──► inbox is received ──► None ──► the handler returns
//!                                                     waiting sends ──► queued ──► handed over with its items
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytestring::ByteString;
use serde::Serialize;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio_util::sync::CancellationToken;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::service::DownMark;

use super::raw_inbox::{RawInbox, RawMessage};
use crate::call::{ITEMS_MAX_BYTES, encode_items};
use crate::connection::{ClientWindow, ConnectRequest, ConnectionClose, Limits, LinkId, WindowedClient, repeat_mark};
use crate::error::HubError;
use crate::hub_core::{Acks, announce_shutdown, fence};
use crate::node::Node;
use crate::outbound::Outbound;
use crate::sync::lock;

#[derive(Debug)]
pub(super) struct RawClient {
    pub(super) request: ConnectRequest,
    pub(super) node: Arc<Node>,
    pub(super) cancellation: CancellationToken,
    /// State for a reassignment; `None` if the endpoint's connections cannot move.
    pub(super) reassignment: Option<Box<RawReassignment>>,
    home: LinkId,
    inbox: Mutex<RawInbox>,
}

pub(crate) struct RawCore {
    pub(crate) outbound: Arc<Outbound>,
    limits: Limits,
    is_movable: bool,
    pub(super) acks: Acks,
    /// The caller that removes a connection closes it.
    clients: Mutex<HashMap<ByteString, Arc<RawClient>>>,
}

impl RawCore {
    pub(super) fn new(outbound: Outbound, limits: Limits, is_movable: bool) -> Self {
        let (acks, clients) = (Acks::default(), Mutex::default());
        Self { outbound: Arc::new(outbound), limits, is_movable, acks, clients }
    }

    pub(super) fn client(&self, request: ConnectRequest, node: Arc<Node>, home: LinkId) -> RawClient {
        let cancellation = CancellationToken::new();
        let reassignment = self.is_movable.then(|| Box::new(RawReassignment::new(&cancellation)));
        RawClient { request, node, cancellation, reassignment, home, inbox: Mutex::default() }
    }

    /// Closes a connection from this side, once, and drops its inbox.
    pub(super) fn close_client(&self, client: &Arc<RawClient>, error: Option<ByteString>) {
        let cause = if error.is_some() { Cause::AppError } else { Cause::AppClosed };
        let close = ConnectionClose { cause, error };
        let (node, id, error) = (&client.node, client.request.shared_id(), close.error.clone());
        if self.end_client(client, || self.outbound.close_at_proxy(node, id, cause, error)) {
            self.outbound.count_closed(client.request.id(), &close);
            client.close_with(RawInbox::discard);
        }
    }

    pub(super) fn poll_next(&self, client: &RawClient, cx: &Context<'_>) -> Poll<Option<RawMessage>> {
        let mut inbox = lock(&client.inbox);
        let next = inbox.poll_next(cx);
        self.apply_flow_control(client, &mut inbox);
        next
    }

    /// Drops the inbox of a handler that has dropped its connection.
    pub(super) fn stop_reading(&self, client: &RawClient) {
        let mut inbox = lock(&client.inbox);
        inbox.discard();
        self.apply_flow_control(client, &mut inbox);
    }

    pub(super) fn receive(&self, client: &RawClient, message: RawMessage) {
        let waker = {
            let mut inbox = lock(&client.inbox);
            let waker = inbox.push(message);
            self.apply_flow_control(client, &mut inbox);
            waker
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Closes a connection after its client has disconnected. Its messages can still be received.
    pub(super) fn handle_closed(&self, client: &Arc<RawClient>, close: &ConnectionClose) {
        if self.end_client(client, || ()) {
            self.outbound.count_closed(client.request.id(), close);
            client.close_with(RawInbox::close_inbox);
        }
    }

    /// Begins the reassignment of a connection. Its client's input has ended.
    pub(super) fn begin_reassignment(&self, client: &RawClient) {
        let Some(reassignment) = &client.reassignment else { return };
        let waker = lock(&client.inbox).begin_reassignment();
        reassignment.leaving.cancel();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Hands over a connection after its handler has returned, and after everything sent to its client.
    pub(super) async fn reassign(&self, client: &Arc<RawClient>, reassignment: &RawReassignment) {
        let _way = reassignment.block().await;
        let (node, id, items) = (&client.node, client.request.shared_id(), lock(&reassignment.items).take());
        if self.end_client(client, || self.outbound.hand_over(node, id, items)) {
            self.outbound.metrics.connections.dec();
            client.close_with(RawInbox::close_inbox);
        }
    }

    /// Ends a connection without an app server. Returns whether its handler must clean up after an earlier one.
    pub(super) fn end_unserved(&self, client: &Arc<RawClient>, close: &ConnectionClose) -> bool {
        // Its last link was lost while it was being handed over.
        if let Some(present) = self.get(client.request.id()) {
            self.handle_closed(&present, close);
            return false;
        }
        self.outbound.count_ended(client.request.id(), close);
        client.close_with(RawInbox::close_inbox);
        self.is_movable
    }

    pub(crate) async fn announce_shutdown(&self) {
        if self.is_movable {
            announce_shutdown(&self.outbound, &self.acks).await;
        }
    }

    /// Waits until all proxies have applied earlier frames.
    pub(crate) async fn fence(&self) {
        if self.is_movable {
            fence(&self.outbound, &self.acks).await;
        }
    }

    pub(crate) fn count_movable(&self) -> (usize, usize) {
        let clients = lock(&self.clients);
        match self.is_movable {
            true => (clients.len(), clients.values().filter(|client| client.is_leaving()).count()),
            false => (0, 0),
        }
    }

    pub(super) fn handle_down_done(&self, report: &DownMark) {
        if let Some(client) = self.get(&report.connection_id) {
            lock(&client.inbox).window.confirm(report.number);
        }
    }

    /// Resends marks that may have been lost with a link.
    pub(super) fn repeat_marks(&self) {
        if !self.outbound.has_sent_marks() {
            return;
        }
        let clients: Vec<_> = lock(&self.clients).values().map(Arc::clone).collect();
        clients.iter().for_each(|client| repeat_mark(&RawSends { outbound: &self.outbound, client }));
    }

    /// Sends a due pause or resume request. Must be called with the inbox locked, which keeps requests in order.
    fn apply_flow_control(&self, client: &RawClient, inbox: &mut RawInbox) {
        // A disconnected client needs no pause.
        if !client.cancellation.is_cancelled()
            && let Some(operation) = inbox.poll_flow(&self.limits)
        {
            self.outbound.control_flow(&client.node, client.request.shared_id(), operation);
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<RawClient>> {
        lock(&self.clients).get(id).map(Arc::clone)
    }

    /// Ends exactly this connection, and queues its notification in the same step: a shutdown can't overtake it.
    fn end_client(&self, client: &Arc<RawClient>, tell: impl FnOnce()) -> bool {
        let mut clients = lock(&self.clients);
        let is_here = clients.get(client.request.id()).is_some_and(|present| Arc::ptr_eq(present, client));
        if is_here {
            clients.remove(client.request.id());
            tell();
        }
        is_here
    }

    pub(super) fn insert(&self, client: &Arc<RawClient>) -> Result<(), Arc<RawClient>> {
        match lock(&self.clients).entry(client.request.shared_id()) {
            Entry::Occupied(present) => Err(Arc::clone(present.get())),
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::clone(client));
                self.outbound.metrics.connections.inc();
                match client.request.is_reassigned {
                    true => self.outbound.metrics.rehomed.inc(),
                    false => self.outbound.metrics.opened.inc(),
                };
                Ok(())
            }
        }
    }

    pub(super) fn at_home(&self, link: LinkId) -> Vec<Arc<RawClient>> {
        lock(&self.clients).values().filter(|client| client.home == link).map(Arc::clone).collect()
    }
}

pub(super) struct RawSends<'a> {
    pub(super) outbound: &'a Outbound,
    pub(super) client: &'a RawClient,
}

impl WindowedClient for RawSends<'_> {
    fn with_window<R>(&self, step: impl FnOnce(&mut ClientWindow) -> R) -> R {
        step(&mut lock(&self.client.inbox).window)
    }

    fn has_reports(&self) -> bool {
        self.client.node.capabilities.client_message_max_bytes.is_some()
    }

    fn send_mark(&self, number: i64) -> bool {
        let mark = DownMark { connection_id: self.client.request.shared_id(), number };
        self.outbound.mark(&self.client.node, mark);
        true
    }

    fn closed(&self) -> &CancellationToken {
        &self.client.cancellation
    }
}

impl RawClient {
    /// Whether it is about to continue on another app server.
    pub(super) fn is_leaving(&self) -> bool {
        !self.cancellation.is_cancelled() && lock(&self.inbox).is_leaving()
    }

    /// Returns the state of a due reassignment: the handler has read all input and has returned.
    pub(super) fn due_reassignment(&self) -> Option<&RawReassignment> {
        self.reassignment.as_deref().filter(|_| lock(&self.inbox).supports_reassignment())
    }

    fn close_with(&self, close_inbox: impl FnOnce(&mut RawInbox) -> Option<Waker>) {
        self.cancellation.cancel();
        let waker = close_inbox(&mut lock(&self.inbox));
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Encoding of the items of raw connections, which have no hub protocol.
pub(super) const ITEMS_ENCODING: HubProtocol = HubProtocol::Json;

/// Reassignment of one raw connection.
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
        let wrapped = encode_items(&items).ok_or_else(|| {
            let length = items.as_bytes().len();
            HubError::new(format!(
                "the items have {length} bytes, but a connection is handed over with at most \
                                   {ITEMS_MAX_BYTES}"
            ))
        })?;
        *lock(&self.items) = Some(wrapped);
        Ok(())
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
