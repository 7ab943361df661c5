//! Time-outs of a session: ticks of silence while it has a socket, and the window while it has none.

use std::time::Duration;

use tokio::time::{sleep, sleep_until};
use trunkline_protocol::service::{SessionEndReason, SessionEvent};

use super::{LinkClock, LinkOutbox};

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
