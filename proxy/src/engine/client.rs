//! Service of one client socket: hub handshake, reading, close.
//!
//! ```text
//!  PendingConnection ──socket──► hub handshake ──► open at the app server ──► read until the socket ends
//! ```
//!
//! One task per connection. While the socket is idle, the task holds no buffer and waits for the socket only.

mod accept;
mod deflated_input;
mod gate;
mod handshake;
mod inbound;
mod inbound_error;
mod raw_message;
mod reader;
mod upward_path;

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::debug;

use self::reader::Reader;
use crate::engine::shard::moving::reconnect::keep_permit;
use crate::engine::shard::{ClientStream, PendingConnection, Shard, Sockets};
use crate::engine::transport::event_stream::EventEncoder;
use crate::ground::net::socket::{AnswerSocket, RequestSocket, Socket, StallGuard};
#[cfg(feature = "tls")]
use crate::ground::net::{socket::TlsSocket, tls::TlsStream};

/// Timeout for sending the response head of an event stream, as the handshake timeout of official servers.
const STREAM_HEAD_TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) async fn serve(shard: Rc<Shard>, mut pending: Box<PendingConnection>) {
    let permit = pending.permit.take();
    let id: Rc<str> = Rc::from(&*pending.open.connection_id);
    let (is_negotiated, is_new) = (pending.is_negotiated, pending.claimed.is_none());
    shard.shared().socket_began();
    // Boxed, so that an idle connection does not hold the handshake's buffers and timers.
    let accepted = Box::pin(connect(&shard, pending)).await;
    match accepted {
        Some(reader) => {
            // The reader holds a copy.
            drop(id);
            let _permit = shard.step(|state| keep_permit(state, reader.place(), permit));
            reader.run(&shard).await;
        }
        // No app server was notified, so no end is reported, but the token is used up.
        None if is_new => shard.close_id(&id, is_negotiated),
        // The connection waits for the client to return.
        None => {}
    }
    shard.shared().socket_ended();
}

/// Takes the socket, performs the hub handshake and opens the connection; `None` if a step failed.
async fn connect(shard: &Rc<Shard>, mut pending: Box<PendingConnection>) -> Option<Box<Reader>> {
    let claimed = pending.claimed.take();
    let (socket, early) = match pending.stream.take()? {
        ClientStream::Pipe(pipe) => (Socket::boxed(pipe), Bytes::new()),
        ClientStream::EventStream(parts) => {
            let (requests, socket) = *parts;
            // Accepted by a listener of this shard.
            let stream = handed_over(socket).await?;
            let answer = AnswerSocket::new(stream, requests, EventEncoder::default());
            (Socket::Answer(Box::new(answer)), Bytes::new())
        }
        ClientStream::Upgrade(upgrade) => upgraded(shard, upgrade, claimed.is_some()).await?,
        ClientStream::Direct(socket) => {
            let (stream, early) = socket.await.ok()?;
            // Accepted by a listener of this node, and therefore of some shard.
            let stream = if claimed.is_some() { moved(stream).ok()? } else { stream };
            (Socket::Tcp(stream), early)
        }
    };
    if let Some(claimed) = claimed {
        return accept::resume(shard, socket, &early, &pending, claimed);
    }
    accept::accept(shard, socket, early, *pending).await
}

/// Socket of an event stream after its response head was sent; `None` if the client disconnected or does not read.
async fn handed_over(socket: oneshot::Receiver<TcpStream>) -> Option<TcpStream> {
    timeout(STREAM_HEAD_TIMEOUT, socket).await.ok()?.ok()
}

/// Socket of a WebSocket, and bytes already read from it.
async fn upgraded(shard: &Shard, upgrade: OnUpgrade, may_be_of_other_shard: bool) -> Option<(Socket, Bytes)> {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            debug!(%error, "the upgrade failed");
            return None;
        }
    };
    Some(match into_tcp(upgraded) {
        Ok((stream, early)) => (Socket::Tcp(adopt(shard, stream, may_be_of_other_shard).ok()?), early),
        #[cfg(feature = "tls")]
        Err(other) => match other.downcast::<TokioIo<RequestSocket<TlsStream<StallGuard>>>>() {
            Ok(parts) => {
                let (stream, records) = parts.io.into_inner().into_inner().into_parts();
                let stream = adopt(shard, stream.into_inner(), may_be_of_other_shard).ok()?;
                (Socket::Tls(Box::new(TlsSocket::new(stream, records))), parts.read_buf)
            }
            Err(other) => (Socket::boxed(TokioIo::new(other)), Bytes::new()),
        },
        #[cfg(not(feature = "tls"))]
        Err(other) => (Socket::boxed(TokioIo::new(other)), Bytes::new()),
    })
}

/// TCP socket below an upgrade, with bytes read ahead. The server is this node, `trunkline::serve` or `axum::serve`
/// (which reads ahead), with any listener.
fn into_tcp(upgraded: Upgraded) -> Result<(TcpStream, Bytes), Upgraded> {
    type Own = TokioIo<RequestSocket<StallGuard>>;
    type OfNode = TokioIo<RequestSocket<TcpStream>>;
    type Plain = TokioIo<TcpStream>;
    let upgraded = match upgraded.downcast::<Own>() {
        Ok(parts) => return Ok((parts.io.into_inner().into_inner().into_inner(), parts.read_buf)),
        Err(other) => other,
    };
    let upgraded = match upgraded.downcast::<OfNode>() {
        Ok(parts) => return Ok((parts.io.into_inner().into_inner(), parts.read_buf)),
        Err(other) => other,
    };
    let upgraded = match upgraded.downcast::<Plain>() {
        Ok(parts) => return Ok((parts.io.into_inner(), parts.read_buf)),
        Err(other) => other,
    };
    let upgraded = match auto::upgrade::downcast::<OfNode>(upgraded) {
        Ok(parts) => return Ok((parts.io.into_inner().into_inner(), parts.read_buf)),
        Err(other) => other,
    };
    auto::upgrade::downcast::<Plain>(upgraded).map(|parts| (parts.io.into_inner(), parts.read_buf))
}

/// Moves a socket to this shard's runtime, because a wake-up across threads costs more than a read.
fn adopt(shard: &Shard, stream: TcpStream, may_be_of_other_shard: bool) -> io::Result<TcpStream> {
    match shard.shared().whose_sockets() {
        Sockets::Own if !may_be_of_other_shard => Ok(stream),
        Sockets::Own | Sockets::Adopted => moved(stream),
    }
}

fn moved(stream: TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(stream.into_std()?)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::Body;
    use http::header::{CONNECTION, UPGRADE};
    use http::{Request, Response, StatusCode};
    use hyper::body::Incoming;
    use hyper::rt::{Read, Write};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioExecutor;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    /// Returns whether the TCP socket is found below an upgrade through this wrapper.
    async fn is_found<I: Read + Write + Unpin + Send + 'static>(wrap: fn(TcpStream) -> I, reads_ahead: bool) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            .await
            .unwrap();
        let io = wrap(listener.accept().await.unwrap().0);
        let (found, mut result) = mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<Incoming>| {
            let found = found.clone();
            let upgrade = hyper::upgrade::on(request);
            tokio::spawn(async move { found.send(into_tcp(upgrade.await.unwrap()).is_ok()).unwrap() });
            let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
            let answer = answer.header(CONNECTION, "upgrade").header(UPGRADE, "websocket").body(Body::empty());
            async { Ok::<_, Infallible>(answer.unwrap()) }
        });
        if reads_ahead {
            let server = auto::Builder::new(TokioExecutor::new());
            server.serve_connection_with_upgrades(io, service).await.unwrap();
        } else {
            http1::Builder::new().serve_connection(io, service).with_upgrades().await.unwrap();
        }
        result.recv().await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_head_does_not_leave_is_given_up() {
        let (_taker, socket) = oneshot::channel();
        assert!(timeout(2 * STREAM_HEAD_TIMEOUT, handed_over(socket)).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn the_socket_below_an_upgrade_is_found_at_every_server_of_an_app() {
        for reads_ahead in [false, true] {
            assert!(is_found(TokioIo::new, reads_ahead).await, "its own listener, reads ahead: {reads_ahead}");
            let shared = |stream| TokioIo::new(RequestSocket::new(stream));
            assert!(is_found(shared, reads_ahead).await, "the node's listener, reads ahead: {reads_ahead}");
        }
    }
}
