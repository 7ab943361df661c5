//! How a socket of a session is ended from outside, by whoever finds that it has to go; and time-outs of a session:
//! ticks of silence while it has a socket, and the window while it has none.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use trunkline_protocol::service::{SessionEndReason, SessionEvent};

use super::{LinkClock, LinkEnd, LinkOutbox};

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

/// Counts the silence of the far end until the session has a verdict; `None` when the session is over already.
/// `each_tick` gets the time before each tick.
pub async fn wait_for_verdict(
    outbox: &LinkOutbox,
    clock: LinkClock,
    mut each_tick: impl FnMut(u64),
) -> Option<SessionEvent> {
    loop {
        each_tick(clock.now_ms());
        sleep(Duration::from_millis(outbox.tick_ms()?)).await;
        if let Some(verdict) = outbox.handle_timeout(clock.now_ms()) {
            return Some(verdict);
        }
    }
}

/// Waits until a session that has lost its socket is over. One that never had a socket may take as long as it takes.
pub async fn window_passed(outbox: &LinkOutbox, clock: LinkClock) -> SessionEndReason {
    while let Some(at_ms) = outbox.poll_timeout() {
        sleep_until(clock.instant(at_ms)).await;
        if let Some(SessionEvent::End(cause)) = outbox.handle_timeout(clock.now_ms()) {
            return cause;
        }
    }
    std::future::pending().await
}
