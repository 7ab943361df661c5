//! Links between proxies and this app server: which upgrade gets which session, and where its frames go.
//!
//! ```text
//!  upgrade ──► Slots: judge it ──► handshake ──► LinkReadLoop ──► EndpointSink ──► Endpoint (opens, data, closes)
//!  (headers)   (ends an older       (we speak      LinkWriteLoop ◄── LinkOutbox of the session
//!               socket first)        first)        both until the socket ends; the session lives on
//! ```
//!
//! A service is dialled instead ([`dial`](crate::dial)); its server connections have the same sessions, which end with their
//! sockets.
//!
//! Sockets, handshake, outbox, reader and writer are [`trunkline_link`]'s, which proxies use, too.

mod app_socket;
mod attached;
mod endpoint_sink;
mod proxy_log;
mod session;
mod session_policy;
mod slots;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trunkline_link::{LinkOutbox, StopReason};
use trunkline_protocol::service::{Answer, Capabilities, Offer, Ping};

use crate::connection::LinkId;
use crate::endpoint::Endpoint;

pub(crate) use app_socket::{AppSocket, DialledSocket, DialledStream};
pub(crate) use attached::Attached;
pub(crate) use slots::{Refused, SlotKey, Slots};

/// A link over a WebSocket, or in memory; and its halves.
pub(crate) type LinkSocket = trunkline_link::LinkSocket<AppSocket>;
pub(crate) type LinkReader = trunkline_link::LinkReader<AppSocket>;
pub(crate) type LinkWriter = trunkline_link::LinkWriter<AppSocket>;

/// Handler of the pings of a service, beside those that keep a link alive.
pub(crate) trait ServicePings: Send + Sync {
    /// Handles a ping that a server connection has brought, whose answers go into its `outbox`.
    fn handle_ping(&self, link: LinkId, outbox: &LinkOutbox, ping: &Ping);
}

/// Service at the far end of a link that was dialled.
#[derive(Clone)]
pub(crate) struct Service {
    /// Name of the service, the same for all its server connections.
    pub(crate) name: Arc<str>,
    pub(crate) pings: Arc<dyn ServicePings>,
}

/// A link that a proxy asks for, or that was dialled.
pub(crate) struct Link {
    pub(crate) endpoint: Arc<dyn Endpoint>,
    pub(crate) key: SlotKey,
    /// Service that was dialled; `None` for a proxy.
    pub(crate) service: Option<Service>,
    pub(crate) slots: Arc<Slots>,
    /// Maximum bytes that a session keeps until the proxy acknowledges them.
    pub(crate) ring_max_bytes: usize,
    /// Capabilities of the proxy.
    pub(crate) capabilities: Capabilities,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Link {
    /// Begins or resumes the session that the proxy offers; without an offer one that ends with its socket.
    pub(crate) async fn attach(self, offer: Option<Offer>) -> Result<(Attached, Answer), Refused> {
        loop {
            let occupied = match self.slots.take(&self, offer.as_ref())? {
                slots::TakenSlot::Attached(attached, answer) => return Ok((attached, answer)),
                slots::TakenSlot::Occupied(session) => session,
            };
            occupied.stop(StopReason::Replaced);
            occupied.detached().await;
        }
    }

    /// Runs a link in memory until it ends. Nothing is lost there, so nothing is kept.
    pub(crate) async fn run(self, socket: LinkSocket) {
        // A refusal is told by dropping the socket.
        if let Ok((attached, _)) = self.attach(None).await {
            attached.run(socket).await;
        }
    }
}
