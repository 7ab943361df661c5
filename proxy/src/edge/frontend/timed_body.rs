//! Request body that ends with an error if its client stalls for too long.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// Minimum bytes per second of a hub request body, which has no reason to be slow; same as Kestrel's.
const HUB_BYTES_PER_SECOND: u64 = 240;

/// Error of a body stalled by its client.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request stalled for {} s, or arrived too slowly: see --body-timeout", .0.as_secs())]
pub(crate) struct BodyTimeout(Duration);

/// Number of bytes by which a client earns further time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Any byte earns the full time, because only the app knows its uploads.
    Any,
    /// Number of bytes that earn a second.
    BytesPerSecond(u64),
}

/// Body with a limit on the time spent waiting for the client.
#[derive(Debug)]
pub(crate) struct TimedBody {
    body: Body,
    limit: Duration,
    pace: Pace,
    spent: Duration,
    waits_since: Option<Instant>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    /// Body for an app: unlimited in total while it makes progress.
    pub(crate) fn for_app(body: Body, limit: Duration) -> Self {
        Self::new(body, limit, Pace::Any)
    }

    /// Body for a hub: an occasional byte is not sufficient.
    pub(crate) fn for_hub(body: Body, limit: Duration) -> Self {
        Self::new(body, limit, Pace::BytesPerSecond(HUB_BYTES_PER_SECOND))
    }

    fn new(body: Body, limit: Duration, pace: Pace) -> Self {
        Self { body, limit, pace, spent: Duration::ZERO, waits_since: None, deadline: None }
    }

    /// Ends a wait for the client when bytes arrive.
    fn earn(&mut self, bytes: usize) {
        let waited = self.waits_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.spent = match self.pace {
            Pace::Any => Duration::ZERO,
            Pace::BytesPerSecond(rate) => {
                let earned = (bytes as u64).saturating_mul(1000) / rate;
                (self.spent + waited).saturating_sub(Duration::from_millis(earned))
            }
        };
    }

    /// Waits until the client has used up its time.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waits_since.is_none() {
            let now = Instant::now();
            let due = now + self.limit.saturating_sub(self.spent);
            self.waits_since = Some(now);
            match &mut self.deadline {
                Some(deadline) => deadline.as_mut().reset(due),
                None => self.deadline = Some(Box::pin(sleep_until(due))),
            }
        }
        self.deadline.as_mut().map_or(Poll::Pending, |deadline| deadline.poll_unpin(cx))
    }
}

/// Whether an error was caused by a stalled body, at any depth.
pub(crate) fn is_body_timeout(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(|error| error.is::<BodyTimeout>())
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                let bytes = data.map_or(0, Bytes::len);
                self.earn(bytes);
                Poll::Ready(frame)
            }
            Poll::Pending => self.poll_overdue(cx).map(|()| Some(Err(axum::Error::new(BodyTimeout(self.limit))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream::unfold;
    use http_body_util::BodyExt;
    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Body that produces this many bytes at each interval.
    fn drip(bytes: usize, every_s: u64) -> Body {
        Body::from_stream(unfold((), move |()| async move {
            // sleep: time is paused, and passing it is what the test is about.
            sleep(Duration::from_secs(every_s)).await;
            Some((Ok::<_, Infallible>(Bytes::from(vec![0; bytes])), ()))
        }))
    }

    /// Reads a body until it fails, for a day at most: returns the seconds, and whether it stalled.
    async fn read(mut body: TimedBody) -> Option<(u64, bool)> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(86_400) {
            if let Err(error) = body.frame().await? {
                return Some((began.elapsed().as_secs(), is_body_timeout(&error)));
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_ends_when_it_stands_still_and_not_while_it_moves() {
        assert_eq!(read(TimedBody::for_app(drip(1, 61), LIMIT)).await, Some((60, true)));
        assert_eq!(read(TimedBody::for_app(drip(1, 59), LIMIT)).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_a_minute_is_not_enough_for_a_hub() {
        assert_eq!(read(TimedBody::for_hub(drip(1, 59), LIMIT)).await, Some((60, true)));
        assert_eq!(read(TimedBody::for_hub(drip(1_000, 10), LIMIT)).await, Some((97, true)));
        assert_eq!(read(TimedBody::for_hub(drip(2_400, 10), LIMIT)).await, None, "240 bytes a second");
    }
}
