//! TLS layer of a listener: the handshake with a client.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::time::timeout;
use tracing::debug;

use crate::ground::metrics::{Outcome, OutcomeCounters};
use crate::ground::net::socket::StallGuard;
use crate::ground::net::tls::TlsStream;

#[derive(Clone)]
pub(crate) struct TlsLayer {
    config: Arc<ServerConfig>,
    timeout: Duration,
}

impl TlsLayer {
    pub(crate) fn new(config: Arc<ServerConfig>, timeout: Duration) -> Self {
        Self { config, timeout }
    }

    /// Performs the handshake; `None` if it failed, which is counted.
    pub(crate) async fn accept(
        &self,
        stream: StallGuard,
        peer: SocketAddr,
        outcomes: &OutcomeCounters,
    ) -> Option<TlsStream<StallGuard>> {
        let shaken = timeout(self.timeout, TlsStream::accept(Arc::clone(&self.config), stream)).await;
        let (outcome, stream) = match shaken {
            Ok(Ok(stream)) => (Outcome::Done, Some(stream)),
            Ok(Err(error)) => {
                // Not a warning, because strangers could fill the log.
                debug!(%peer, %error, "TLS handshake failed");
                (cause(&error), None)
            }
            Err(_) => (Outcome::Timeout, None),
        };
        outcomes.of(outcome).increment();
        stream
    }
}

impl std::fmt::Debug for TlsLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsLayer").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

fn cause(error: &io::Error) -> Outcome {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(_)) => Outcome::Alert,
        Some(_) => Outcome::Invalid,
        None => Outcome::Closed,
    }
}

pub(crate) fn speaks_http2(stream: &TlsStream<StallGuard>) -> bool {
    stream.alpn_protocol() == Some(b"h2")
}
