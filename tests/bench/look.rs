//! How a generator looks after its sockets: it never waits in epoll, it naps and looks.
//!
//! On loopback the server wakes a receiver that waits, at some µs of its own CPU time, and the slower the server the
//! more often it catches the receiver waiting: 20 to 50 times per broadcast to 1 000 by the proxy, 4 to 15 times by the
//! floor. A real client is on another machine. Of one and the same proxy, single rounds on a quiet machine gave an excess
//! from -0.4 to 1.4 µs per delivery without naps, -0.1 to 0.4 with them.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mio::{Events, Poll};

/// Short beside a broadcast, so that server and generator work side by side for most of it.
pub const NAP: Duration = Duration::from_micros(100);

/// Events that are taken at once.
pub const EVENTS: usize = 4096;
/// Bytes that are read at once.
pub const READ_BYTES: usize = 64 * 1024;

/// What has not come by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks which sockets are ready, without waiting.
///
/// # Errors
/// When the system does not tell.
pub fn look_at(poll: &mut Poll, events: &mut Events) -> Result<()> {
    match poll.poll(events, Some(Duration::ZERO)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            events.clear();
            Ok(())
        }
        polled => polled.context("epoll"),
    }
}

/// Ends the run when what is awaited takes too long.
///
/// # Errors
/// When it does.
pub fn demand_progress(since: Instant, missing: usize) -> Result<()> {
    if since.elapsed() > PATIENCE {
        bail!("{missing} clients wait in vain");
    }
    Ok(())
}
