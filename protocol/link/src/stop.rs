//! Clock of a session, stopping it from outside, and its timeouts: ticks of silence while it has a socket, and the
//! resume window while it has none.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use trunkline_protocol::service::{SessionEndReason, SessionEvent};

use super::{LinkEnd, LinkOutbox};

/// Clock of a session: milliseconds since a fixed instant, as required by
/// [`Session`](trunkline_protocol::service::Session).
#[derive(Debug, Clone, Copy)]
pub struct LinkClock {
    started: Instant,
}

impl LinkClock {
    /// Creates a clock that is 0 at this instant.
    #[must_use]
    pub fn since(started: Instant) -> Self {
        Self { started }
    }

    /// Creates a clock that is 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self::since(Instant::now())
    }

    /// Current time of the clock.
    #[must_use]
    pub fn now_ms(self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Instant at which the clock shows `at_ms`.
    #[must_use]
    pub fn instant(self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms)
    }
}

/// Handle for stopping one socket of a session. Clones stop the same socket.
#[derive(Debug, Clone, Default)]
pub struct SocketStop {
    state: Arc<StopState>,
}

#[derive(Debug, Default)]
struct StopState {
    stopped: CancellationToken,
    /// Only the first reason is kept.
    reason: OnceLock<StopReason>,
}

/// Reason for stopping a socket from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Another socket took the session, or another session the slot.
    Replaced,
    /// The peer was silent for too long.
    Silent,
    /// This end shuts down. Queued frames are still sent.
    Shutdown,
    /// The session ended itself.
    Over(SessionEndReason),
    /// One half of the socket has failed.
    Failed,
}

impl SocketStop {
    /// Stops the socket and wakes the session's writer.
    pub fn stop(&self, reason: StopReason, outbox: &LinkOutbox) {
        // The reason must be set before the stop is visible.
        self.state.reason.get_or_init(|| reason);
        self.state.stopped.cancel();
        outbox.wake();
    }

    /// Waits until the socket has to stop. Cancel-safe.
    pub async fn stopped(&self) {
        self.state.stopped.cancelled().await;
    }

    /// Reason for the stop; `None` if not stopped.
    #[must_use]
    pub fn reason(&self) -> Option<StopReason> {
        self.state.reason.get().copied()
    }

    /// Returns the reason as the end of a socket.
    #[must_use]
    pub fn link_end(&self) -> LinkEnd {
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

/// Counts the silence of the peer until the session reaches a verdict; `None` if the session has already ended.
/// `each_tick` receives the time before each tick.
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

/// Waits until a session without a socket ends. A session that never had a socket does not time out.
pub async fn window_passed(outbox: &LinkOutbox, clock: LinkClock) -> SessionEndReason {
    while let Some(at_ms) = outbox.poll_timeout() {
        sleep_until(clock.instant(at_ms)).await;
        if let Some(SessionEvent::End(cause)) = outbox.handle_timeout(clock.now_ms()) {
            return cause;
        }
    }
    std::future::pending().await
}
