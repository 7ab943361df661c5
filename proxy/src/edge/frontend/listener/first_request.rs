//! First request on a plain socket: an obvious WebSocket connect to a hub is answered without an HTTP server. Most
//! sockets carry only that, and the server would be most of the cost.
//!
//! ```text
//!  first bytes ─┬─ complete plain upgrade, to a hub ─► response ─┬─ 101 ─► written; the socket is the client's
//!               └─ otherwise ─► hyper, with these bytes ◄────────┴─ a refusal, written by hyper
//! ```
//!
//! Long, fragmented and unusual requests are left to hyper; at an app with an embedded node, to the app's hyper, which
//! gets the socket and these bytes.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use httparse::Status;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc::Sender;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::http_connection::{self, FirstBytes};
use super::socket_context::{ListenerService, SocketContext};
use crate::edge::frontend::plain_response::closing;
use crate::edge::frontend::request_context::RequestSource;
use crate::edge::frontend::upgrade_answer::is_upgrade;
use crate::engine::shard::{AppSocket, DirectUpgrade};
use crate::ground::metrics::Limit;

/// Bytes per read. A browser's head with some cookies has half of that.
const READ_BYTES: usize = 2048;

/// Maximum number of headers of a head handled here.
const HEADERS: usize = 32;

/// Headers that indicate a body.
const OF_BODIES: [HeaderName; 3] = [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT];

/// Serves a socket from its first byte until it is closed or upgraded.
pub(super) async fn serve(stream: TcpStream, context: SocketContext, service: Rc<ListenerService>) {
    let (begun, limit) = (Instant::now(), context.gate.limits().header_timeout);
    let bytes = match timeout_at(begun + limit, poll_fn(|cx| poll_first(&stream, cx))).await {
        Ok(Ok(bytes)) if !bytes.is_empty() => bytes,
        Ok(_) => return,
        Err(_) => {
            context.gate.count_refused(Limit::HeadTime);
            return debug!(peer = %context.peer, "connection closed: the head of its first request took too long");
        }
    };
    let answered = match (&service.connects, parse(&bytes)) {
        // In an app, other paths are the app's.
        (Some(endpoint), Some((request, _))) if service.app.is_some() && !endpoint.has_hub_at(&request) => None,
        (Some(endpoint), Some((mut request, length))) => {
            let (upgrade, upgraded) = DirectUpgrade::new();
            let (is_of_app, upgrade) = (service.app.is_some(), Some(upgrade));
            RequestSource { is_of_app, upgrade, ..RequestSource::from_peer(context.peer) }.attach(&mut request);
            endpoint.connect_directly(request).await.map(|answer| (answer, upgraded, length))
        }
        _ => None,
    };
    let answer = match answered {
        Some((answer, upgraded, length)) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let mut stream = stream;
            match stream.write_all(&head_of(&answer)).await {
                Ok(()) => upgraded.complete(stream, bytes.slice(length..)),
                Err(error) => debug!(peer = %context.peer, %error, "client disconnected before the response"),
            }
            return;
        }
        // Later requests on the socket would be the app's.
        Some((refusal, ..)) if service.app.is_some() => Some(closing(refusal)),
        Some((refusal, ..)) => Some(refusal),
        None => match &service.app {
            Some(app) => return hand_over(stream, bytes, &context, app).await,
            None => None,
        },
    };
    let left = limit.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
    let first = FirstBytes { stream: context.patient(stream), bytes, left, answer };
    // Spawned, because this task's future has room for a whole connect.
    spawn_local(http_connection::serve_from(first, context, Scheme::HTTP, service.router.clone()));
}

/// Reads the first bytes of a socket; empty at its end.
fn poll_first(stream: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    let mut buffer = [0; READ_BYTES];
    // Usually the data has arrived, and a direct read saves the runtime an event.
    let mut read = (&*SockRef::from(stream)).read(&mut buffer);
    while read.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)) {
        ready!(stream.poll_read_ready(cx))?;
        read = stream.try_read(&mut buffer);
    }
    Poll::Ready(read.map(|count| Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default())))
}

/// Hands a socket with its first bytes to the app. It closes if the app accepts no more.
async fn hand_over(stream: TcpStream, early: Bytes, context: &SocketContext, app: &Sender<AppSocket>) {
    match stream.into_std() {
        Ok(stream) => drop(app.send(AppSocket { stream, peer: context.peer, early }).await),
        Err(error) => debug!(peer = %context.peer, %error, "cannot hand a socket to the app"),
    }
}

/// Parses a complete WebSocket request head without a body; also returns its length.
fn parse(bytes: &Bytes) -> Option<(Request, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let Ok(Status::Complete(length)) = head.parse(bytes) else { return None };
    let (Some("GET"), Some(1), Some(target)) = (head.method, head.version, head.path) else { return None };
    if !target.starts_with('/') {
        return None;
    }
    let mut map = HeaderMap::with_capacity(head.headers.len());
    for header in head.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        map.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(header.value)).ok()?);
    }
    if !is_upgrade(&map) || OF_BODIES.iter().any(|name| map.contains_key(name)) {
        return None;
    }
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice_ref(target.as_bytes())).ok()?;
    *request.headers_mut() = map;
    Some((request, length))
}

fn head_of(answer: &Response) -> BytesMut {
    let mut out = BytesMut::with_capacity(256);
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    for (name, value) in answer.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upgrade(more: &str) -> Bytes {
        let head = "GET /chat?id=1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        format!("{head}Sec-WebSocket-Version: 13\r\n{more}\r\n").into()
    }

    #[test]
    fn a_plain_upgrade_is_parsed_and_what_follows_is_left() {
        let bytes = Bytes::from([&upgrade("Cookie: a=1\r\nCookie: b=2\r\n")[..], b"more"].concat());
        let (request, length) = parse(&bytes).unwrap();
        assert_eq!((request.uri().to_string().as_str(), &bytes[length..]), ("/chat?id=1", &b"more"[..]));
        assert_eq!(request.headers()["host"], "a");
        assert_eq!(request.headers().get_all("cookie").iter().count(), 2);
    }

    /// Upgrade with another request line.
    fn with_line(line: &str) -> Bytes {
        let head = String::from_utf8(upgrade("").into()).unwrap();
        head.replacen("GET /chat?id=1 HTTP/1.1", line, 1).into()
    }

    #[test]
    fn whatever_is_odd_is_left_to_the_server() {
        assert!(parse(&upgrade("")).is_some() && parse(&with_line("GET /chat HTTP/1.1")).is_some());
        for head in [
            upgrade("Content-Length: 0\r\n"),
            upgrade("Transfer-Encoding: chunked\r\n"),
            upgrade("Expect: 100-continue\r\n"),
            upgrade("Folded: a\r\n b\r\n"),
            upgrade("No colon\r\n"),
            upgrade(&"x: y\r\n".repeat(HEADERS)),
            upgrade("").slice(..20),
            Bytes::from_static(b"GET /chat HTTP/1.1\r\nHost: a\r\n\r\n"),
            Bytes::from_static(b"GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
            with_line("GET /chat HTTP/1.0"),
            with_line("POST /chat HTTP/1.1"),
            with_line("GET http://a/chat HTTP/1.1"),
        ] {
            assert!(parse(&head).is_none(), "{head:?}");
        }
    }
}
