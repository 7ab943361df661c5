//! Links between proxies and this app server: which upgrade gets which session, and where its frames go.
//!
//! ```text
//!  upgrade ──► Slots: judge it ──► handshake ──► LinkReadLoop ──► EndpointSink ──► Endpoint (opens, data, closes)
//!  (headers)   (ends an older       (we speak      LinkWriteLoop ◄── LinkOutbox of the session
//!               socket first)        first)        both until the socket ends; the session lives on
//! ```
//!
//! Sockets, handshake, outbox, reader and writer are [`trunkline_link`]'s, which proxies use, too.

mod attached;
mod endpoint_sink;
mod policy;
mod session;
mod slots;
mod starts;

use std::sync::Arc;

use axum::extract::ws::WebSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trunkline_link::StopReason;
use trunkline_protocol::service::{Answer, Capabilities, Offer};

use crate::endpoint::Endpoint;

pub(crate) use attached::Attached;
pub(crate) use slots::{Refused, SlotKey, Slots};

/// A link over axum's WebSockets, or in memory; and its halves.
pub(crate) type LinkSocket = trunkline_link::LinkSocket<WebSocket>;
pub(crate) type LinkReader = trunkline_link::LinkReader<WebSocket>;
pub(crate) type LinkWriter = trunkline_link::LinkWriter<WebSocket>;

/// A link that a proxy asks for.
pub(crate) struct Link {
    pub(crate) endpoint: Arc<dyn Endpoint>,
    pub(crate) key: SlotKey,
    pub(crate) slots: Arc<Slots>,
    /// Maximum bytes that a session keeps until the proxy acknowledges them.
    pub(crate) ring_max_bytes: usize,
    /// Capabilities of the proxy.
    pub(crate) proxy: Capabilities,
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
