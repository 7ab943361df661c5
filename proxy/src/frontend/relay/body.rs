//! Bodies on their way through: counted, and watched for whose turn it is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

use crate::frontend::answers::Counted;
use crate::metrics::{Counter, Counters, RelayCounters};

/// Instead of a time: nothing moves because the client has not sent the rest.
const CLIENTS_TURN: u64 = u64::MAX;

/// Since when the other end could answer.
#[derive(Debug)]
pub(super) struct Progress {
    start: Instant,
    /// Milliseconds from the start.
    since_ms: AtomicU64,
}

impl Progress {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), since_ms: AtomicU64::new(0) })
    }

    /// Returns when the other end has been silent for so long. Waiting for the client is not its silence.
    pub(super) async fn overdue(&self, patience: Duration) {
        loop {
            let now = Instant::now();
            let deadline = match self.since_ms.load(Ordering::Relaxed) {
                CLIENTS_TURN => now + patience,
                since_ms => self.start + Duration::from_millis(since_ms) + patience,
            };
            if deadline <= now {
                return;
            }
            sleep_until(deadline).await;
        }
    }

    fn moved(&self) {
        let since = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(CLIENTS_TURN);
        self.since_ms.store(since, Ordering::Relaxed);
    }

    fn wait_for_client(&self) {
        self.since_ms.store(CLIENTS_TURN, Ordering::Relaxed);
    }
}

/// Counts the bytes of a body.
pub(super) struct Meter {
    counters: Arc<Counters>,
    which: fn(&RelayCounters) -> &Counter,
}

impl Meter {
    pub(super) fn up(counters: &Arc<Counters>) -> Self {
        Self { counters: counters.clone(), which: |relay| &relay.bytes_up }
    }

    pub(super) fn down(counters: &Arc<Counters>) -> Self {
        Self { counters: counters.clone(), which: |relay| &relay.bytes_down }
    }
}

/// A request's body on its way up.
pub(super) struct RequestBody {
    pub(super) body: Body,
    pub(super) progress: Arc<Progress>,
    pub(super) meter: Option<Meter>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match polled {
            Poll::Pending => self.progress.wait_for_client(),
            Poll::Ready(_) => self.progress.moved(),
        }
        let frame = ready!(polled);
        count(self.meter.as_ref(), frame.as_ref());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body on its way down.
pub(super) struct AnswerBody<B> {
    pub(super) body: B,
    pub(super) meter: Option<Meter>,
    /// Whether the head tells the length. If not, it must not be made up either: an answer to HEAD has an empty body.
    pub(super) is_length_told: bool,
    /// A node that stops waits for it.
    pub(super) _under_way: Counted,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for AnswerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        count(self.meter.as_ref(), frame.as_ref());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_length_told { self.body.size_hint() } else { SizeHint::new() }
    }
}

fn count<E>(meter: Option<&Meter>, frame: Option<&Result<Frame<Bytes>, E>>) {
    if let (Some(meter), Some(Ok(frame))) = (meter, frame) {
        (meter.which)(&meter.counters.relay).add(frame.data_ref().map_or(0, Bytes::len) as u64);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn only_the_silence_of_the_other_end_counts() {
        let (sender, mut receiver) = mpsc::unbounded_channel::<Result<Frame<Bytes>, axum::Error>>();
        let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let body = Body::new(http_body_util::StreamBody::new(stream));
        let progress = Progress::new();
        let mut body = RequestBody { body, progress: progress.clone(), meter: None };

        assert!(body.frame().now_or_never().is_none(), "the client has sent nothing yet");
        assert!(tokio::time::timeout(PATIENCE * 100, progress.overdue(PATIENCE)).await.is_err());

        sender.send(Ok(Frame::data(Bytes::from_static(b"x")))).unwrap();
        assert!(body.frame().now_or_never().is_some());
        let began = Instant::now();
        progress.overdue(PATIENCE).await;
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    }
}
