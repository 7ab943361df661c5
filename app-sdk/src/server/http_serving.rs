//! HTTP serving of an app's sockets: incomplete heads time out, and the process's file descriptors bound the number of
//! sockets.

use std::any::Any;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as StdInstant};

use axum::extract::ConnectInfo;
use axum::serve::Listener;
use axum::{Extension, Router};
use hyper::rt::{Sleep, Timer};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Layer;

/// Timeout of the first request head, as for clients of a node.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Idle timeout between requests, including the rest of the next request head. Longer than the timeout of proxies and
/// load balancers, so that they close first and never send into a socket just closed here.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(130);

/// Serves the sockets of a listener until `closing`, then completes running requests.
pub(super) async fn serve_http<L: Listener<Addr = SocketAddr>>(
    mut listener: L,
    app: Router,
    sockets_max: usize,
    closing: CancellationToken,
) {
    let sockets = TaskTracker::new();
    loop {
        let (mut socket, peer) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => break,
        };
        // Sockets that became WebSockets no longer count as requests, but keep their descriptors.
        if sockets.len() >= sockets_max || number(&socket).is_some_and(|number| number >= sockets_max) {
            tracing::debug!(%peer, sockets_max, "socket closed: the limit of open files is reached");
            continue;
        }
        set_no_delay(&mut socket);
        sockets.spawn(serve_socket(socket, peer, app.clone(), closing.clone()));
    }
    // Refuse new connections instead of leaving them in the backlog.
    drop(listener);
    sockets.close();
    sockets.wait().await;
}

async fn serve_socket(
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: SocketAddr,
    app: Router,
    closing: CancellationToken,
) {
    let service = TowerToHyperService::new(Extension(ConnectInfo(peer)).layer(app));
    let connection = http1::Builder::new()
        .timer(AppTimer::default())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "socket closed in the middle of a request");
    }
}

/// Timer for hyper, which uses a single timeout for a request head and the idle time before it. From the second head
/// on, the longer timeout applies.
#[derive(Debug, Default)]
struct AppTimer {
    has_served: AtomicBool,
}

impl Timer for AppTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: StdInstant) -> Pin<Box<dyn Sleep>> {
        let is_first = !self.has_served.swap(true, Ordering::Relaxed);
        let deadline = if is_first { deadline } else { self.now() + KEEP_ALIVE_TIMEOUT };
        TokioTimer::new().sleep_until(deadline)
    }

    fn now(&self) -> StdInstant {
        tokio::time::Instant::now().into_std()
    }
}

/// Maximum number of sockets for the process's file descriptors, minus a share for other uses: files, database
/// connections, links.
#[cfg(unix)]
pub(super) fn sockets_by_descriptors() -> usize {
    let most = trunkline_process::open_files().soft;
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    most - most / 8
}

#[cfg(not(unix))]
pub(super) fn sockets_by_descriptors() -> usize {
    usize::MAX
}

/// File descriptor number of a socket: the lowest free one, so it shows how many are in use for any purpose. `None` for
/// sockets of other listeners.
#[cfg(unix)]
fn number<T: 'static>(socket: &T) -> Option<usize> {
    use std::os::fd::AsRawFd;

    let socket = socket as &dyn Any;
    let number = socket.downcast_ref::<TcpStream>().map(AsRawFd::as_raw_fd);
    #[cfg(feature = "embedded")]
    let number = number
        .or_else(|| socket.downcast_ref::<<trunkline_proxy::AppListener as Listener>::Io>().map(AsRawFd::as_raw_fd));
    number.and_then(|number| usize::try_from(number).ok())
}

#[cfg(not(unix))]
fn number<T>(_socket: &T) -> Option<usize> {
    None
}

/// Disables Nagle's algorithm, which would delay small messages. Other listeners set their own socket options.
fn set_no_delay<T: 'static>(socket: &mut T) {
    if let Some(tcp) = (socket as &mut dyn Any).downcast_mut::<TcpStream>() {
        let _ = tcp.set_nodelay(true);
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    /// Listener of pipes, so that tests can use virtual time.
    struct PipeListener(mpsc::UnboundedReceiver<DuplexStream>);

    impl Listener for PipeListener {
        type Io = DuplexStream;
        type Addr = SocketAddr;

        async fn accept(&mut self) -> (DuplexStream, SocketAddr) {
            match self.0.recv().await {
                Some(pipe) => (pipe, ([192, 0, 2, 1], 1).into()),
                None => std::future::pending().await,
            }
        }

        fn local_addr(&self) -> std::io::Result<SocketAddr> {
            Ok(([192, 0, 2, 9], 9).into())
        }
    }

    /// Starts an app that serves at most `sockets_max` sockets, and returns a function that connects.
    fn app(sockets_max: usize) -> impl Fn() -> DuplexStream {
        let (connect, listener) = mpsc::unbounded_channel();
        let app = Router::new().route("/", get(async || "here"));
        tokio::spawn(serve_http(PipeListener(listener), app, sockets_max, CancellationToken::new()));
        move || {
            let (near, far) = duplex(1000);
            connect.send(far).unwrap();
            near
        }
    }

    async fn ask(socket: &mut DuplexStream) -> String {
        socket.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n").await.unwrap();
        let mut answer = [0; 1000];
        let length = socket.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    async fn closed_after(socket: &mut DuplexStream) -> u64 {
        let begun = Instant::now();
        assert_eq!(socket.read(&mut [0; 10]).await.unwrap(), 0);
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_a_head_and_a_silent_socket_are_closed_in_time() {
        let connect = app(100);
        for begun in ["", "G", "GET / HTTP/1.1\r\nhost: a", "GET /chat HTTP/1.1\r\nupgrade: websocket\r\n"] {
            let mut socket = connect();
            socket.write_all(begun.as_bytes()).await.unwrap();
            assert_eq!(closed_after(&mut socket).await, 15, "{begun:?}");
        }
        let mut served = connect();
        assert!(ask(&mut served).await.ends_with("here"));
        assert!(ask(&mut served).await.ends_with("here"));
        assert_eq!(closed_after(&mut served).await, 130);
    }

    #[tokio::test(start_paused = true)]
    async fn sockets_beyond_the_bound_are_closed_until_there_is_room() {
        let connect = app(2);
        let (mut first, mut second) = (connect(), connect());
        assert!(ask(&mut first).await.ends_with("here") && ask(&mut second).await.ends_with("here"));
        assert_eq!(closed_after(&mut connect()).await, 0);
        drop(first);
        let mut later = connect();
        // The end of the first socket is processed before the later one is accepted.
        assert!(ask(&mut later).await.ends_with("here"));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn sockets_that_became_websockets_count_by_their_descriptors() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/", get(async || "here"));
        // By count there is space for one socket, but not by descriptor number: the process has more files open.
        tokio::spawn(serve_http(listener, app, 1, CancellationToken::new()));
        let mut refused = TcpStream::connect(address).await.unwrap();
        let _ = refused.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n").await;
        assert_eq!(refused.read(&mut [0; 10]).await.unwrap_or(0), 0, "closed without an answer");
    }
}
