//! Write stalls: how long an answer may stand still because its client does not read it.
//!
//! hyper asks an answer for more only when the socket has taken what was there. An answer whose client has stopped
//! reading neither moves on nor learns that nobody needs it any more. So the handler of a request sets the limit
//! beforehand, and the owner of the socket enforces it.

use std::future::pending;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Time for a client to read the rest when its connection has closed: as long as a WebSocket may take to close.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// Limit of a write stall.
#[derive(Debug, Clone, Default)]
pub(crate) enum WriteStallLimit {
    /// None: how fast the client reads is its own affair.
    #[default]
    Unlimited,
    /// While the client connection that the answer belongs to is open, and a little longer.
    UntilClosed(ConnectionClose),
    /// This long without a byte that moves.
    Idle(Duration),
    /// As `Idle`, and not at all when this token is cancelled: another answer needs the place.
    IdleUnless(Duration, CancellationToken),
}

/// Close of a client connection, and the deadline after it.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionClose {
    connection: CancellationToken,
    /// Time at which a stall was first seen after the close: a client that reads a byte now and then gains no time by
    /// it.
    first_stall: Arc<OnceLock<Instant>>,
}

impl WriteStallLimit {
    /// Limits the answers of a client connection, whose close cancels this token.
    #[must_use]
    pub(crate) fn until_closed(connection: CancellationToken) -> Self {
        Self::UntilClosed(ConnectionClose { connection, first_stall: Arc::default() })
    }

    /// Waits until a stall that begins now has reached the limit.
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

/// Limit of the answer that is being written; its clones share one limit.
#[derive(Debug, Clone, Default)]
pub(crate) struct CurrentStallLimit(Arc<Mutex<WriteStallLimit>>);

impl CurrentStallLimit {
    pub(crate) fn set(&self, limit: WriteStallLimit) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }

    #[must_use]
    pub(crate) fn get(&self) -> WriteStallLimit {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
