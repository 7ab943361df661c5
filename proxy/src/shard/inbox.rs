//! Inbox of a shard: how other threads reach it. Its bytes are bounded.
//!
//! Waiting for room can't lock up: a shard's inbox is emptied by a task that never waits.

pub(super) mod client_stream;

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::OpenConnection;

use super::command::ShardCommand;
use super::slot::{Serial, Slot};
use crate::auth::{ClientTerms, RevocationMark};
use crate::limits::{AddressPermit, HeadWeight};
use crate::telemetry::ConnectionTrace;
use crate::upstream::{Hub, IncomingLink, Pool, ServerGroup};
use client_stream::ClientStream;

/// Limit of the bytes in one shard's inbox. Two of the largest frames fit, so that none can get stuck.
const INBOX_MAX_BYTES: u32 = 64 * 1024 * 1024;

/// Message for a shard.
#[derive(Debug)]
pub(crate) enum ShardMessage {
    Batch(CommandBatch),
    Accept(Box<PendingConnection>),
    /// Keeps the link of this slot open from now on.
    KeepLink(Arc<Pool>, usize),
    /// Serves the link that an app server has asked for.
    ServeLink(Box<IncomingLink>),
    Inspect(Inspection),
    /// Serves the clients that come by this listener. Sockets that bring something else are the app's.
    Listen(std::net::TcpListener, mpsc::Sender<AppSocket>),
}

/// Socket for the HTTP server of the app around this node.
#[derive(Debug)]
pub(crate) struct AppSocket {
    pub stream: std::net::TcpStream,
    pub peer: SocketAddr,
    /// Bytes of its first request that were read already.
    pub early: Bytes,
}

/// Inspection of a shard by another thread, or an operator's change.
///
/// The state lies above the inbox, which does not know its type: who makes an inspection does, and who runs it.
pub(crate) struct Inspection(Box<Inspect>);

type Inspect = dyn FnOnce(&mut dyn Any) + Send;

impl Inspection {
    /// Inspection of a state of this type.
    pub(super) fn of<S: 'static>(act: impl FnOnce(&mut S) + Send + 'static) -> Self {
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

/// Commands of one batch that another shard's link has read.
#[derive(Debug)]
pub(crate) struct CommandBatch {
    /// Commands, to be applied in this order.
    pub commands: Vec<ShardCommand>,
    /// Time at which they were read, if the shard wants to know.
    pub read_at: Option<Instant>,
    /// Room in the inbox; commands that are not counted take none.
    _room: Option<OwnedSemaphorePermit>,
}

/// Accepted connect request: a socket that is about to become a client connection.
#[derive(Debug)]
pub(crate) struct PendingConnection {
    /// `None` once its task has taken it.
    pub stream: Option<ClientStream>,
    pub transport: Transport,
    pub hub: Arc<Hub>,
    /// Opening frame; the hub protocol is not known yet.
    pub open: OpenConnection,
    /// A token names the connection id.
    pub is_negotiated: bool,
    /// User id, if authenticated.
    pub user: Option<String>,
    /// Permit of its address.
    pub permit: Option<Box<AddressPermit>>,
    /// Weight of its head, if that is large.
    pub head: Option<HeadWeight>,
    /// Time at which it closes, in seconds since 1970: with its token, where the hub wants that.
    pub expires_s: Option<u64>,
    /// Terms of its token, beside the settings of its hub.
    pub terms: ClientTerms,
    /// It has negotiated stateful reconnect.
    pub wants_stateful: bool,
    /// Revocations that had come when its token was verified; `None` where that was done for another connect.
    pub verified_at: Option<RevocationMark>,
    /// Lost connection whose groups and items it gets, if an app server keeps them.
    pub restores: Option<Box<LostConnection>>,
    /// Slot and serial of the open connection for which this is a new socket.
    pub claimed: Option<(Slot, Serial)>,
    /// Group of app servers that it is routed to; `None` for the default one.
    pub group: Option<Arc<ServerGroup>>,
    /// Trace that it belongs to, if it is sampled.
    pub trace: Option<Box<ConnectionTrace>>,
}

/// Connection that was lost, and whose client begins anew.
#[derive(Debug)]
pub(crate) struct LostConnection {
    pub id: ByteString,
    /// Its user, if the client gets it back with the rest.
    pub user: Option<LostUser>,
}

/// User of a lost connection.
#[derive(Debug)]
pub(crate) struct LostUser {
    pub id: Option<String>,
    /// Claims of the opening frame.
    pub claims: Vec<(ByteString, ByteString)>,
    /// Time at which the connection closes, in seconds since 1970.
    pub expires_s: Option<u64>,
}

/// The sending end of a shard's inbox.
#[derive(Debug, Clone)]
pub(crate) struct ShardSender {
    parcels: mpsc::UnboundedSender<ShardMessage>,
    room: Arc<Semaphore>,
    /// Whether a trace of the shard wants to know when batches were read.
    is_traced: Arc<AtomicBool>,
}

/// The receiving end of a shard's inbox.
pub(crate) type Inbox = mpsc::UnboundedReceiver<ShardMessage>;

impl ShardSender {
    #[must_use]
    pub(crate) fn new() -> (Self, Inbox) {
        let (parcels, inbox) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(INBOX_MAX_BYTES as usize));
        (Self { parcels, room, is_traced: Arc::default() }, inbox)
    }

    /// Sends commands of some `bytes` to the shard, once there is room. Cancelled, nothing was sent.
    pub(crate) async fn give(&self, commands: Vec<ShardCommand>, bytes: usize) {
        let read_at = self.is_traced.load(Ordering::Relaxed).then(Instant::now);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(INBOX_MAX_BYTES / 2);
        if let Ok(room) = self.room.clone().acquire_many_owned(bytes).await {
            self.put(ShardMessage::Batch(CommandBatch { commands, read_at, _room: Some(room) }));
        }
    }

    /// Says whether the shard wants to know when batches were read.
    pub(super) fn set_traced(&self, is_traced: bool) {
        self.is_traced.store(is_traced, Ordering::Relaxed);
    }

    /// Sends a command of the node itself, whose bytes are not counted.
    pub(super) fn order(&self, command: ShardCommand) {
        self.put(ShardMessage::Batch(CommandBatch { commands: vec![command], read_at: None, _room: None }));
    }

    /// Sends a message whose bytes are not counted: sockets bound the one kind, pools the other.
    pub(crate) fn put(&self, parcel: ShardMessage) {
        // Sending fails when the shard's thread is gone: the node is stopping, and no client is left.
        drop(self.parcels.send(parcel));
    }
}
