//! One client connection: its connect request, its place in the fleet, its inbox, and the calls that run for it.
//!
//! There are many connections and most of them are idle, so each is small: the connect request stays encoded, the inbox
//! owns no memory while it is empty, and there is no task.

mod belongings;
mod call_state;
mod call_table;
mod client_gate;
mod client_window;
mod connect_request;
mod connection_close;
mod due_queue;
mod flow_control;
mod home;
mod inbox;
mod input;
mod limits;
mod message_trace;
mod reassignment;
mod upload_table;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytestring::ByteString;
use http::Extensions;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::hub::HubProtocol;

use crate::node::Node;
use crate::sync::lock;

pub(crate) use belongings::RestoredFrom;
use call_state::CallState;
pub(crate) use call_state::{CallKind, Concurrency};
pub(crate) use call_table::{Admission, IncomingCall, ReplyKind};
pub(crate) use client_gate::{NoRoom, WAITING_SENDS_MAX, WindowRoom, WindowedClient, repeat_mark, room, try_room};
pub(crate) use client_window::ClientWindow;
#[cfg(test)]
pub(crate) use connect_request::tests::connect_request_of;
pub(crate) use connect_request::{ConnectRequest, forwarded_for};
pub(crate) use connection_close::ConnectionClose;
pub(crate) use due_queue::{DueQueue, TURN};
pub(crate) use flow_control::FlowControl;
pub(crate) use home::{Home, HomeEnd, LinkId};
pub(crate) use inbox::{Inbox, WorkItem};
pub(crate) use input::{SLICE_MIN_BYTES, detached};
pub(crate) use limits::Limits;
pub(crate) use message_trace::{MessageTrace, micros};
pub(crate) use trunkline_protocol::id::short;
pub(crate) use upload_table::{UploadEnd, UploadEvent};

/// A client connection, as its hub knows it.
#[derive(Debug)]
pub(crate) struct Connection {
    request: ConnectRequest,
    protocol: HubProtocol,
    home: Home,
    inbox: Mutex<Inbox<CallScope>>,
    /// Values that the app keeps with the connection; they own no memory while there are none.
    items: Mutex<Extensions>,
    /// Made on demand: most connections never need one.
    cancellation: OnceLock<CancellationToken>,
}

/// Claims of a newer log-in, among the items of its connection.
#[derive(Debug, Clone)]
struct RefreshedClaims(Vec<(String, String)>);

/// One run of the app's code for a connection: a method or a hook.
pub(crate) struct CallScope {
    connection: Arc<Connection>,
    workers: Arc<dyn StartWorker>,
    state: CallState,
    /// Values that filters keep with the call; they own no memory while there are none.
    extensions: Mutex<Extensions>,
    /// Made on demand, as that of the connection.
    cancellation: OnceLock<CancellationToken>,
    /// Trace of the message that has called it, if one follows it.
    trace: Option<Box<MessageTrace>>,
}

/// Starts the task that works off a connection's inbox. The app's code needs it when it closes a connection, or lets
/// other calls run.
pub(crate) trait StartWorker: Send + Sync {
    fn start_worker(self: Arc<Self>, connection: Arc<Connection>);
}

impl Connection {
    pub(crate) fn new(request: ConnectRequest, protocol: HubProtocol, home: Home) -> Self {
        let request = if home.node().is_of_service() { request.of_service() } else { request };
        let (inbox, items) = (Mutex::default(), Mutex::default());
        Self { request, protocol, home, inbox, items, cancellation: OnceLock::new() }
    }

    /// Fires the cancellation; for the caller that took the connection out of the registry.
    pub(crate) fn cancel(&self) {
        self.cancellation().cancel();
    }

    /// Token that fires when the connection closes.
    pub(crate) fn cancellation(&self) -> &CancellationToken {
        self.cancellation.get_or_init(CancellationToken::new)
    }

    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox<CallScope>> {
        lock(&self.inbox)
    }

    pub(crate) fn items(&self) -> MutexGuard<'_, Extensions> {
        lock(&self.items)
    }

    /// Notes that the connection has joined a group, for its client to get that back.
    pub(crate) fn note_joined(&self, group: ByteString) {
        belongings::join(&mut self.items(), group);
    }

    /// Notes that the connection has left a group, or all.
    pub(crate) fn note_left(&self, group: Option<&str>) {
        belongings::leave(&mut self.items(), group);
    }

    /// Takes groups and items, which its client may get back.
    pub(crate) fn take_belongings(&self) -> (Vec<ByteString>, Extensions) {
        let mut items = std::mem::take(&mut *self.items());
        items.remove::<RestoredFrom>();
        items.remove::<RefreshedClaims>();
        (belongings::take_groups(&mut items), items)
    }

    pub(crate) fn id(&self) -> &str {
        self.request.id()
    }

    pub(crate) fn shared_id(&self) -> ByteString {
        self.request.shared_id()
    }

    pub(crate) fn request(&self) -> &ConnectRequest {
        &self.request
    }

    /// Claims of the user, of the newest log-in.
    pub(crate) fn claims(&self) -> Vec<(String, String)> {
        let refreshed = self.items().get().map(|RefreshedClaims(claims)| claims.clone());
        refreshed.unwrap_or_else(|| self.request.claims())
    }

    /// Takes the claims of a newer log-in.
    pub(crate) fn refresh_claims(&self, claims: Vec<(ByteString, ByteString)>) {
        let claims = self.request.claims_of_user(&claims);
        self.items().insert(RefreshedClaims(claims));
    }

    pub(crate) fn protocol(&self) -> HubProtocol {
        self.protocol
    }

    /// The link that carries the connection's upward frames, and the way of frames to the client.
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    pub(crate) fn node(&self) -> Arc<Node> {
        self.home.node()
    }
}

impl CallScope {
    pub(crate) fn new(
        connection: &Arc<Connection>,
        workers: Arc<dyn StartWorker>,
        kind: CallKind,
        invocation_id: Option<ByteString>,
        trace: Option<Box<MessageTrace>>,
    ) -> Arc<Self> {
        let (connection, state) = (Arc::clone(connection), CallState::new(kind, invocation_id));
        let (extensions, cancellation) = (Mutex::default(), OnceLock::new());
        Arc::new(Self { connection, workers, state, extensions, cancellation, trace })
    }

    /// Trace of the message that has called it, if one follows it.
    pub(crate) fn trace(&self) -> Option<&MessageTrace> {
        self.trace.as_deref()
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(crate) fn state(&self) -> &CallState {
        &self.state
    }

    pub(crate) fn invocation_id(&self) -> Option<&ByteString> {
        self.state.invocation_id()
    }

    /// Values that filters keep with the call.
    pub(crate) fn extensions(&self) -> MutexGuard<'_, Extensions> {
        lock(&self.extensions)
    }

    /// Whether the client can't answer: its messages are read only after `on_connected`.
    pub(crate) fn is_connecting(&self) -> bool {
        self.state.kind() == CallKind::ConnectHook && !self.connection.inbox().is_connected()
    }

    /// Token that fires when the client cancels the call, or the connection closes.
    pub(crate) fn cancellation(&self) -> &CancellationToken {
        self.cancellation.get_or_init(|| self.connection.cancellation().child_token())
    }

    /// Cancels the call for its client.
    pub(crate) fn cancel(&self) {
        self.cancellation().cancel();
    }

    /// Starts a worker for the connection.
    pub(crate) fn start_worker(&self) {
        Arc::clone(&self.workers).start_worker(Arc::clone(&self.connection));
    }
}

impl AsRef<CallState> for CallScope {
    fn as_ref(&self) -> &CallState {
        &self.state
    }
}

impl fmt::Debug for CallScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connection = short(self.connection.id());
        f.debug_struct("CallScope").field("connection", &connection).field("state", &self.state).finish_non_exhaustive()
    }
}
