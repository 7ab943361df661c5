//! Work of a crowd in a time window.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::crowd::{NAP, nap_until_none_is_missing};
use crate::done::Done;

/// Time after which the server sleeps and all unexpected messages have arrived.
///
/// A fence message can't replace it: CPU time is updated only when a thread has stopped running.
const SETTLE: Duration = Duration::from_millis(50);

/// Work of a crowd.
pub trait Workload {
    /// Works for this long, and until all started units are complete.
    fn run_for(&mut self, length: Duration) -> Result<Done>;

    /// Works for about this long before a window, to warm up caches and buffers.
    fn warm_up(&mut self, length: Duration) -> Result<()> {
        self.run_for(length).map(drop)
    }

    /// Reads available data and checks that no unexpected messages arrived.
    fn inspect(&mut self) -> Result<()>;

    /// Sends due keep-alives between two windows, once started, and returns the time until the next.
    fn rest(&mut self) -> Result<Duration> {
        Ok(Duration::MAX)
    }
}

/// Waits until the server sleeps, and checks that no unexpected messages arrived.
pub fn settle(workload: &mut dyn Workload) -> Result<()> {
    sleep(SETTLE);
    workload.inspect()
}

/// Next action of a client after a unit of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Again,
    Stop,
}

/// Crowd of clients that each do sequential units of work.
pub(crate) trait Repeat {
    /// Starts the first unit of each client. Returns the number of clients.
    fn begin(&mut self) -> Result<usize>;

    /// Reads available data. Returns the number of completed units.
    fn take(&mut self, done: &mut Done, then: Then) -> Result<usize>;
}

/// Lets all clients work for this long, then waits for started units.
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
