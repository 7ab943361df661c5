//! systemd's protocols towards the supervisor of this process: socket activation, readiness and the watchdog. Without a
//! supervisor, or on other systems, nothing happens.

use std::io;

use listenfd::ListenFd;
use trunkline_proxy::parts::{Heartbeat, InheritedSockets};

#[cfg(target_os = "linux")]
use crate::logging::LOG_TARGET;

/// Number of times that the watchdog is fed within its deadline, if the heartbeat advances.
#[cfg(target_os = "linux")]
const FEEDS_PER_DEADLINE: u32 = 4;

/// Takes the listening sockets that the supervisor passes to this process.
///
/// # Errors
/// When one is no TCP socket.
pub(super) fn inherited_sockets() -> io::Result<InheritedSockets> {
    let mut sockets = ListenFd::from_env();
    let taken = (0..sockets.len()).filter_map(|index| sockets.take_tcp_listener(index).transpose());
    let taken: Vec<_> = taken.collect::<io::Result<_>>()?;
    InheritedSockets::new(taken)
}

/// State of the node that the supervisor is notified of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeState {
    /// The node accepts clients.
    Ready,
    /// The node was told to stop and drains its clients.
    Stopping,
}

/// Notifies the supervisor, on a thread of its own. A supervisor that can't be reached, or hangs, stops nothing.
#[cfg(target_os = "linux")]
pub(super) fn notify(state: NodeState) {
    drop(tokio::task::spawn_blocking(move || send_state(state)));
}

#[cfg(target_os = "linux")]
fn send_state(state: NodeState) {
    use sd_notify::NotifyState;

    let sent = match state {
        NodeState::Ready => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status("serving")]),
        NodeState::Stopping => sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("clients are leaving")]),
    };
    if let Err(error) = sent {
        tracing::warn!(target: LOG_TARGET, %error, "the supervisor (NOTIFY_SOCKET) can't be told: {state:?}");
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn notify(_state: NodeState) {}

/// Feeds the supervisor's watchdog, if there is one, as long as the heartbeat of the node advances.
#[cfg(target_os = "linux")]
pub(super) async fn feed_watchdog(heartbeat: Heartbeat) {
    let Some(deadline) = sd_notify::watchdog_enabled() else { return };
    let mut last = None;
    loop {
        let ticks = heartbeat.ticks();
        // A shard that hangs must be noticed, although this thread does not hang.
        if last.replace(ticks) != Some(ticks) {
            let feed = || sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            drop(tokio::task::spawn_blocking(feed).await);
        }
        tokio::time::sleep(deadline / FEEDS_PER_DEADLINE).await;
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) async fn feed_watchdog(_heartbeat: Heartbeat) {}
