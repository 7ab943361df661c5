//! Links between proxies and this app server: WebSockets, or pieces of memory in one process.
//!
//! ```text
//!  upgrade ──► claim the slot ──► handshake ──► reader ──► Endpoint (opens, data, leavings)
//!  (headers)   (ends an older      (we speak      writer ◄── Outbox of the slot
//!               link first)         first)        both until one of them ends
//! ```

mod handshake;
mod reader;
mod slots;
mod socket;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::close_code;
use tokio_util::sync::CancellationToken;
use trunkline_protocol::service::{Counters, FrameError, ServiceMessageError, SessionError};

use crate::connection::{End, LinkId};
use crate::endpoint::Endpoint;
use crate::node::Outbox;
use crate::sync::lock;

pub(crate) use slots::{SlotKey, Slots};
pub(crate) use socket::LinkSocket;
use socket::{LinkReader, LinkWriter};

/// How long the end of a link may take to write what still waits.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
enum LinkEnd {
    #[error("the proxy closed it")]
    Closed,
    #[error("a newer link took its slot")]
    Replaced,
    #[error("this app server shuts down")]
    Shutdown,
    #[error("socket failed")]
    Socket(#[source] axum::Error),
    #[error("the proxy was silent for too long")]
    Silent,
    #[error("the proxy did not read for too long")]
    Stuck,
    #[error("the proxy did not answer the handshake in time")]
    HandshakeTimeout,
    #[error("the proxy refused the handshake: {0}")]
    HandshakeRefused(String),
    #[error("the proxy sent {0} before it answered the handshake")]
    HandshakeMissing(&'static str),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Message(#[from] ServiceMessageError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("a WebSocket message was text; links are binary")]
    Text,
}

/// What reader and writer of a link share.
struct Shared {
    outbox: Arc<Outbox>,
    counters: std::sync::Mutex<Counters>,
    started: tokio::time::Instant,
    /// Fires when the link is to end, whoever wants it.
    stop: CancellationToken,
}

impl Shared {
    /// The session's clock.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What a link is opened with.
pub(crate) struct Link {
    pub(crate) endpoint: Arc<dyn Endpoint>,
    pub(crate) key: SlotKey,
    pub(crate) slots: Arc<Slots>,
    pub(crate) outbox_max_bytes: usize,
    pub(crate) shutdown: CancellationToken,
}

impl Link {
    /// Runs the link until it ends.
    pub(crate) async fn run(self, mut socket: LinkSocket) {
        static LATEST: AtomicU64 = AtomicU64::new(0);
        let id = LinkId(LATEST.fetch_add(1, Ordering::Relaxed));
        let seat = self.slots.claim(self.key.clone(), self.shutdown.child_token()).await;
        let shaken = handshake::shake(&mut socket, &seat.stop).await;
        let LinkSocket { reader, mut writer } = socket;
        let end = match shaken {
            Ok(frames) => {
                let (end, returned) = self.carry(id, seat.stop.clone(), frames, reader, writer).await;
                let Some(returned) = returned else { return self.log(&end) };
                writer = returned;
                end
            }
            Err(end) => end,
        };
        self.log(&end);
        say_goodbye(writer, &end).await;
    }

    /// Reads and writes. Returns why it ended, and the writing half unless the writer hangs.
    async fn carry(
        &self,
        id: LinkId,
        stop: CancellationToken,
        frames: handshake::Frames,
        incoming: LinkReader,
        outgoing: LinkWriter,
    ) -> (LinkEnd, Option<LinkWriter>) {
        let SlotKey { node, boot, slot, .. } = &self.key;
        let shared = Arc::new(Shared {
            outbox: Arc::new(Outbox::new(self.outbox_max_bytes)),
            counters: std::sync::Mutex::new(Counters::new()),
            started: tokio::time::Instant::now(),
            stop: stop.clone(),
        });
        let node = self.endpoint.down().attach(node, boot, *slot, Arc::clone(&shared.outbox));
        tracing::info!(hub = %self.endpoint.down().hub, node = %self.key.node, slot, "link opened");
        let mut writer = tokio::spawn(writer::write(Arc::clone(&shared), outgoing));
        let reader = reader::Reader { endpoint: &*self.endpoint, link: id, node: &node, shared: &shared };
        let mut end = reader.read(frames, incoming).await;
        // What was queued while the link was good still goes out; then the rest moves to the next lane.
        stop.cancel();
        let outgoing = match tokio::time::timeout(FLUSH_TIMEOUT, &mut writer).await {
            Ok(Ok((outgoing, Ok(())))) => Some(outgoing),
            Ok(Ok((_, Err(cause)))) => {
                if matches!(end, LinkEnd::Replaced) {
                    end = cause;
                }
                None
            }
            Ok(Err(_)) | Err(_) => {
                writer.abort();
                None
            }
        };
        self.endpoint.down().detach(&node, *slot);
        if matches!(end, LinkEnd::Replaced) && self.shutdown.is_cancelled() {
            end = LinkEnd::Shutdown;
        }
        self.endpoint.handle_link_ended(id, &end_of_connections(&end));
        tracing::debug!(frames = lock(&shared.counters).received(), "link carried");
        (end, outgoing)
    }

    fn log(&self, end: &LinkEnd) {
        let SlotKey { hub, node, slot, .. } = &self.key;
        match end {
            LinkEnd::Closed | LinkEnd::Shutdown => tracing::info!(%hub, %node, slot, %end, "link ended"),
            other => {
                let cause = std::error::Error::source(other).map(ToString::to_string);
                tracing::warn!(%hub, %node, slot, end = %other, cause, "link ended");
            }
        }
    }
}

/// What `on_disconnected` is told: a planned stop is no error.
fn end_of_connections(end: &LinkEnd) -> End {
    match end {
        LinkEnd::Shutdown => End::default(),
        _ => End { error: Some("The link to the proxy was lost.".into()) },
    }
}

/// Tells the peer in a few words why, if it still listens.
async fn say_goodbye(mut writer: LinkWriter, end: &LinkEnd) {
    let (code, reason) = match end {
        LinkEnd::Closed | LinkEnd::Socket(_) | LinkEnd::Stuck => return,
        LinkEnd::Shutdown => (close_code::AWAY, end.to_string()),
        LinkEnd::Replaced | LinkEnd::Silent | LinkEnd::HandshakeTimeout => (close_code::NORMAL, end.to_string()),
        LinkEnd::Text => (close_code::UNSUPPORTED, end.to_string()),
        _ => (close_code::PROTOCOL, "the link protocol was broken".to_owned()),
    };
    let _ = tokio::time::timeout(FLUSH_TIMEOUT, writer.close(code, reason)).await;
}
