//! Write stalls: how long a response may wait for the client to read.
//!
//! hyper polls a response body only after the socket has accepted earlier output, so a stalled response can't detect
//! that its client connection has closed. So the request handler sets the limit in advance, and the socket's owner
//! enforces it.

use std::future::pending;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Time for a client to read the rest after its connection has closed, as for a WebSocket's close.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Default)]
pub(crate) enum WriteStallLimit {
    /// No limit; the client may read at any speed.
    #[default]
    Unlimited,
    /// Unlimited while the client connection is open, then limited by a grace period.
    UntilClosed(ConnectionClose),
    /// Maximum time without progress.
    Idle(Duration),
    /// Like `Idle`, but ends immediately on cancellation, when another response needs the permit.
    IdleUnless(Duration, CancellationToken),
}

/// Close of a client connection, and the deadline after it.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionClose {
    connection: CancellationToken,
    /// First stall seen after the close. A client that reads a byte occasionally gains no time.
    first_stall: Arc<OnceLock<Instant>>,
}

impl WriteStallLimit {
    /// Limits the responses of a client connection; closing it cancels this token.
    pub(crate) fn until_closed(connection: CancellationToken) -> Self {
        Self::UntilClosed(ConnectionClose { connection, first_stall: Arc::default() })
    }

    pub(crate) fn attach<B>(self, response: &mut http::Response<B>) {
        response.extensions_mut().insert(self);
    }

    pub(crate) fn take<B>(response: &mut http::Response<B>) -> Option<Self> {
        response.extensions_mut().remove()
    }

    /// Waits until a stall that starts now reaches the limit.
    pub(crate) async fn reached(self) {
        match self {
            Self::Unlimited => pending().await,
            Self::UntilClosed(close) => {
                close.connection.cancelled().await;
                sleep_until(*close.first_stall.get_or_init(Instant::now) + CLOSE_GRACE).await;
            }
            Self::Idle(time) => sleep(time).await,
            Self::IdleUnless(time, displaced) => drop(timeout(time, displaced.cancelled()).await),
        }
    }
}

/// Limit of the current response; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct CurrentStallLimit(Arc<Mutex<WriteStallLimit>>);

impl CurrentStallLimit {
    pub(crate) fn set(&self, limit: WriteStallLimit) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }

    pub(crate) fn get(&self) -> WriteStallLimit {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
