//! Wait of a test for a call from the hub. Fails at the line of the test.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Awaits a call to a test client and returns its arguments; created by
/// [`TestClient::expect`](super::TestClient::expect) and similar methods.
#[must_use = "nothing is expected until this is awaited"]
pub struct Expected<'a, T> {
    waiting: Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>,
    asked_at: &'static Location<'static>,
}

impl<'a, T> Expected<'a, T> {
    #[track_caller]
    pub(super) fn new(waiting: impl Future<Output = Result<T, String>> + Send + 'a) -> Self {
        Self { waiting: Box::pin(waiting), asked_at: Location::caller() }
    }
}

impl<T> Future for Expected<'_, T> {
    type Output = T;

    // The caller is the `.await` in the test, so the test fails there.
    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let problem = match ready!(self.waiting.as_mut().poll(cx)) {
            Ok(arguments) => return Poll::Ready(arguments),
            Err(problem) => problem,
        };
        // The line differs if the future is wrapped, for example by `tokio::join!`.
        match Location::caller().file() == self.asked_at.file() {
            true => panic!("{problem}"),
            false => panic!("{problem} (expected at {})", self.asked_at),
        }
    }
}

impl<T> fmt::Debug for Expected<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expected").field("asked_at", &self.asked_at).finish_non_exhaustive()
    }
}
