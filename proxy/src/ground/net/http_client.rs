//! HTTP/1.1 client: plain or TLS depending on the address, with pooled or new connections, bounded responses and
//! deadlines.
//!
//! Uses hyper with our own [pool](connection_pool), because hyper-util's pool identifies connections by URI, which
//! can't express an [`Address`].

mod connection_pool;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes};
use http::header::{
    ACCEPT_ENCODING, CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as HttpBody, Incoming};
use hyper::client::conn::http1::SendRequest;
use tokio::time::{Instant, sleep, timeout};
use trunkline_protocol::wire::AGENT;

use crate::ground::net::address::Address;
use crate::ground::net::connector::Connector;
use crate::ground::net::dial_gate::DialGate;
use crate::ground::net::http_exchange::{open, to_origin_form};
use connection_pool::{ConnectionPool, PooledConnection};

pub use crate::ground::net::http_exchange::{HttpError, within};

/// Retry interval for a server known to be alive.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Headers for one connection only, in addition to those named by `Connection`. `Trailer` is excluded, because trailers
/// are forwarded.
pub(crate) const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Body without a byte order mark, which some back ends write before JSON.
pub(crate) fn without_byte_order_mark(mut body: Bytes) -> Bytes {
    if body.starts_with(BYTE_ORDER_MARK) {
        body.advance(BYTE_ORDER_MARK.len());
    }
    body
}

/// How long a request waits for an unreachable server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Fails without another dial.
    None,
    /// Waits for the end of a pause after an earlier failure, then fails if its own or a concurrent dial fails.
    OneRest,
    /// The server is believed to be alive; dials are repeated for this long.
    For(Duration),
}

/// HTTP client; clones share connections. Connections are bound to the sending thread, so each shard has its own
/// client.
#[derive(Debug, Clone)]
pub struct HttpClient {
    connector: Connector,
    connect_timeout: Duration,
    /// Limits dials to servers chosen by clients.
    gate: Option<Arc<DialGate>>,
    /// Idle connections; `None` opens a connection per request.
    pool: Option<ConnectionPool>,
    /// `User-Agent` for requests without one.
    agent: Option<HeaderValue>,
}

impl HttpClient {
    /// Client with pooled connections and a timeout for connecting.
    #[must_use]
    pub fn new(connector: Connector, connect_timeout: Duration) -> Self {
        Self { connect_timeout, pool: Some(ConnectionPool::default()), ..Self::without_pool(connector) }
    }

    /// Sends dials through a gate.
    #[must_use]
    pub(crate) fn behind(self, gate: Arc<DialGate>) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// Copy of this client, with its pool, using another connector.
    pub(crate) fn through(&self, connector: Connector) -> Self {
        Self { connector, ..self.clone() }
    }

    /// For forwarded requests: does not add a `User-Agent`.
    #[must_use]
    pub(crate) fn for_others(self) -> Self {
        Self { agent: None, ..self }
    }

    /// Client that opens a connection per request. Connecting is bounded only by the request's deadline.
    #[must_use]
    pub fn without_pool(connector: Connector) -> Self {
        let agent = Some(HeaderValue::from_static(AGENT));
        Self { connector, connect_timeout: Duration::MAX, gate: None, pool: None, agent }
    }

    /// Sends a request to `address`, using the path and query of its URI, and waits for the response head. Adds a
    /// missing `Host` and `User-Agent`.
    ///
    /// If a pooled connection closes before anything was sent, the request is sent again.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn send(&self, address: &Address, request: Request<Body>) -> Result<Response<Incoming>, HttpError> {
        self.send_patiently(address, request, Patience::None).await
    }

    /// Like [`send`](Self::send), with the given patience for connecting.
    pub(crate) async fn send_patiently(
        &self,
        address: &Address,
        mut request: Request<Body>,
        patience: Patience,
    ) -> Result<Response<Incoming>, HttpError> {
        to_origin_form(address, &mut request)?;
        if let Some(agent) = &self.agent {
            request.headers_mut().entry(USER_AGENT).or_insert_with(|| agent.clone());
            // Without this header, servers may choose any encoding.
            request.headers_mut().entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
        }
        loop {
            let kept = match &self.pool {
                Some(pool) => pool.take(address).await,
                None => None,
            };
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => PooledConnection::new(self.connect_patiently(address, patience).await?),
            };
            let mut error = match connection.sender.try_send_request(request).await {
                Ok(answer) => {
                    // After an exception, some servers (uvicorn) close the connection without having said so.
                    if let Some(pool) =
                        self.pool.as_ref().filter(|_| answer.status() != StatusCode::INTERNAL_SERVER_ERROR)
                    {
                        pool.put(address, connection);
                    }
                    return Ok(answer);
                }
                Err(error) => error,
            };
            request = match error.take_message() {
                Some(unsent) if is_kept => unsent,
                _ => return Err(HttpError::Broken(error.into_error())),
            };
        }
    }

    /// Like [`send`](Self::send), and reads the whole response.
    ///
    /// # Errors
    /// Without a complete response of at most `max_bytes` before the deadline.
    pub async fn fetch(
        &self,
        address: &Address,
        request: Request<Body>,
        max_bytes: usize,
        deadline: Duration,
    ) -> Result<Response<Bytes>, HttpError> {
        let fetched = async { read_whole(self.send(address, request).await?, max_bytes).await };
        within(deadline, fetched).await
    }

    async fn connect_patiently(&self, address: &Address, patience: Patience) -> Result<SendRequest<Body>, HttpError> {
        let (begun, rest_left) = (Instant::now(), || self.gate.as_ref().and_then(|gate| gate.rest_left(address)));
        if let (Patience::OneRest, Some(left)) = (patience, rest_left()) {
            sleep(left).await;
        }
        loop {
            // Boxed, because this large future is part of many callers that rarely need it.
            let failed = match Box::pin(self.connect(address)).await {
                Err(error) if !error.is_connect_timeout() => error,
                connected => return connected,
            };
            let wait = rest_left().unwrap_or_default().max(RETRY_INTERVAL);
            match patience {
                Patience::For(limit) if begun.elapsed() + wait < limit => sleep(wait).await,
                _ => return Err(failed),
            }
        }
    }

    async fn connect(&self, address: &Address) -> Result<SendRequest<Body>, HttpError> {
        let dial = async {
            let connected = timeout(self.connect_timeout, self.connector.connect(address)).await;
            connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        let stream = match &self.gate {
            Some(gate) => gate.pass(address, dial).await,
            None => dial.await,
        };
        open(stream.map_err(HttpError::Connect)?).await
    }
}

/// Reads a response body of at most `max_bytes`.
///
/// # Errors
/// If the body breaks off or is larger.
pub async fn read_whole<B>(answer: Response<B>, max_bytes: usize) -> Result<Response<Bytes>, HttpError>
where
    B: HttpBody,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, max_bytes).collect().await.map_err(HttpError::Body)?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::routing::get;
    use http::HeaderMap;
    use http::header::HOST;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Server that answers with its number, the requested host and the caller's address.
    async fn server(number: usize) -> SocketAddr {
        let answer = async move |from: axum::extract::ConnectInfo<SocketAddr>, headers: HeaderMap| {
            format!("{number} {} {}", headers[HOST].to_str().unwrap(), from.port())
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(answer)).into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    #[tokio::test]
    async fn each_address_of_a_name_is_reached_over_its_own_connection_and_under_the_name() {
        let client = HttpClient::new(Connector::default(), Duration::from_secs(5));
        // Does not resolve.
        let name: Address = "http://apps.invalid:5000".parse().unwrap();
        let servers = [name.at(server(0).await), name.at(server(1).await)];
        let mut ports = Vec::new();
        for turn in 0..6 {
            let request = Request::get("/").body(Body::empty()).unwrap();
            let answer = client.send(&servers[turn % 2], request).await.unwrap();
            let body = read_whole(answer, 100).await.unwrap().into_body();
            let text = String::from_utf8(body.to_vec()).unwrap();
            let (who, port) = text.rsplit_once(' ').unwrap();
            assert_eq!(who, format!("{} apps.invalid:5000", turn % 2));
            ports.push(port.to_owned());
        }
        assert_ne!(ports[0], ports[1]);
        assert_eq!((&ports[0..2], &ports[0..2]), (&ports[2..4], &ports[4..6]), "connections are kept");
    }

    #[tokio::test]
    async fn an_unreachable_server_is_distinguished_from_a_broken_connection() {
        let client = HttpClient::new(Connector::default(), Duration::from_secs(5));
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mute = listener.local_addr().unwrap();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let name: Address = "http://apps.invalid".parse().unwrap();
        for (at, is_unreachable) in [(gone, true), (mute, false)] {
            let request = Request::get("/").body(Body::empty()).unwrap();
            let error = client.send(&name.at(at), request).await.unwrap_err();
            assert_eq!((error.is_unreachable(), error.is_connect_timeout()), (is_unreachable, false), "{error}");
        }
    }

    #[tokio::test]
    async fn without_a_pool_each_request_has_a_connection_of_its_own() {
        let client = HttpClient::without_pool(Connector::default());
        let address = format!("http://{}", server(0).await).parse().unwrap();
        let mut answers = Vec::new();
        for _ in 0..2 {
            let request = Request::get("/").body(Body::empty()).unwrap();
            answers.push(client.fetch(&address, request, 100, Duration::from_secs(5)).await.unwrap().into_body());
        }
        assert_ne!(answers[0], answers[1]);
    }

    #[tokio::test]
    async fn a_request_that_meets_a_connection_which_has_ended_is_sent_again() {
        let client = HttpClient::new(Connector::default(), Duration::from_secs(5));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            // One response per connection, then an abrupt close.
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        });
        for _ in 0..10 {
            let request = Request::get("/").body(Body::empty()).unwrap();
            client.fetch(&address, request, 100, Duration::from_secs(5)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_connection_is_not_used_again_after_an_error_of_its_server() {
        let client = HttpClient::new(Connector::default(), Duration::from_secs(5));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            // Like uvicorn, the server closes after an error. It does so only after the next request.
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(b"HTTP/1.1 500 Error\r\nContent-Length: 0\r\n\r\n").await;
                    let _ = stream.read(&mut [0; 1024]).await;
                });
            }
        });
        for _ in 0..10 {
            let request = Request::get("/").body(Body::empty()).unwrap();
            client.fetch(&address, request, 100, Duration::from_secs(5)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_request_without_an_agent_gets_ours_and_no_encoding_unless_it_is_of_another() {
        let agent = async |headers: HeaderMap| {
            let encoding = headers.get(ACCEPT_ENCODING).map_or("none", |encoding| encoding.to_str().unwrap());
            let agent = headers.get(USER_AGENT).map_or("none", |agent| agent.to_str().unwrap());
            format!("{agent}, {encoding}")
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: Address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().route("/", get(agent));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let fetched = async |client: &HttpClient, request: http::request::Builder| {
            let request = request.body(Body::empty()).unwrap();
            client.fetch(&address, request, 100, Duration::from_secs(5)).await.unwrap().into_body()
        };
        let kept = HttpClient::new(Connector::default(), Duration::from_secs(5));
        for client in [kept.clone(), HttpClient::without_pool(Connector::default())] {
            assert_eq!(fetched(&client, Request::get("/")).await, format!("{AGENT}, identity"));
            assert_eq!(fetched(&client, Request::get("/").header(USER_AGENT, "mine")).await, "mine, identity");
        }
        assert_eq!(fetched(&kept.for_others(), Request::get("/")).await, "none, none");
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_an_error() {
        let client = HttpClient::new(Connector::default(), Duration::from_secs(5));
        let address = format!("http://{}", server(0).await).parse().unwrap();
        let request = Request::get("/").body(Body::empty()).unwrap();
        let error = client.fetch(&address, request, 3, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), "length limit exceeded");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_before_the_deadline_is_an_error() {
        let client = HttpClient::without_pool(Connector::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let request = Request::get("/").body(Body::empty()).unwrap();
        let error = client.fetch(&address, request, 100, Duration::from_secs(7)).await.unwrap_err();
        assert_eq!(error.to_string(), "no answer within 7 s");
    }

    #[test]
    fn a_host_has_a_port_unless_it_is_the_usual_one() {
        let host = |address: &str| {
            let mut request = Request::get("/path?query").body(Body::empty()).unwrap();
            to_origin_form(&address.parse().unwrap(), &mut request).unwrap();
            assert_eq!(request.uri(), "/path?query");
            request.headers()[HOST].to_str().unwrap().to_owned()
        };
        assert_eq!(["http://app", "https://app:443", "http://[::1]:80"].map(host), ["app", "app", "[::1]"]);
        assert_eq!(
            ["http://app:443", "https://app:80", "http://app:5080"].map(host),
            ["app:443", "app:80", "app:5080"]
        );
    }
}
