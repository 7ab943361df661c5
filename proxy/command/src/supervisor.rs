//! Protocols of systemd: socket activation, readiness and the watchdog. No effect without a supervisor or on other
//! systems.

#[cfg(target_os = "linux")]
use std::ffi::OsStr;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
#[cfg(target_os = "linux")]
use std::os::unix::net::{SocketAddr, UnixDatagram};

use listenfd::ListenFd;
use trunkline_proxy::parts::{Heartbeat, InheritedSockets};

#[cfg(target_os = "linux")]
use crate::logging::LOG_TARGET;

/// Number of watchdog notifications per deadline, while the heartbeat advances.
#[cfg(target_os = "linux")]
const FEEDS_PER_DEADLINE: u32 = 4;

/// Takes the listening sockets that the supervisor passes to this process. Fails if one is not a TCP socket.
pub(super) fn inherited_sockets() -> io::Result<InheritedSockets> {
    let mut sockets = ListenFd::from_env();
    let taken = (0..sockets.len()).filter_map(|index| sockets.take_tcp_listener(index).transpose());
    let taken: Vec<_> = taken.collect::<io::Result<_>>()?;
    InheritedSockets::new(taken)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeState {
    Ready,
    Stopping,
}

/// Notifies the supervisor on a separate thread. An unreachable or stuck supervisor has no effect.
#[cfg(target_os = "linux")]
pub(super) fn notify(state: NodeState) {
    drop(tokio::task::spawn_blocking(move || send_state(state)));
}

#[cfg(target_os = "linux")]
fn send_state(state: NodeState) {
    let sent = match state {
        NodeState::Ready => send("READY=1\nSTATUS=serving\n"),
        NodeState::Stopping => send("STOPPING=1\nSTATUS=draining clients\n"),
    };
    if let Err(error) = sent {
        tracing::warn!(target: LOG_TARGET, %error, "cannot notify the supervisor (NOTIFY_SOCKET): {state:?}");
    }
}

#[cfg(target_os = "linux")]
fn send(text: &str) -> io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &notify_address(&name)?).map(drop)
}

/// Parses a supervisor's address: a path, or an abstract name after `@`, as in sd_notify(3).
#[cfg(target_os = "linux")]
fn notify_address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn notify(_state: NodeState) {}

/// Notifies the supervisor's watchdog, if any, while the node's heartbeat advances.
#[cfg(target_os = "linux")]
pub(super) async fn feed_watchdog(heartbeat: Heartbeat) {
    let Some(deadline) = sd_notify::watchdog_enabled() else { return };
    let mut last = None;
    loop {
        let ticks = heartbeat.ticks();
        // Detects a stuck shard, even though this thread still runs.
        if last.replace(ticks) != Some(ticks) {
            drop(tokio::task::spawn_blocking(|| send("WATCHDOG=1\n")).await);
        }
        tokio::time::sleep(deadline / FEEDS_PER_DEADLINE).await;
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) async fn feed_watchdog(_heartbeat: Heartbeat) {}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_has_a_path_or_an_abstract_name() {
        let name = format!("trunkline-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        for given in [path.as_os_str().to_owned(), format!("@{name}").into()] {
            let address = notify_address(&given).unwrap();
            let supervisor = UnixDatagram::bind_addr(&address).unwrap();
            UnixDatagram::unbound().unwrap().send_to_addr(b"READY=1\n", &address).unwrap();
            let mut got = [0; 16];
            let length = supervisor.recv(&mut got).unwrap();
            assert_eq!(&got[..length], b"READY=1\n", "{given:?}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
