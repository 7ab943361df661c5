//! Progress of the response on one HTTP/2 stream: whether it is waiting for its client to read.
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
use tokio::time::{Instant, sleep_until};

/// Maximum size of a part of a response, so that a slow reader is seen to make progress.
const PIECE_BYTES: usize = 16 * 1024;

/// Start of the wait for the client; `None` while waiting for the source.
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
