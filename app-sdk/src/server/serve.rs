//! Serving an app: listener, signals and shutdown.

#[cfg(feature = "embedded")]
use trunkline_proxy::AppListener;

use std::future::pending;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::time::Duration;
use std::{fmt, io};

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use axum::{Extension, Router};
use http::StatusCode;
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use trunkline_process::LinePermit;
use trunkline_protocol::wire::NEGOTIATE_SUFFIX;

use crate::brief_debug::brief_debug;

use super::handle::ServerHandle;
use super::http_serving::{serve_http, sockets_by_descriptors};

/// Time for running HTTP requests after the hubs have stopped.
const LAST_REQUESTS_TIMEOUT: Duration = Duration::from_secs(10);

type Signal = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves an app until Ctrl-C or SIGTERM and stops it gracefully: the common setup around
/// [`axum::serve`](fn@axum::serve).
///
/// ```no_run
/// use axum::Router;
/// use trunkline::{Hub, Server};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::new().hub(Hub::new("/chat"));
/// let handle = server.handle();
/// let app = Router::new().merge(server.into_router()?);
/// let listener = trunkline::listen("127.0.0.1:5000").await?;
/// trunkline::serve(listener, app, &handle).await?;
/// # Ok(()) }
/// ```
///
/// - Sockets have `TCP_NODELAY`, so small messages are not delayed; other listeners, such as TLS listeners, set their
///   own options. Handlers can read the peer's address ([`ConnectInfo`](axum::extract::ConnectInfo)).
/// - A request head has a timeout of 15 s, an idle socket of 130 s. Sockets may use seven eighths of the open files
///   allowed for the process, so idle ones can't exhaust them.
/// - The extractor [`User`](crate::User) works in every handler.
/// - systemd (`Type=notify`, or any supervisor with a `NOTIFY_SOCKET`) is notified when the app is ready and when it
///   stops.
/// - On Ctrl-C, SIGTERM, or completion of the future of [`with_signal`](Serve::with_signal), [`ServerHandle::shutdown`]
///   runs while requests are still accepted. Then running requests have 10 s, within
///   [`shutdown_timeout`](crate::Server::shutdown_timeout) plus 5 s for the whole stop, and no new ones are accepted. A
///   second signal stops immediately.
/// - The development key is only for this machine: without an access key, an address reachable from other machines is
///   an error.
///
/// For other setups use `axum::serve`: see [`Server::into_router`](crate::Server::into_router) and
/// [`ServerHandle::shutdown`].
pub fn serve<L: Listener<Addr = SocketAddr>>(listener: L, router: Router, handle: &ServerHandle) -> Serve<L> {
    Serve { source: SocketSource::App(listener), router, handle: handle.clone(), signal: None }
}

/// Listens on an address. Unlike [`TcpListener::bind`], an error includes the address. A port alone, such as `:5000`,
/// means all addresses of this machine, IPv6 and IPv4.
///
/// # Errors
/// If the address is in use, invalid, or not an address of this machine.
pub async fn listen(address: impl ToSocketAddrs + fmt::Display) -> io::Result<TcpListener> {
    let shown = address.to_string();
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("{shown} can't be listened on: {error}"));
    let listener = match shown.strip_prefix(':').and_then(|port| port.parse().ok()) {
        Some(port) => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
            }
            other => other,
        },
        None => TcpListener::bind(address).await,
    };
    listener.map_err(failed)
}

/// App to be served, created by [`serve()`]. Await it to run the app.
#[must_use = "nothing is served until this is awaited"]
pub struct Serve<L> {
    source: SocketSource<L>,
    router: Router,
    handle: ServerHandle,
    signal: Option<Signal>,
}

enum SocketSource<L> {
    App(L),
    /// The embedded node, which serves some sockets itself.
    #[cfg(feature = "embedded")]
    Node(io::Result<AppListener>),
}

impl<L> Serve<L> {
    /// Stops when this future completes, instead of on Ctrl-C and SIGTERM.
    pub fn with_signal(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.signal = Some(Box::pin(signal));
        self
    }
}

#[cfg(feature = "embedded")]
impl Serve<TcpListener> {
    /// Lets the [embedded node](crate::Server::embedded) accept WebSocket connects to hubs directly from their sockets,
    /// as a proxy does: a connect then costs a third less than through the router.
    ///
    /// As with clients behind a proxy, layers of the router don't see these connects. Tokens, origins and limits of a
    /// hub still apply. All other requests, including negotiations, go through the router. Connects are matched by hub
    /// path, so don't nest the hubs below another path. Without an embedded node, this has no effect.
    pub fn direct_websockets(self) -> Self {
        let Self { source, router, handle, signal } = self;
        let source = match source {
            SocketSource::App(listener) => match handle.node() {
                Some(node) => SocketSource::Node(node.listen(listener)),
                None => SocketSource::App(listener),
            },
            shared @ SocketSource::Node(_) => shared,
        };
        Self { source, router, handle, signal }
    }
}

impl<L: Listener<Addr = SocketAddr>> Serve<L> {
    async fn run(self) -> io::Result<()> {
        let Self { source, router, handle, signal } = self;
        match source {
            SocketSource::App(listener) => serve_from(listener, router, handle, signal).await,
            #[cfg(feature = "embedded")]
            SocketSource::Node(listener) => serve_from(listener?, router, handle, signal).await,
        }
    }
}

impl<L: Listener<Addr = SocketAddr>> IntoFuture for Serve<L> {
    type Output = io::Result<()>;
    type IntoFuture = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

brief_debug!(Serve<L>, |it| { handle: it.handle });

async fn serve_from<L: Listener<Addr = SocketAddr>>(
    listener: L,
    router: Router,
    handle: ServerHandle,
    signal: Option<Signal>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    if handle.uses_development_key() {
        refuse_open(address)?;
    }
    let app = router.layer(Extension(handle.clone())).layer(from_fn_with_state(handle.clone(), lead_to_proxies));
    let closing = CancellationToken::new();
    let mut serving = pin!(serve_http(listener, app, sockets_by_descriptors(), closing.clone()));
    let mut signal = StopSignal::new(signal)?;
    notify(AppState::Ready);
    tracing::info!(%address, "serving");
    tokio::select! {
        () = &mut serving => return Ok(()),
        () = signal.next() => {}
    }
    tracing::info!("stopping");
    notify(AppState::Stopping);
    let stop = async {
        let deadline = handle.stop_deadline();
        handle.shutdown().await;
        closing.cancel();
        sleep_until(deadline.min(Instant::now() + LAST_REQUESTS_TIMEOUT)).await;
    };
    tokio::select! {
        () = &mut serving => {}
        () = stop => tracing::warn!("requests are still running: the app exits without waiting for them"),
        () = signal.next() => tracing::warn!("second stop signal: the app exits immediately"),
    }
    Ok(())
}

fn refuse_open(address: SocketAddr) -> io::Result<()> {
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let problem = format!(
        "{address} is open to other machines, which can't use the development key of this machine: give the app server \
         and its proxies TRUNKLINE_ACCESS_KEY (`trunkline token key` makes one), or listen on 127.0.0.1"
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

#[derive(Debug, Clone, Copy)]
enum AppState {
    Ready,
    Stopping,
}

/// Notifies the supervisor. An unreachable supervisor is ignored.
#[cfg(target_os = "linux")]
fn notify(state: AppState) {
    let message = match state {
        AppState::Ready => sd_notify::NotifyState::Ready,
        AppState::Stopping => sd_notify::NotifyState::Stopping,
    };
    if let Err(error) = sd_notify::notify(&[message]) {
        tracing::warn!(%error, "cannot notify the supervisor (NOTIFY_SOCKET): {state:?}");
    }
}

#[cfg(not(target_os = "linux"))]
fn notify(_state: AppState) {}

/// Response to a client that negotiates here. Official clients show it as the reason of the failed connection.
const NOT_HERE: &str = "this is an app server, which does not serve clients: connect to a proxy that has this app \
                        server as an --upstream, or let the app serve clients by Server::embedded (feature `embedded`)";

/// Middleware that explains the 404 of a hub's negotiate request. Routes of the app take precedence.
pub(super) async fn lead_to_proxies(State(handle): State<ServerHandle>, request: Request, next: Next) -> Response {
    let path = request.uri().path().strip_suffix(NEGOTIATE_SUFFIX);
    let hub = path.and_then(|path| handle.hub_of_proxies(path));
    let answer = next.run(request).await;
    let Some(hub) = hub.filter(|_| answer.status() == StatusCode::NOT_FOUND) else { return answer };
    if let Some(LinePermit { left_out }) = hub.outbound.mistake_limit.take_line() {
        tracing::info!(hub = hub.name(), left_out, "client refused: it negotiates with the app server. {NOT_HERE}");
    }
    (StatusCode::NOT_FOUND, NOT_HERE).into_response()
}

/// Stop signal: Ctrl-C and SIGTERM, or a future of the app.
pub(super) enum StopSignal {
    Future(Option<Pin<Box<dyn Future<Output = ()> + Send>>>),
    #[cfg(unix)]
    Process {
        interrupt: tokio::signal::unix::Signal,
        terminate: tokio::signal::unix::Signal,
    },
    /// Ctrl-C on systems without SIGTERM.
    #[cfg(not(unix))]
    Process,
}

impl StopSignal {
    /// Waits for the future, or without one for process signals. Fails if the system refuses a signal handler.
    pub(super) fn new(future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>) -> io::Result<Self> {
        match future {
            Some(future) => Ok(Self::Future(Some(future))),
            None => Self::process(),
        }
    }

    #[cfg(unix)]
    fn process() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self::Process { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    #[cfg(not(unix))]
    fn process() -> io::Result<Self> {
        Ok(Self::Process)
    }

    /// Waits for the next stop request. A future makes only one.
    pub(super) async fn next(&mut self) {
        match self {
            Self::Future(future) => match future {
                Some(signal) => {
                    signal.await;
                    *future = None;
                }
                None => pending().await,
            },
            #[cfg(unix)]
            Self::Process { interrupt, terminate } => {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            }
            #[cfg(not(unix))]
            Self::Process => {
                let _ = tokio::signal::ctrl_c().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::extract::ConnectInfo;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;

    use super::*;
    use crate::{Hub, Server, User};

    const KEY: &str = "a secret of at least 16 bytes";

    async fn get_over(tcp: &mut TcpStream, path: &str, headers: &str) -> String {
        tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: app\r\n{headers}\r\n").as_bytes()).await.unwrap();
        let mut answer = [0; 1000];
        let length = tcp.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    #[tokio::test]
    async fn an_app_is_served_until_its_signal_and_running_requests_finish() {
        let server = Server::new().access_key(KEY).hub(Hub::new("/chat"));
        let handle = server.handle();
        let (stop, stopping) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = {
            let (stop, stopping) = (Arc::clone(&stop), Arc::clone(&stopping));
            async move || {
                stop.notify_one();
                stopping.notified().await;
                "done"
            }
        };
        let signal = async move {
            stop.notified().await;
            stopping.notify_one();
        };
        let app = Router::new()
            .route("/user", get(async |user: User| user.id().to_owned()))
            .route("/peer", get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string()))
            .route("/slow", get(slow))
            .merge(server.into_router().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, app, &handle).with_signal(signal).into_future());
        let mut tcp = TcpStream::connect(address).await.unwrap();
        let token = handle.token("ann").sign().unwrap();
        let answer = get_over(&mut tcp, "/user", &format!("authorization: Bearer {token}\r\n")).await;
        assert!(answer.ends_with("ann"), "{answer}");
        let peer = tcp.local_addr().unwrap().to_string();
        assert!(get_over(&mut tcp, "/peer", "").await.ends_with(&peer));
        assert!(get_over(&mut tcp, "/slow", "").await.ends_with("done"));
        serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_address_that_is_in_use_is_named() {
        let taken = listen("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let held = listen(taken).await.unwrap();
        let error = listen(taken.to_string()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("{taken} can't be listened on: ")), "{error}");
        drop(held);
    }

    #[tokio::test]
    async fn a_page_that_takes_the_app_for_a_proxy_reads_where_to_go() {
        let server = Server::new().access_key(KEY).hub(Hub::new("/Chat"));
        let handle = server.handle();
        let app =
            Router::new().route("/talk/negotiate", get(async || "of the app")).merge(server.into_router().unwrap());
        let listener = listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, app, &handle).with_signal(std::future::pending()).into_future());
        let mut tcp = TcpStream::connect(address).await.unwrap();
        for (path, is_led) in [("/chat/negotiate?negotiateVersion=1", true), ("/other/negotiate", false), ("/", false)]
        {
            let answer = get_over(&mut tcp, path, "").await;
            assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
            assert_eq!(answer.contains("connect to a proxy"), is_led, "{path}: {answer}");
        }
        assert!(get_over(&mut tcp, "/talk/negotiate", "").await.ends_with("of the app"));
        serving.abort();
    }

    #[tokio::test]
    async fn a_port_alone_is_every_address_of_this_machine() {
        let listener = listen(":0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(address.ip().is_unspecified(), "{address}");
        TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).await.unwrap();
        assert!(listen(":x").await.unwrap_err().to_string().starts_with(":x can't be listened on"));
    }

    #[test]
    fn the_development_key_is_served_on_this_machine_only() {
        for local in ["127.0.0.1:5000", "[::1]:5000", "[::ffff:127.0.0.1]:5000"] {
            assert!(refuse_open(local.parse().unwrap()).is_ok(), "{local}");
        }
        for open in ["0.0.0.0:5000", "[::]:5000", "10.0.0.1:5000"] {
            let error = refuse_open(open.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(open) && error.contains("TRUNKLINE_ACCESS_KEY"), "{error}");
        }
    }
}
