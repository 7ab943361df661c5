//! Open streams of an HTTP/2 connection, which is not idle while there are any.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Count of a connection's open streams, and the time since the last one.
#[derive(Debug, Clone)]
pub(super) struct OpenStreams(Rc<Counts>);

#[derive(Debug)]
struct Counts {
    open: Cell<usize>,
    idle_since: Cell<Instant>,
    has_served: Cell<bool>,
    has_begun: Notify,
    emptied: Notify,
    /// Requests cancelled before their response, minus those answered since.
    taken_back: Cell<u32>,
    was_taken_back: Notify,
}

#[derive(Debug)]
pub(super) struct OpenStream {
    streams: OpenStreams,
    is_answered: Rc<Cell<bool>>,
}

impl OpenStreams {
    pub(super) fn new() -> Self {
        Self(Rc::new(Counts {
            open: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            has_served: Cell::new(false),
            has_begun: Notify::new(),
            emptied: Notify::new(),
            taken_back: Cell::new(0),
            was_taken_back: Notify::new(),
        }))
    }

    /// Counts a stream for the lifetime of the guard.
    pub(super) fn begin(&self) -> OpenStream {
        self.0.open.set(self.0.open.get() + 1);
        if !self.0.has_served.replace(true) {
            self.0.has_begun.notify_one();
        }
        OpenStream { streams: self.clone(), is_answered: Rc::default() }
    }

    pub(super) async fn first(&self) {
        while !self.0.has_served.get() {
            self.0.has_begun.notified().await;
        }
    }

    /// Waits until cancelled requests exceed answered ones by this number.
    pub(super) async fn taken_back(&self, most: u32) {
        while self.0.taken_back.get() < most {
            self.0.was_taken_back.notified().await;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.open.get() == 0
    }

    /// Waits until there was no stream for this long, or no first one.
    pub(super) async fn idle(&self, first: Duration, later: Duration) {
        loop {
            if !self.is_empty() {
                self.0.emptied.notified().await;
                continue;
            }
            let due = || self.0.idle_since.get() + if self.0.has_served.get() { later } else { first };
            sleep_until(due()).await;
            if self.is_empty() && due() <= Instant::now() {
                return;
            }
        }
    }
}

impl OpenStream {
    /// Flag for whether the request has been answered.
    pub(super) fn is_answered(&self) -> Rc<Cell<bool>> {
        self.is_answered.clone()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let counts = &*self.streams.0;
        if self.is_answered.get() {
            counts.taken_back.set(counts.taken_back.get().saturating_sub(1));
        } else {
            counts.taken_back.set(counts.taken_back.get().saturating_add(1));
            counts.was_taken_back.notify_one();
        }
        counts.open.set(counts.open.get() - 1);
        if counts.open.get() == 0 {
            counts.idle_since.set(Instant::now());
            counts.emptied.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_first_stream_has_less_time_than_a_later_one() {
        let (streams, began) = (OpenStreams::new(), Instant::now());
        streams.idle(15 * SECOND, 130 * SECOND).await;
        assert_eq!(began.elapsed(), 15 * SECOND);
        drop(streams.begin());
        streams.idle(15 * SECOND, 130 * SECOND).await;
        assert_eq!(began.elapsed(), 145 * SECOND);
    }

    #[tokio::test]
    async fn cancelled_requests_count_minus_answered_ones() {
        let streams = OpenStreams::new();
        for _ in 0..99 {
            drop(streams.begin());
        }
        let answered = streams.begin();
        answered.is_answered().set(true);
        drop(answered);
        drop(streams.begin());
        assert!(streams.taken_back(100).now_or_never().is_none());
        drop(streams.begin());
        streams.taken_back(100).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_the_end_of_the_last_stream() {
        let (streams, began) = (OpenStreams::new(), Instant::now());
        tokio::join!(streams.idle(15 * SECOND, 130 * SECOND), async {
            let long = streams.begin();
            // sleep: time is paused, and passing it is what the test is about.
            sleep(1000 * SECOND).await;
            let other = streams.begin();
            drop(long);
            // sleep: the same.
            sleep(SECOND).await;
            drop(other);
            // sleep: the same.
            sleep(100 * SECOND).await;
            drop(streams.begin());
        });
        assert_eq!(began.elapsed(), 1231 * SECOND);
    }
}
