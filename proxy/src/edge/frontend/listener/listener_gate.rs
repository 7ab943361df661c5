//! Gate of a listener: admits sockets before any data is read, and applies the HTTP limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;
use trunkline_process::LinePermit;
use trunkline_protocol::cause::Cause;

use super::head_timer::HeadTimer;
use crate::edge::frontend::refusal::{cause_of_limit, count_refused_socket};
#[cfg(feature = "tls")]
use crate::edge::frontend::request_head::HEADERS_MAX;
use crate::engine::shard::Shared;
use crate::ground::bounded::BudgetShare;
use crate::ground::config::FrontendLimits;
use crate::ground::limits::{AddressPermit, RelayConnection, SetupFault};
use crate::ground::metrics::{Counters, Limit};
use crate::ground::net::socket::half_close;

/// Time for a refused client to read the response.
pub(super) const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

const FULL: &str = "this node has reached its limit of connections: see --connections-max\n";
const FULL_FOR_ADDRESS: &str = "this address has reached its limit of connections: see --connections-per-address-max\n";

#[derive(Debug, Clone)]
pub(crate) struct ListenerGate {
    shared: Arc<Shared>,
    pub(super) counters: Arc<Counters>,
}

/// Guard of an admitted socket, while it serves requests.
#[derive(Debug)]
pub(crate) struct AdmittedSocket {
    permit: Option<AddressPermit>,
    _open: BudgetShare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketRefusal {
    /// The connection limit of the node is reached.
    Full,
    /// The connection limit of the address is reached.
    FullForAddress,
}

impl ListenerGate {
    pub(crate) fn new(shared: Arc<Shared>, counters: Arc<Counters>) -> Self {
        Self { shared, counters }
    }

    /// Admits a socket. A trusted address represents many clients, so its sockets are not counted.
    pub(crate) fn admit(&self, peer: SocketAddr) -> Result<AdmittedSocket, SocketRefusal> {
        self.counters.accepted.increment();
        let (limits, settings) = (&self.shared.limits, &self.shared.settings);
        let open = self.shared.sockets() + (limits.open.used() + limits.pipes.len()) as u64;
        if settings.limits.connections.is_some_and(|most| open >= u64::from(most.get())) {
            self.count_refused(Limit::Connections);
            return Err(SocketRefusal::Full);
        }
        Ok(AdmittedSocket { permit: self.permit(peer)?, _open: limits.open.charge(1) })
    }

    /// Counts an admitted socket for the client named by its load balancer.
    pub(super) fn assign(&self, socket: &mut AdmittedSocket, client: SocketAddr) -> Result<(), SocketRefusal> {
        socket.permit = self.permit(client)?;
        Ok(())
    }

    fn permit(&self, peer: SocketAddr) -> Result<Option<AddressPermit>, SocketRefusal> {
        // Sockets through a broker have no address, and only nodes open them.
        let is_counted = !self.trusts(peer) && !peer.ip().is_unspecified();
        let addresses = self.shared.limits.sockets.as_ref().filter(|_| is_counted);
        let permit = addresses
            .map(|addresses| addresses.take(Some(peer.ip().into())).map_err(|_| SocketRefusal::FullForAddress));
        permit.transpose().inspect_err(|_| self.count_refused(Limit::ConnectionsPerAddress))
    }

    pub(super) fn relay_connection(&self) -> RelayConnection {
        self.shared.limits.relays.connection()
    }

    /// Builder of an HTTP/1 connection within the limits. `first_head` is the timeout of the first head.
    pub(super) fn http1(&self, timer: HeadTimer, first_head: Duration) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder.timer(timer).header_read_timeout(first_head).max_buf_size(self.shared.settings.limits.head_max_bytes);
        builder
    }

    pub(super) fn limits(&self) -> &FrontendLimits {
        &self.shared.settings.limits
    }

    /// Counts a socket refused at a limit.
    pub(super) fn count_refused(&self, limit: Limit) {
        self.counters.limit(limit).increment();
        count_refused_socket(&self.counters, cause_of_limit(limit));
    }

    /// Counts a socket closed because the remaining descriptors are reserved.
    pub(super) fn count_without_descriptor(&self) {
        self.counters.accepted.increment();
        self.count_refused(Limit::Descriptors);
    }

    /// Whether the node is about to stop. The next request should use a new connection, which reaches another node.
    pub(super) fn is_stopping(&self) -> bool {
        self.shared.has_begun_drain()
    }

    #[cfg(feature = "tls")]
    pub(super) async fn stopping(&self) {
        self.shared.drain_begun().await;
    }

    pub(super) fn trusts(&self, peer: SocketAddr) -> bool {
        self.shared.settings.trusted.contains(peer.ip())
    }

    /// Maximum size of a request head in bytes as counted by HTTP/2, with 32 bytes per header. Normalisation counts
    /// without them, and its error states the limit.
    #[cfg(feature = "tls")]
    pub(crate) fn head_max_bytes(&self) -> usize {
        self.shared.settings.limits.head_max_bytes + 32 * HEADERS_MAX
    }

    /// Takes permission for a log line about HTTP/2 without TLS.
    pub(super) fn pass_plain_http2(&self) -> Option<LinePermit> {
        self.shared.limits.setup_faults.of(SetupFault::PlainHttp2).take_line()
    }

    pub(crate) fn count(&self, error: &hyper::Error) {
        if error.is_timeout() {
            self.count_refused(Limit::HeadTime);
        } else if error.is_parse_too_large() {
            self.count_refused(Limit::HeadSize);
        } else if error.is_parse() {
            self.counters.malformed.increment();
            count_refused_socket(&self.counters, Cause::RequestInvalid);
        }
    }
}

impl SocketRefusal {
    /// Responds with the reason, and closes.
    pub(crate) async fn send(self, stream: TcpStream) {
        let (status, text) = match self {
            Self::Full => ("503 Service Unavailable", FULL),
            Self::FullForAddress => ("429 Too Many Requests", FULL_FOR_ADDRESS),
        };
        let length = text.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nRetry-After: 5\r\n\
             Connection: close\r\n\r\n{text}"
        );
        if timeout(REFUSAL_TIMEOUT, write_and_drain(stream, &answer)).await.is_err() {
            debug!("refused socket did not read the response");
        }
    }
}

/// Writes the response and discards data in flight. Failures are ignored: the client is gone.
async fn write_and_drain(mut stream: TcpStream, answer: &str) {
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        drop(half_close(stream).await);
    }
}
