//! Who may open a socket, and what of HTTP it is held to. Each socket passes here once, before anything is read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;
use trunkline_protocol::cause::Cause;

use super::refusal::note_socket;
use crate::limits::AddressPermit;
use crate::metrics::{Counters, Limit};
use crate::shard::Shared;

/// Who is sent away before its request was read has so long to read why.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// What may be read of a request that is not served: closing before would take our answer along.
const IGNORED_MAX_BYTES: usize = 64 * 1024;

const FULL: &str = "this node has as many connections as it may have: see --connections-max\n";
const FULL_FOR_ADDRESS: &str =
    "this address has as many connections as it may have: see --connections-per-address-max\n";

/// The door of one shard.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
}

/// A socket that is in, as long as requests are served on it.
#[derive(Debug)]
pub(super) struct Entered {
    shared: Arc<Shared>,
    _seat: Option<AddressPermit>,
}

/// A socket that is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnedAway {
    /// The node is full.
    Full,
    /// Its address has all it may have.
    FullForAddress,
}

impl Door {
    /// The door of a shard that counts here.
    #[must_use]
    pub(crate) fn new(shared: Arc<Shared>, counters: Arc<Counters>) -> Self {
        Self { shared, counters }
    }

    /// Lets a socket in. Behind a trusted address many clients stand, so that one is not counted.
    pub(super) fn enter(&self, peer: SocketAddr) -> Result<Entered, TurnedAway> {
        self.counters.accepted.increment();
        let (tally, settings) = (&self.shared.limits, &self.shared.settings);
        let open = self.shared.sockets() + u64::from(tally.open());
        if settings.limits.connections.is_some_and(|most| open >= u64::from(most.get())) {
            self.counters.limit(Limit::Connections).increment();
            note_socket(&self.counters, Cause::LimitConnections);
            return Err(TurnedAway::Full);
        }
        let seat = match &tally.sockets {
            Some(addresses) if !settings.trusted.contains(peer.ip()) => {
                let seat = addresses.take(peer.ip());
                if seat.is_none() {
                    self.counters.limit(Limit::ConnectionsPerAddress).increment();
                    note_socket(&self.counters, Cause::LimitAddress);
                    return Err(TurnedAway::FullForAddress);
                }
                seat
            }
            _ => None,
        };
        tally.opened();
        Ok(Entered { shared: self.shared.clone(), _seat: seat })
    }

    /// HTTP/1 as it is served here.
    pub(super) fn http1(&self) -> http1::Builder {
        let limits = &self.shared.settings.limits;
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(limits.head_max_bytes);
        builder
    }

    /// What the shard counts.
    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Largest head of a request in bytes.
    #[cfg(feature = "tls")]
    pub(super) fn head_max_bytes(&self) -> usize {
        self.shared.settings.limits.head_max_bytes
    }

    /// Counts why a socket could not be served any further.
    pub(super) fn count(&self, error: &hyper::Error) {
        if error.is_timeout() {
            self.counters.limit(Limit::HeadTime).increment();
            note_socket(&self.counters, Cause::HeadTimeout);
        } else if error.is_parse_too_large() {
            self.counters.limit(Limit::HeadSize).increment();
            note_socket(&self.counters, Cause::HeadTooLarge);
        } else if error.is_parse() {
            self.counters.malformed.increment();
            note_socket(&self.counters, Cause::RequestInvalid);
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.shared.limits.closed();
    }
}

impl TurnedAway {
    /// Says why, and closes.
    pub(super) async fn tell(self, stream: TcpStream) {
        let (status, text) = match self {
            Self::Full => ("503 Service Unavailable", FULL),
            Self::FullForAddress => ("429 Too Many Requests", FULL_FOR_ADDRESS),
        };
        let length = text.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nRetry-After: 5\r\n\
             Connection: close\r\n\r\n{text}"
        );
        if timeout(FAREWELL_TIMEOUT, say(stream, &answer)).await.is_err() {
            debug!("a socket that was turned away did not read why");
        }
    }
}

/// Says the last words and reads what is under way; a failure means that nobody listens.
async fn say(mut stream: TcpStream, answer: &str) {
    if stream.write_all(answer.as_bytes()).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    let (mut ignored, mut left) = ([0; 1024], IGNORED_MAX_BYTES);
    while let Ok(count @ 1..) = stream.read(&mut ignored).await {
        left = left.saturating_sub(count);
        if left == 0 {
            return;
        }
    }
}
