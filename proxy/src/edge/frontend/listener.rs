//! Listener: accepts sockets and serves HTTP on them with hyper, which gives access to the socket, its timeouts and its
//! end.
//!
//! ```text
//!  accept ─► gate ─┬─► PROXY header, from configured load balancers ─► TLS, at the TLS listener ─► HTTP/1.1, or HTTP/2 in TLS
//!                  └─► first request, without these layers ─► a WebSocket, HTTP/1.1, or the embedding app
//! ```

mod first_request;
mod head_timer;
#[cfg(feature = "tls")]
mod http2_connection;
mod http_connection;
mod listener_gate;
#[cfg(feature = "tls")]
mod open_stream;
mod proxy_header;
mod socket_context;
#[cfg(feature = "tls")]
mod tls_layer;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use axum::Router;
use http::uri::Scheme;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::{debug, warn};
use trunkline_process::{LinePermit, LogLimit};
use trunkline_protocol::cause::Cause;

use crate::edge::frontend::refusal::count_refused_socket;
use crate::ground::config::ProxyProtocolSettings;
use crate::ground::net::descriptor::DescriptorLimit;
use socket_context::SocketContext;

pub(crate) use listener_gate::ListenerGate;
#[cfg(feature = "fuzzing")]
pub(crate) use proxy_header::{HeaderStart, header_start};
pub(crate) use socket_context::ListenerService;
#[cfg(feature = "tls")]
pub(crate) use tls_layer::TlsLayer;

/// Pause after a failed accept. Without free descriptors, retrying immediately would only use CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Minimum interval between warnings.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Idle time before TCP keep-alive probes; longer than hub keep-alives.
const KEEP_ALIVE: Duration = Duration::from_secs(120);

/// Whether accepted sockets inherit the listener's options, which saves four system calls each.
const IS_INHERITED: bool = cfg!(target_os = "linux");

/// Layers between a listener's sockets and HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    /// Load balancers that send a PROXY header.
    pub proxy_protocol: Option<ProxyProtocolSettings>,
    #[cfg(feature = "tls")]
    pub tls: Option<TlsLayer>,
}

impl Layers {
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

/// Serves the sockets of a listener until it is told to end, including those that wait for it then.
pub(crate) async fn serve(
    listener: TcpListener,
    layers: Layers,
    service: ListenerService,
    gate: ListenerGate,
    end: impl Future<Output = ()>,
) {
    let acceptor = Acceptor {
        layers: Rc::new(layers),
        service: Rc::new(service),
        gate,
        descriptors: DescriptorLimit::for_clients(),
        warnings: LogLimit::new(1, WARNING_INTERVAL),
    };
    if let Err(error) = prepare(&listener) {
        warn!(%error, "cannot set options of a listening socket");
    }
    let mut end = pin!(end);
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = &mut end => break,
        };
        match accepted {
            Ok((stream, peer)) => acceptor.serve(stream, peer),
            Err(error) => {
                if let Some(LinePermit { left_out }) = acceptor.warnings.take_line() {
                    warn!(%error, left_out, "cannot accept a connection");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Asks the system itself, because the runtime may not know of the latest sockets, and a close would reset them.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
            acceptor.serve(stream, peer);
        }
    }
}

struct Acceptor {
    layers: Rc<Layers>,
    service: Rc<ListenerService>,
    gate: ListenerGate,
    descriptors: DescriptorLimit,
    warnings: LogLimit,
}

impl Acceptor {
    /// Serves an accepted socket in its own task, unless it is refused.
    fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        let Self { layers, service, gate, .. } = self;
        if !self.descriptors.allows(&stream) {
            gate.count_without_descriptor();
            drop(stream);
            if let Some(LinePermit { left_out }) = self.warnings.take_line() {
                let text =
                    "refusing connections: the last file descriptors are reserved; raise the limit of open files";
                warn!(%peer, left_out, "{text}");
            }
            return;
        }
        // Dual-stack listeners report IPv4 addresses as `::ffff:a.b.c.d`.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let admitted = match gate.admit(peer) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                // Below a layer, the client could not read the reason.
                if layers.is_empty() {
                    spawn_local(refusal.send(stream));
                }
                return;
            }
        };
        let context = SocketContext::new(peer, gate.clone(), admitted);
        if !IS_INHERITED && let Err(error) = prepare(&stream) {
            debug!(%peer, %error, "connection closed before it was served");
        } else if layers.is_empty() {
            spawn_local(first_request::serve(stream, context, service.clone()));
        } else {
            spawn_local(serve_layered(stream, context, layers.clone(), service.router.clone()));
        }
    }
}

/// Disables Nagle's algorithm, and detects vanished clients where nothing else would: in a request that waits for an
/// app server, or an app's tunnel.
fn prepare<'a>(socket: impl Into<SockRef<'a>>) -> io::Result<()> {
    let socket = socket.into();
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE / 4))
}

/// Serves HTTP/1.1 on a pipe, as on an accepted socket.
pub(crate) async fn serve_pipe(pipe: DuplexStream, peer: SocketAddr, gate: ListenerGate, router: Router) {
    if let Ok(admitted) = gate.admit(peer) {
        http_connection::serve(pipe, SocketContext::new(peer, gate, admitted), Scheme::HTTP, router).await;
    }
}

/// Passes a socket through the layers. HTTP runs in its own task, which holds none of their memory.
async fn serve_layered(stream: TcpStream, mut context: SocketContext, layers: Rc<Layers>, router: Router) {
    let (peer, counters) = (context.peer, context.gate.counters.clone());
    if let Some(rules) = layers.proxy_protocol.as_ref().filter(|rules| rules.from.contains(peer.ip())) {
        match proxy_header::read_header(&stream, rules.timeout, &counters.proxy_headers).await {
            Some(Some(client)) => {
                context.peer = client;
                if context.gate.assign(&mut context.admitted, client).is_err() {
                    return debug!(peer = %client, "connection refused: see --connections-per-address-max");
                }
            }
            Some(None) => {}
            None => {
                count_refused_socket(&counters, Cause::ProxyHeaderInvalid);
                return debug!(
                    %peer,
                    cause = %Cause::ProxyHeaderInvalid,
                    "connection without a PROXY protocol header refused"
                );
            }
        }
    }
    #[cfg(feature = "tls")]
    if let Some(tls) = &layers.tls {
        let stream = context.patient(stream);
        let Some(stream) = tls.accept(stream, context.peer, &counters.tls_handshakes).await else {
            return count_refused_socket(&counters, Cause::TlsFailed);
        };
        if tls_layer::speaks_http2(&stream) {
            spawn_local(http2_connection::serve(stream, context, router));
        } else {
            spawn_local(http_connection::serve(stream, context, Scheme::HTTPS, router));
        }
        return;
    }
    spawn_local(http_connection::serve(context.patient(stream), context, Scheme::HTTP, router));
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;
    use trunkline_protocol::key::{AccessKey, AccessKeys};

    use super::*;
    use crate::engine::shard::{ShardSender, Shared};
    use crate::ground::config::Settings;

    #[tokio::test]
    async fn sockets_that_wait_at_the_end_are_served() {
        const WAITING: usize = 20;
        let keys = AccessKeys::new(vec![AccessKey::random()]).unwrap();
        let shared = Shared::alone(Settings::embedded(keys, Vec::new(), true), vec![ShardSender::new().0]);
        let gate = ListenerGate::new(shared.clone(), shared.counters_of(0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let waiting: Vec<_> = (0..WAITING).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let service = ListenerService { router: Router::new(), connects: None, app: None };
        let layers = Layers::plain(None);
        LocalSet::new().run_until(serve(listener, layers, service, gate, std::future::ready(()))).await;
        assert_eq!(shared.counters_of(0).accepted.get(), WAITING as u64);
        drop(waiting);
        assert!(std::net::TcpStream::connect(address).is_err(), "a balancer tries another node");
    }

    #[tokio::test]
    async fn accepted_sockets_have_the_options_of_the_listening_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        prepare(&listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        if !IS_INHERITED {
            prepare(&stream).unwrap();
        }
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        let times = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
        assert_eq!(times, (KEEP_ALIVE, KEEP_ALIVE / 4));
    }
}
