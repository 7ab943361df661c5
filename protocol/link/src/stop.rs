//! How a socket of a session is ended from outside, by whoever finds that it has to go.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;
use trunkline_protocol::service::SessionEndReason;

use super::{LinkEnd, LinkOutbox};

/// Ends one socket of a session; its clones end the same one.
#[derive(Debug, Clone, Default)]
pub struct SocketStop {
    state: Arc<StopState>,
}

#[derive(Debug, Default)]
struct StopState {
    stopped: CancellationToken,
    /// The first reason counts.
    reason: OnceLock<StopReason>,
}

/// Why a socket is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Another socket takes the session, or another session the slot.
    Replaced,
    /// Nothing came for too long.
    Silent,
    /// This end stops. What is queued still leaves.
    Shutdown,
    /// The session decided that it is over.
    Over(SessionEndReason),
    /// A half of the socket has failed.
    Failed,
}

impl SocketStop {
    /// Ends the socket, and lets the writer of this session notice.
    pub fn stop(&self, reason: StopReason, outbox: &LinkOutbox) {
        // Before it is seen as stopped, the reason is there.
        self.state.reason.get_or_init(|| reason);
        self.state.stopped.cancel();
        outbox.wake();
    }

    /// Waits until the socket is to end. Cancel-safe.
    pub async fn stopped(&self) {
        self.state.stopped.cancelled().await;
    }

    /// Why the socket is to end; `None` while it is not.
    #[must_use]
    pub fn reason(&self) -> Option<StopReason> {
        self.state.reason.get().copied()
    }

    /// Returns the reason as the end of a socket.
    #[must_use]
    pub fn end(&self) -> LinkEnd {
        self.reason().unwrap_or(StopReason::Failed).into()
    }
}

impl From<StopReason> for LinkEnd {
    fn from(reason: StopReason) -> Self {
        match reason {
            StopReason::Replaced | StopReason::Failed => Self::Replaced,
            StopReason::Silent => Self::Silent,
            StopReason::Shutdown => Self::Shutdown,
            StopReason::Over(cause) => Self::Over(cause),
        }
    }
}
