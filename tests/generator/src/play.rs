//! Work of a crowd in a window.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::crowd::{NAP, nap_until_none_is_missing};
use crate::done::Done;

/// Wait after which the server sleeps, and anything it sends unasked has come.
///
/// No fence can replace it: CPU time is up to date only when a thread has stopped running.
const SETTLE: Duration = Duration::from_millis(50);

/// Work of a crowd.
pub trait Play {
    /// Works for this long, and until everything that was begun is done.
    ///
    /// # Errors
    /// When something is lost, comes twice or out of turn.
    fn run_for(&mut self, length: Duration) -> Result<Done>;

    /// Works for about this long before a window, so that caches and buffers settle.
    ///
    /// # Errors
    /// When something is lost, comes twice or out of turn.
    fn warm_up(&mut self, length: Duration) -> Result<()> {
        self.run_for(length).map(drop)
    }

    /// Takes what has come since, and demands that nothing came unasked.
    ///
    /// # Errors
    /// When something did.
    fn look(&mut self) -> Result<()>;

    /// Does what is due between two windows, and returns when it is due again: keep-alives that have begun go on.
    ///
    /// # Errors
    /// When the server is gone.
    fn rest(&mut self) -> Result<Duration> {
        Ok(Duration::MAX)
    }
}

/// Waits until the server sleeps, and demands that nothing came unasked.
///
/// # Errors
/// When something did.
pub fn settle(play: &mut dyn Play) -> Result<()> {
    sleep(SETTLE);
    play.look()
}

/// Next act of a client that is done with a unit of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Again,
    Stop,
}

/// A crowd whose clients each do one unit of work after the other.
pub(crate) trait Repeat {
    /// Has each client begin its first unit; returns how many clients there are.
    fn begin(&mut self) -> Result<usize>;

    /// Reads what is there; returns how many clients are done with a unit.
    fn take(&mut self, done: &mut Done, then: Then) -> Result<usize>;
}

/// Has all clients work for this long, then waits for the units that were begun.
pub(crate) fn repeat_for(crowd: &mut impl Repeat, length: Duration) -> Result<Done> {
    let (started, mut done) = (Instant::now(), Done::default());
    let waiting = crowd.begin()?;
    while started.elapsed() < length {
        sleep(NAP);
        crowd.take(&mut done, Then::Again)?;
    }
    nap_until_none_is_missing(Instant::now(), waiting, || crowd.take(&mut done, Then::Stop))?;
    Ok(done)
}
