//! How long an answer may stand still because its client does not read it.
//!
//! hyper asks an answer for more only when the socket has taken what was there. One whose client has stopped reading
//! neither moves on nor learns that nobody needs it any more. So whoever answers says beforehand how long that may last,
//! and whoever holds the socket sees to it.

use std::future::pending;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// What is left for a client when its connection is over has so long to leave: as long as a WebSocket may take to close.
const GRACE: Duration = Duration::from_secs(5);

/// How long an answer may stand still.
#[derive(Debug, Clone, Default)]
pub(crate) enum Patience {
    /// For ever: how fast a client reads is its own affair.
    #[default]
    Endless,
    /// While the client connection lives that it belongs to, and a little longer.
    UntilOver(Over),
    /// For so long without a byte that moves.
    Stalled(Duration),
}

/// The end of a client connection, and what is left of the time after it.
#[derive(Debug, Clone)]
pub(crate) struct Over {
    connection: CancellationToken,
    /// When it was first seen that something is left: who reads a byte now and then gains no time by that.
    seen: Arc<OnceLock<Instant>>,
}

impl Patience {
    /// Patience with the answers of a client connection, whose end this token tells.
    #[must_use]
    pub(crate) fn until_over(connection: CancellationToken) -> Self {
        Self::UntilOver(Over { connection, seen: Arc::default() })
    }

    /// Returns when it has run out with somebody who takes nothing from now on.
    pub(crate) async fn run_out(self) {
        match self {
            Self::Endless => pending().await,
            Self::UntilOver(over) => {
                over.connection.cancelled().await;
                sleep_until(*over.seen.get_or_init(Instant::now) + GRACE).await;
            }
            Self::Stalled(time) => sleep(time).await,
        }
    }
}

/// The patience with the answer that leaves at the moment. Its copies are one and the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct CurrentPatience(Arc<Mutex<Patience>>);

impl CurrentPatience {
    pub(crate) fn set(&self, patience: Patience) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = patience;
    }

    #[must_use]
    pub(crate) fn get(&self) -> Patience {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
