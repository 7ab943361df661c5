//! Open streams of an HTTP/2 connection, which is not idle while there are any, and the progress of their responses.
//!
//! hyper polls a response body only if the stream's window has room. So a body not polled again after its data waits
//! for its client; a polled one without data waits for its source.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
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
    pub(super) fn begin_stream(&self) -> OpenStream {
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

/// Maximum size of a part of a response, so that a slow reader is seen to make progress.
const PIECE_BYTES: usize = 16 * 1024;

/// Progress of the response on one stream: start of the wait for the client; `None` while waiting for the source.
#[derive(Debug, Clone, Default)]
pub(super) struct StreamProgress(Rc<Cell<Option<Instant>>>);

impl StreamProgress {
    fn wait_for_client(&self) {
        self.0.set(Some(Instant::now()));
    }

    fn wait_for_source(&self) {
        self.0.set(None);
    }

    /// Waits until the client has read nothing for `limit`.
    pub(super) async fn stalled(self, limit: Duration) {
        loop {
            let now = Instant::now();
            let due = self.0.get().unwrap_or(now) + limit;
            if due <= now {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// Response body that records the progress of its stream.
pub(super) struct StreamBody {
    body: Body,
    rest: Bytes,
    progress: StreamProgress,
}

impl StreamBody {
    pub(super) fn new(body: Body, progress: StreamProgress) -> Self {
        // Without room in the window, the body is not polled even once.
        progress.wait_for_client();
        Self { body, rest: Bytes::new(), progress }
    }

    fn next_piece(&mut self) -> Frame<Bytes> {
        let length = self.rest.len().min(PIECE_BYTES);
        Frame::data(self.rest.split_to(length))
    }
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.progress.wait_for_client();
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.next_piece())));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(match frame.into_data() {
                Ok(data) => {
                    self.rest = data;
                    self.next_piece()
                }
                Err(other) => other,
            }))),
            Poll::Ready(end) => Poll::Ready(end),
            Poll::Pending => {
                self.progress.wait_for_source();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(body.lower().saturating_add(rest));
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use tokio::time::{sleep, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_first_stream_has_less_time_than_a_later_one() {
        let (streams, began) = (OpenStreams::new(), Instant::now());
        streams.idle(15 * SECOND, 130 * SECOND).await;
        assert_eq!(began.elapsed(), 15 * SECOND);
        drop(streams.begin_stream());
        streams.idle(15 * SECOND, 130 * SECOND).await;
        assert_eq!(began.elapsed(), 145 * SECOND);
    }

    #[tokio::test]
    async fn cancelled_requests_count_minus_answered_ones() {
        let streams = OpenStreams::new();
        for _ in 0..99 {
            drop(streams.begin_stream());
        }
        let answered = streams.begin_stream();
        answered.is_answered().set(true);
        drop(answered);
        drop(streams.begin_stream());
        assert!(streams.taken_back(100).now_or_never().is_none());
        drop(streams.begin_stream());
        streams.taken_back(100).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_the_end_of_the_last_stream() {
        let (streams, began) = (OpenStreams::new(), Instant::now());
        tokio::join!(streams.idle(15 * SECOND, 130 * SECOND), async {
            let long = streams.begin_stream();
            // sleep: time is paused, and passing it is what the test is about.
            sleep(1000 * SECOND).await;
            let other = streams.begin_stream();
            drop(long);
            // sleep: the same.
            sleep(SECOND).await;
            drop(other);
            // sleep: the same.
            sleep(100 * SECOND).await;
            drop(streams.begin_stream());
        });
        assert_eq!(began.elapsed(), 1231 * SECOND);
    }

    const LIMIT: Duration = Duration::from_secs(240);

    #[tokio::test(start_paused = true)]
    async fn only_the_time_in_which_the_client_does_not_read_counts() {
        let progress = StreamProgress::default();
        let (began, mut body) = (Instant::now(), StreamBody::new(Body::from(vec![7; 40_000]), progress.clone()));
        let mut lengths = Vec::new();
        for _ in 0..3 {
            // sleep: time is paused, and passing it is what the test is about.
            sleep(LIMIT / 2).await;
            assert!(progress.clone().stalled(LIMIT).now_or_never().is_none());
            lengths.push(body.frame().await.unwrap().unwrap().into_data().unwrap().len());
        }
        assert_eq!(lengths, [PIECE_BYTES, PIECE_BYTES, 40_000 - 2 * PIECE_BYTES]);
        progress.stalled(LIMIT).await;
        assert_eq!(began.elapsed(), LIMIT * 5 / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_has_nothing_to_give_waits_for_ever() {
        let progress = StreamProgress::default();
        let silent = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let mut body = StreamBody::new(Body::from_stream(silent), progress.clone());
        assert!(body.frame().now_or_never().is_none());
        assert!(timeout(LIMIT * 100, progress.stalled(LIMIT)).await.is_err());
    }
}
