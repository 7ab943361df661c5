//! Accept connections and serve HTTP on them: hyper, because it lets us see the socket, its time-outs and its end.
//!
//! ```text
//!  accept ──► PROXY header, where load balancers send one ──► TLS, at that listener ──► HTTP/1.1, or HTTP/2 in TLS
//! ```

mod http;
mod proxy_header;
#[cfg(feature = "tls")]
mod tls;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ::http::uri::Scheme;
use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::{debug, warn};
use trunkline_protocol::cause::Cause;

use super::door::{Door, Entered};
use super::refusal::note_socket;
use crate::config::ProxyProtocolSettings;
use crate::net::socket::{CurrentStallLimit, StallGuard};

#[cfg(feature = "fuzzing")]
pub(crate) use proxy_header::{Begun, begun};
#[cfg(feature = "tls")]
pub(crate) use tls::TlsLayer;

/// When the process has no descriptors left, accepting again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a request came from. Beside it each request carries the [`Scheme`] by which it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerAddress(pub SocketAddr);

/// A socket that is in.
pub(super) struct Visit {
    /// Where it comes from.
    peer: SocketAddr,
    door: Door,
    entered: Entered,
    /// With what the client does not read.
    patience: CurrentStallLimit,
}

impl Visit {
    /// Its socket, for HTTP.
    fn patient(&self, stream: TcpStream) -> StallGuard {
        StallGuard::new(stream, self.patience.clone())
    }
}

/// What lies between a listener's sockets and HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    /// Who tells client addresses.
    pub proxy_protocol: Option<ProxyProtocolSettings>,
    #[cfg(feature = "tls")]
    pub tls: Option<TlsLayer>,
}

impl Layers {
    #[must_use]
    pub(crate) fn plain(proxy_protocol: Option<ProxyProtocolSettings>) -> Self {
        Self {
            proxy_protocol,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    fn is_empty(&self) -> bool {
        #[cfg(feature = "tls")]
        let is_plain = self.tls.is_none();
        #[cfg(not(feature = "tls"))]
        let is_plain = true;
        is_plain && self.proxy_protocol.is_none()
    }
}

/// Accepts connections for ever.
pub(crate) async fn serve(listener: TcpListener, layers: Layers, router: Router, door: Door) {
    let layers = Rc::new(layers);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // On a listener for both families IPv4 addresses come as `::ffff:a.b.c.d`.
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let entered = match door.enter(peer) {
                    Ok(entered) => entered,
                    Err(turned_away) => {
                        // Behind a layer nobody would understand why.
                        if layers.is_empty() {
                            spawn_local(turned_away.tell(stream));
                        }
                        continue;
                    }
                };
                let visit = Visit { peer, door: door.clone(), entered, patience: CurrentStallLimit::default() };
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%peer, %error, "a connection was gone before it was served");
                } else if layers.is_empty() {
                    spawn_local(http::http1(visit.patient(stream), visit, Scheme::HTTP, router.clone()));
                } else {
                    spawn_local(pass(stream, visit, layers.clone(), router.clone()));
                }
            }
            Err(error) => {
                warn!(%error, "a connection can't be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Passes a socket through the layers. HTTP is a task of its own, which pays for none of them.
async fn pass(stream: TcpStream, mut visit: Visit, layers: Rc<Layers>, router: Router) {
    let (peer, counters) = (visit.peer, visit.door.counters().clone());
    if let Some(rules) = layers.proxy_protocol.as_ref().filter(|rules| rules.from.contains(peer.ip())) {
        match proxy_header::read(&stream, rules.timeout, &counters.proxy_headers).await {
            Some(told) => visit.peer = told.unwrap_or(peer),
            None => {
                note_socket(&counters, Cause::ProxyHeaderInvalid);
                return debug!(%peer, cause = %Cause::ProxyHeaderInvalid, "a connection without a PROXY protocol header is refused");
            }
        }
    }
    #[cfg(feature = "tls")]
    if let Some(tls) = &layers.tls {
        let stream = visit.patient(stream);
        let Some(stream) = tls.accept(stream, visit.peer, &counters.tls_handshakes).await else {
            return note_socket(&counters, Cause::TlsFailed);
        };
        if tls::speaks_http2(&stream) {
            spawn_local(http::http2(stream, visit, router));
        } else {
            spawn_local(http::http1(stream, visit, Scheme::HTTPS, router));
        }
        return;
    }
    spawn_local(http::http1(visit.patient(stream), visit, Scheme::HTTP, router));
}
