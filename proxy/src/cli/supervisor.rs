//! Speak to the supervisor that started this process, as systemd's protocols have it: take its sockets, tell it how we
//! are, and feed its watchdog while all threads live. Without a supervisor, or on other systems, nothing happens.

use std::io;

use listenfd::ListenFd;

use crate::node::{Handed, Pulse};

/// A watchdog is fed this often in its time, as far as there is a pulse.
#[cfg(target_os = "linux")]
const FEEDS_PER_DEADLINE: u32 = 4;

/// The sockets at which it listens for us.
///
/// # Errors
/// When one is no TCP socket.
pub fn handed() -> io::Result<Handed> {
    let mut sockets = ListenFd::from_env();
    let taken = (0..sockets.len()).filter_map(|place| sockets.take_tcp_listener(place).transpose());
    let taken: Vec<_> = taken.collect::<io::Result<_>>()?;
    Handed::new(taken)
}

/// What it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Clients may come.
    Ready,
    /// It was told to stop, and lets its clients leave.
    Stopping,
}

/// Tells it. Whoever does not hear it is not waited for.
#[cfg(target_os = "linux")]
pub fn tell(news: News) {
    use sd_notify::NotifyState;

    let told = match news {
        News::Ready => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status("serving")]),
        News::Stopping => sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("clients are leaving")]),
    };
    if let Err(error) = told {
        tracing::warn!(%error, "the supervisor (NOTIFY_SOCKET) can't be told: {news:?}");
    }
}

/// Tells it.
#[cfg(not(target_os = "linux"))]
pub fn tell(_news: News) {}

/// Feeds its watchdog as long as the node's threads live; for ever, if it has one.
#[cfg(target_os = "linux")]
pub async fn feed_watchdog(pulse: Pulse) {
    let Some(deadline) = sd_notify::watchdog_enabled() else { return };
    let mut last = None;
    loop {
        let ticks = pulse.ticks();
        // A shard that stands still shall be noticed, although this thread does not.
        if last.replace(ticks) != Some(ticks) {
            drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog]));
        }
        tokio::time::sleep(deadline / FEEDS_PER_DEADLINE).await;
    }
}

/// Feeds its watchdog.
#[cfg(not(target_os = "linux"))]
pub async fn feed_watchdog(_pulse: Pulse) {}
