//! One client connection: its connect request, its location in the fleet, its inbox and its running calls.
//!
//! Most connections are idle, so they must be small: the connect request stays encoded, an empty inbox owns no memory,
//! and there is no task per connection.

mod call_state;
mod call_table;
mod connect_request;
mod connection_close;
mod flow_control;
mod home;
mod inbox;
mod input;
mod message_trace;
mod run_queue;
mod upload_table;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytestring::ByteString;
use http::Extensions;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::hub::HubProtocol;

use crate::node::Node;
use crate::sync::lock;

use call_state::CallState;
pub(crate) use call_state::{CallKind, Concurrency};
pub(crate) use call_table::{Admission, IncomingCall, ReplyKind};
#[cfg(test)]
pub(crate) use connect_request::tests::connect_request_of;
pub(crate) use connect_request::{ConnectRequest, forwarded_for};
pub(crate) use connection_close::ConnectionClose;
pub(crate) use flow_control::Limits;
pub(crate) use home::{Home, HomeEnd, LinkId};
pub(crate) use inbox::{ClientWindow, Inbox, WorkItem};

pub(crate) use message_trace::{MessageTrace, micros};
pub(crate) use run_queue::{RunQueue, TIME_SLICE};
pub(crate) use trunkline_protocol::id::short;
pub(crate) use upload_table::{UploadEnd, UploadEvent, UploadItem};

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) request: ConnectRequest,
    pub(crate) protocol: HubProtocol,
    pub(crate) home: Home,
    inbox: Mutex<Inbox<CallScope>>,
    /// Values that the app stores with the connection. Owns no memory while empty.
    items: Mutex<Extensions>,
    /// Created on demand, because most connections never need it.
    cancellation: OnceLock<CancellationToken>,
}

/// Claims from an authentication refresh, stored among the connection's items.
#[derive(Debug, Clone)]
struct RefreshedClaims(Vec<(String, String)>);

/// One run of app code for a connection: a method or a hook.
pub(crate) struct CallScope {
    pub(crate) connection: Arc<Connection>,
    workers: Arc<dyn StartWorker>,
    pub(crate) state: CallState,
    /// Values that filters store with the call. Owns no memory while empty.
    extensions: Mutex<Extensions>,
    cancellation: OnceLock<CancellationToken>,
    /// Trace of the message that started the call, if it is traced.
    trace: Option<Box<MessageTrace>>,
}

/// Starts the task that processes a connection's inbox, for app code that closes a connection or lets other calls run.
pub(crate) trait StartWorker: Send + Sync {
    fn start_worker(self: Arc<Self>, connection: Arc<Connection>);
}

impl Connection {
    pub(crate) fn new(request: ConnectRequest, protocol: HubProtocol, home: Home) -> Self {
        let request = if home.node().is_of_service() { request.of_service() } else { request };
        let (inbox, items) = (Mutex::default(), Mutex::default());
        Self { request, protocol, home, inbox, items, cancellation: OnceLock::new() }
    }

    /// Cancels the connection. For the caller that removed it from the registry.
    pub(crate) fn cancel(&self) {
        self.cancellation().cancel();
    }

    pub(crate) fn cancellation(&self) -> &CancellationToken {
        self.cancellation.get_or_init(CancellationToken::new)
    }

    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox<CallScope>> {
        lock(&self.inbox)
    }

    pub(crate) fn items(&self) -> MutexGuard<'_, Extensions> {
        lock(&self.items)
    }

    /// Takes the values that the app has stored.
    pub(crate) fn take_items(&self) -> Extensions {
        let mut items = std::mem::take(&mut *self.items());
        items.remove::<RefreshedClaims>();
        items
    }

    pub(crate) fn id(&self) -> &str {
        self.request.id()
    }

    pub(crate) fn shared_id(&self) -> ByteString {
        self.request.shared_id()
    }

    pub(crate) fn claims(&self) -> Vec<(String, String)> {
        let refreshed = self.items().get().map(|RefreshedClaims(claims)| claims.clone());
        refreshed.unwrap_or_else(|| self.request.claims())
    }

    pub(crate) fn refresh_claims(&self, claims: Vec<(ByteString, ByteString)>) {
        let claims = self.request.claims_of_user(&claims);
        self.items().insert(RefreshedClaims(claims));
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

    pub(crate) fn trace(&self) -> Option<&MessageTrace> {
        self.trace.as_deref()
    }

    /// Stores a value of a filter, for inner filters and the method.
    pub(crate) fn insert<T: Clone + Send + Sync + 'static>(&self, value: T) {
        lock(&self.extensions).insert(value);
    }

    pub(crate) fn value<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        lock(&self.extensions).get().cloned()
    }

    /// Whether the client cannot answer yet: its messages are read only after `on_connected`.
    pub(crate) fn is_connecting(&self) -> bool {
        self.state.kind == CallKind::ConnectHook && !self.connection.inbox().is_connected()
    }

    /// Cancelled when the client cancels the call or the connection closes.
    pub(crate) fn cancellation(&self) -> &CancellationToken {
        self.cancellation.get_or_init(|| self.connection.cancellation().child_token())
    }

    pub(crate) fn cancel(&self) {
        self.cancellation().cancel();
    }

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
