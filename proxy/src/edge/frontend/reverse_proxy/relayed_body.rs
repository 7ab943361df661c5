//! Relayed bodies: counts their bytes and measures the other end's silence.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

use crate::edge::frontend::InFlight;
use crate::edge::frontend::hop_header::clean_trailers;
use crate::edge::frontend::timed_body::{TimedBody, is_body_timeout};
use crate::ground::limits::{RelayPermit, RelayProgress};
use crate::ground::metrics::{Counter, Counters, RelayCounters};

/// Placeholder time while the client must send the rest of its body.
const WAITS_FOR_CLIENT: u64 = u64::MAX;

/// Timer of the other end's silence, restarted whenever the request body makes progress.
#[derive(Debug)]
pub(crate) struct SilenceTimer {
    start: Instant,
    /// Milliseconds since the start.
    since_ms: AtomicU64,
    /// The client has stalled while sending its body.
    is_client_late: AtomicBool,
    /// The client's body has failed in another way.
    is_client_broken: AtomicBool,
}

impl SilenceTimer {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            since_ms: AtomicU64::new(0),
            is_client_late: AtomicBool::new(false),
            is_client_broken: AtomicBool::new(false),
        })
    }

    /// Returns once the other end has been silent for `limit`. Time spent waiting for the client does not count.
    pub(crate) async fn expired(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let deadline = match self.since_ms.load(Ordering::Relaxed) {
                WAITS_FOR_CLIENT => now + limit,
                since_ms => self.start + Duration::from_millis(since_ms) + limit,
            };
            if deadline <= now {
                return;
            }
            sleep_until(deadline).await;
        }
    }

    /// Whether the exchange ended because the client stalled while sending its body.
    pub(crate) fn is_client_late(&self) -> bool {
        self.is_client_late.load(Ordering::Relaxed)
    }

    /// Whether the exchange ended because the client's body was malformed or broke off.
    pub(crate) fn is_client_broken(&self) -> bool {
        self.is_client_broken.load(Ordering::Relaxed)
    }

    fn moved(&self) {
        let since = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(WAITS_FOR_CLIENT);
        self.since_ms.store(since, Ordering::Relaxed);
    }

    fn wait_for_client(&self) {
        self.since_ms.store(WAITS_FOR_CLIENT, Ordering::Relaxed);
    }
}

/// Byte counter of a body in one direction.
pub(crate) struct ByteMeter {
    counters: Arc<Counters>,
    which: fn(&RelayCounters) -> &Counter,
}

impl ByteMeter {
    pub(crate) fn up(counters: &Arc<Counters>) -> Self {
        Self { counters: counters.clone(), which: |relay| &relay.bytes_up }
    }

    pub(crate) fn down(counters: &Arc<Counters>) -> Self {
        Self { counters: counters.clone(), which: |relay| &relay.bytes_down }
    }
}

pub(crate) struct RelayedRequestBody {
    pub(super) body: TimedBody,
    pub(super) silence: Arc<SilenceTimer>,
    pub(super) meter: Option<ByteMeter>,
    /// Held until both bodies have ended.
    pub(super) permit: Option<Arc<RelayPermit>>,
}

impl HttpBody for RelayedRequestBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let progress = self.permit.as_ref().map(|permit| permit.progress());
        match &polled {
            Poll::Pending => {
                self.silence.wait_for_client();
                progress.into_iter().for_each(RelayProgress::wait_for_sender);
            }
            Poll::Ready(frame) => {
                self.silence.moved();
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                match (progress, frame) {
                    (Some(progress), Some(_)) => progress.sent(data.map_or(0, Bytes::len)),
                    (Some(progress), None) => progress.has_sent_all(),
                    (None, _) => {}
                }
            }
        }
        let mut frame = ready!(polled);
        if let Some(Err(error)) = &frame {
            let is_late = is_body_timeout(error);
            self.silence.is_client_late.store(is_late, Ordering::Relaxed);
            self.silence.is_client_broken.store(!is_late, Ordering::Relaxed);
        }
        if frame.as_ref().is_none_or(Result::is_err) {
            self.permit = None;
        }
        count(self.meter.as_ref(), frame.as_ref());
        clean(frame.as_mut());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pub(crate) struct RelayedResponseBody<B> {
    pub(super) body: B,
    pub(super) meter: Option<ByteMeter>,
    /// Whether the head states the length. If not, none may be added: a response to HEAD has an empty body.
    pub(super) is_length_known: bool,
    pub(super) _in_flight: InFlight,
    pub(super) permit: Option<Arc<RelayPermit>>,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for RelayedResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let progress = self.permit.as_ref().map(|permit| permit.progress());
        match polled {
            Poll::Pending => progress.into_iter().for_each(RelayProgress::read),
            // Polled again once its client has read this part.
            Poll::Ready(_) => progress.into_iter().for_each(RelayProgress::wait_for_reader),
        }
        let mut frame = ready!(polled);
        count(self.meter.as_ref(), frame.as_ref());
        clean(frame.as_mut());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_length_known { self.body.size_hint() } else { SizeHint::new() }
    }
}

fn count<E>(meter: Option<&ByteMeter>, frame: Option<&Result<Frame<Bytes>, E>>) {
    if let (Some(meter), Some(Ok(frame))) = (meter, frame) {
        (meter.which)(&meter.counters.relay).add(frame.data_ref().map_or(0, Bytes::len) as u64);
    }
}

/// Cleans trailers, which head checks don't cover.
fn clean<E>(frame: Option<&mut Result<Frame<Bytes>, E>>) {
    if let Some(Ok(frame)) = frame
        && let Some(trailers) = frame.trailers_mut()
    {
        clean_trailers(trailers);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn only_the_silence_of_the_other_end_counts() {
        let (sender, mut receiver) = mpsc::unbounded_channel::<Result<Frame<Bytes>, axum::Error>>();
        let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let body = Body::new(http_body_util::StreamBody::new(stream));
        let silence = SilenceTimer::new();
        let body = TimedBody::for_app(body, LIMIT * 1000);
        let mut body = RelayedRequestBody { body, silence: silence.clone(), meter: None, permit: None };

        assert!(body.frame().now_or_never().is_none(), "the client has sent nothing yet");
        assert!(tokio::time::timeout(LIMIT * 100, silence.expired(LIMIT)).await.is_err());

        sender.send(Ok(Frame::data(Bytes::from_static(b"x")))).unwrap();
        assert!(body.frame().now_or_never().is_some());
        let began = Instant::now();
        silence.expired(LIMIT).await;
        assert_eq!(began.elapsed().as_secs(), LIMIT.as_secs());
    }
}
