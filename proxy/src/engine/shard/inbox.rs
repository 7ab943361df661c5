//! Inbox of a shard, through which other threads reach the shard. Its bytes are bounded.
//!
//! Waiting for room can't deadlock, because a non-blocking task empties each inbox.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::OpenConnection;

use super::command::ShardCommand;
use super::shared::seams::RevocationMark;
use super::slot::{Serial, Slot};
use crate::engine::transport::http_transport::InnerHalf;
use crate::engine::upstream::{Hub, IncomingLink, Pool, ServerGroup};
use crate::ground::auth::ClientTerms;
use crate::ground::bounded::Turn;
use crate::ground::limits::{ClientPermit, HeadWeight};
use crate::ground::telemetry::ConnectionTrace;

/// Maximum bytes in one shard's inbox. Two of the largest frames fit, so that none can get stuck.
const INBOX_MAX_BYTES: u32 = 64 * 1024 * 1024;

#[derive(Debug)]
pub(crate) enum ShardMessage {
    Batch(CommandBatch),
    Accept(Box<PendingConnection>),
    /// Keeps the link in this slot open.
    KeepLink(Arc<Pool>, usize),
    ServeLink(Box<IncomingLink>),
    Inspect(Inspection),
    /// Serves the clients of this listener. Other sockets go to the app.
    Listen(std::net::TcpListener, mpsc::Sender<AppSocket>),
}

/// Socket for the HTTP server of the app that embeds this node.
#[derive(Debug)]
pub(crate) struct AppSocket {
    pub stream: std::net::TcpStream,
    pub peer: SocketAddr,
    /// Bytes of its first request that were already read.
    pub early: Bytes,
}

/// Access to a shard from another thread: an inspection or an operator's change.
///
/// Type-erased, because the state is in a layer above the inbox.
pub(crate) struct Inspection(Box<Inspect>);

type Inspect = dyn FnOnce(&mut dyn Any) + Send;

impl Inspection {
    /// Wraps an inspection of a state of this type.
    pub(super) fn boxed<S: 'static>(act: impl FnOnce(&mut S) + Send + 'static) -> Self {
        Self(Box::new(move |state| {
            let state = state.downcast_mut();
            debug_assert!(state.is_some(), "an inspection is of the state of its shard");
            if let Some(state) = state {
                act(state);
            }
        }))
    }

    pub(super) fn run(self, state: &mut impl Any) {
        (self.0)(state);
    }
}

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inspection")
    }
}

/// Commands of one batch read by another shard's link.
#[derive(Debug)]
pub(crate) struct CommandBatch {
    pub commands: Vec<ShardCommand>,
    /// Read time, if the shard needs it.
    pub read_at: Option<Instant>,
    /// Reserved inbox bytes; `None` for commands that are not counted.
    pub(super) _room: Option<OwnedSemaphorePermit>,
    /// Turn of the sender, if several are busy.
    pub(crate) turn: Option<Arc<Turn>>,
}

/// Accepted connect request, about to become a client connection.
#[derive(Debug)]
pub(crate) struct PendingConnection {
    /// `None` once its task has taken it.
    pub stream: Option<ClientStream>,
    pub transport: Transport,
    pub hub: Arc<Hub>,
    /// Opening frame, without the hub protocol, which is still unknown.
    pub open: OpenConnection,
    /// Set if a token contains the connection id.
    pub is_negotiated: bool,
    pub user: Option<String>,
    pub permit: Option<Box<ClientPermit>>,
    pub head: Option<HeadWeight>,
    /// Close time in seconds since 1970, if the hub closes connections with their token.
    pub expires_s: Option<u64>,
    /// Terms of the token, in addition to the hub's settings.
    pub terms: ClientTerms,
    /// Set if the client negotiated stateful reconnect.
    pub wants_stateful: bool,
    /// Set if the WebSocket negotiated compression.
    pub is_compressed: bool,
    /// Revocation mark when the token was verified; `None` if that happened in another connect request.
    pub verified_at: Option<RevocationMark>,
    /// Slot and serial of the open connection that resumes over this socket.
    pub claimed: Option<(Slot, Serial)>,
    /// Server group that the route selects; `None` for the default group.
    pub group: Option<Arc<ServerGroup>>,
    pub trace: Option<Box<ConnectionTrace>>,
}

/// Sending half of a shard's inbox.
#[derive(Debug, Clone)]
pub(crate) struct ShardSender {
    parcels: mpsc::UnboundedSender<ShardMessage>,
    room: Arc<Semaphore>,
    /// Whether the shard needs the read times of batches.
    is_traced: Arc<AtomicBool>,
}

pub(crate) type Inbox = mpsc::UnboundedReceiver<ShardMessage>;

impl ShardSender {
    pub(crate) fn new() -> (Self, Inbox) {
        let (parcels, inbox) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(INBOX_MAX_BYTES as usize));
        (Self { parcels, room, is_traced: Arc::default() }, inbox)
    }

    /// Sends commands of about `bytes` bytes once there is room. Cancel-safe: a cancelled call sends nothing.
    pub(crate) async fn give(&self, commands: Vec<ShardCommand>, bytes: usize) {
        self.give_in_turn(commands, bytes, None).await;
    }

    /// Sends commands as a part of the sender's turn.
    pub(crate) async fn give_in_turn(&self, commands: Vec<ShardCommand>, bytes: usize, turn: Option<Arc<Turn>>) {
        let read_at = self.is_traced.load(Ordering::Relaxed).then(Instant::now);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(INBOX_MAX_BYTES / 2);
        if let Ok(room) = self.room.clone().acquire_many_owned(bytes).await {
            self.put(ShardMessage::Batch(CommandBatch { commands, read_at, _room: Some(room), turn }));
        }
    }

    pub(super) fn set_traced(&self, is_traced: bool) {
        self.is_traced.store(is_traced, Ordering::Relaxed);
    }

    /// Sends a command of the node itself, which is not counted.
    pub(crate) fn order(&self, command: ShardCommand) {
        self.put(ShardMessage::Batch(CommandBatch { commands: vec![command], read_at: None, _room: None, turn: None }));
    }

    /// Sends a message that is not counted. Sockets and pools bound their number.
    pub(crate) fn put(&self, parcel: ShardMessage) {
        // Fails when the shard's thread is gone: a stopping node has no clients.
        drop(self.parcels.send(parcel));
    }
}

/// Byte stream of a client before its connection is open.
#[derive(Debug)]
pub(crate) enum ClientStream {
    /// WebSocket with an upgrade in progress.
    Upgrade(OnUpgrade),
    /// WebSocket answered by this node's listener; the socket follows.
    Direct(oneshot::Receiver<UpgradedSocket>),
    /// Pipe to HTTP requests that carry the bytes.
    Pipe(InnerHalf),
    /// Event stream over plain HTTP/1.1: requests carry upstream data; the response's socket follows.
    EventStream(Box<(InnerHalf, oneshot::Receiver<TcpStream>)>),
}

/// Socket of a WebSocket, with bytes already read.
type UpgradedSocket = (TcpStream, Bytes);

/// Upgrade of a socket that is answered without an HTTP server, stored in the request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct DirectUpgrade(Arc<Mutex<Option<oneshot::Receiver<UpgradedSocket>>>>);

/// Sending half of a [`DirectUpgrade`], used once the response is sent.
#[derive(Debug)]
pub(crate) struct DirectUpgraded(oneshot::Sender<UpgradedSocket>);

impl DirectUpgrade {
    pub(crate) fn new() -> (Self, DirectUpgraded) {
        let (sender, receiver) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(receiver)))), DirectUpgraded(sender))
    }

    /// Takes the stream of the future socket.
    #[must_use]
    pub(crate) fn take_stream(&self) -> Option<ClientStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map(ClientStream::Direct)
    }
}

impl DirectUpgraded {
    /// Sends the socket, with bytes already read after the request. Closes the socket if the client was refused
    /// meanwhile.
    pub(crate) fn complete(self, stream: TcpStream, early: Bytes) {
        drop(self.0.send((stream, early)));
    }
}
