//! Requests and responses of one client over one HTTP connection, which is kept alive, reopened and can be cut.
//!
//! hyper owns the socket while it speaks HTTP, so each connection's task waits for the cut signal and takes the socket
//! back.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_local;

use crate::dial::{self, ConnectError};
use crate::ended::Ended;
use crate::target::Target;
use crate::wire::messages::MESSAGE_MAX_BYTES;

pub(crate) const USER_AGENT: &str = "trunkline-load";

pub(crate) const EVENT_STREAM: &str = "text/event-stream";

/// A client from the server's perspective: target server, source address, and access token.
#[derive(Debug)]
pub(crate) struct Caller {
    server: SocketAddr,
    source: Option<IpAddr>,
    host: HeaderValue,
    bearer: Option<HeaderValue>,
}

/// Handle for cutting all connections of a client simultaneously, including connections that are still opening.
#[derive(Debug, Clone)]
pub(crate) struct Scissors(watch::Sender<bool>);

/// HTTP connection of one client.
#[derive(Debug)]
pub(crate) struct Exchange {
    caller: Rc<Caller>,
    scissors: Scissors,
    line: Option<Line>,
}

/// Open connection. Its task ends when this is dropped.
#[derive(Debug)]
struct Line {
    sender: SendRequest<Full<Bytes>>,
    _held: oneshot::Sender<()>,
}

#[derive(Debug)]
pub(crate) struct Ask<'a> {
    method: Method,
    path: &'a str,
    header: Option<(HeaderName, &'static str)>,
    body: Bytes,
}

/// Reason for a missing or incomplete response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("the socket failed")]
    Socket(#[from] io::Error),
    #[error("closed by the server")]
    Closed,
    #[error("{0}")]
    NoHttp(String),
}

impl Caller {
    /// Creates a client of this server.
    pub(crate) fn new(target: &Target, source: Option<IpAddr>, token: Option<&str>) -> Result<Self, ConnectError> {
        let bearer = token.map(|token| HeaderValue::try_from(format!("Bearer {token}"))).transpose();
        let mut bearer = bearer.map_err(|_| ConnectError::Token)?;
        // Keeps it out of logs.
        bearer.iter_mut().for_each(|bearer| bearer.set_sensitive(true));
        let host = HeaderValue::try_from(target.authority.as_str());
        let host = host.map_err(|_| ConnectError::Socket(io::ErrorKind::InvalidInput))?;
        Ok(Self { server: target.address, source, host, bearer })
    }
}

impl Scissors {
    /// Resets the sockets, like a crash of the client's machine.
    pub(crate) fn cut(&self) {
        self.0.send_replace(true);
    }
}

impl<'a> Ask<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, header: None, body: Bytes::new() }
    }

    pub(crate) fn events(path: &'a str) -> Self {
        Self { header: Some((header::ACCEPT, EVENT_STREAM)), ..Self::get(path) }
    }

    pub(crate) fn empty_post(path: &'a str) -> Self {
        Self { method: Method::POST, header: Some((header::CONTENT_LENGTH, "0")), ..Self::get(path) }
    }

    /// Creates a POST of bytes with this media type.
    pub(crate) fn post(path: &'a str, content_type: &'static str, body: Bytes) -> Self {
        Self { method: Method::POST, path, header: Some((header::CONTENT_TYPE, content_type)), body }
    }

    pub(crate) fn delete(path: &'a str) -> Self {
        Self { method: Method::DELETE, ..Self::get(path) }
    }
}

impl Exchange {
    /// Creates a client's first connection, opened with the first request.
    pub(crate) fn new(caller: Caller) -> Self {
        Self { caller: Rc::new(caller), scissors: Scissors(watch::Sender::new(false)), line: None }
    }

    pub(crate) fn another(&self) -> Self {
        Self { caller: Rc::clone(&self.caller), scissors: self.scissors.clone(), line: None }
    }

    /// Cut handle for all connections of this client.
    pub(crate) fn scissors(&self) -> Scissors {
        self.scissors.clone()
    }

    pub(crate) async fn ask(&mut self, ask: Ask<'_>) -> Result<(StatusCode, Bytes), ExchangeError> {
        let answer = self.begin(ask).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MESSAGE_MAX_BYTES).collect().await;
        Ok((status, body.map_err(ExchangeError::of_body)?.to_bytes()))
    }

    /// Sends a request and returns the response with an unread body.
    pub(crate) async fn begin(&mut self, ask: Ask<'_>) -> Result<Response<Incoming>, ExchangeError> {
        let mut request = self.request(ask)?;
        loop {
            let was_open = match &mut self.line {
                Some(line) => line.sender.ready().await.is_ok(),
                None => false,
            };
            if !was_open {
                self.line = Some(self.open().await?);
            }
            let Some(line) = &mut self.line else { return Err(ExchangeError::Closed) };
            let mut error = match line.sender.try_send_request(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match error.take_message() {
                // The server closed an idle connection before any byte of the request was sent.
                Some(unsent) if was_open => (self.line, request) = (None, unsent),
                _ => return Err(error.into_error().into()),
            }
        }
    }

    fn request(&self, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, ExchangeError> {
        let mut request = Request::builder().method(ask.method).uri(ask.path);
        request = request.header(header::HOST, &self.caller.host).header(header::USER_AGENT, USER_AGENT);
        if let Some(bearer) = &self.caller.bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        if let Some((name, value)) = ask.header {
            request = request.header(name, value);
        }
        request.body(Full::new(ask.body)).map_err(|error| ExchangeError::NoHttp(error.to_string()))
    }

    async fn open(&self) -> Result<Line, ExchangeError> {
        let stream = dial::open(self.caller.server, self.caller.source).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let (held, dropped) = oneshot::channel();
        spawn_local(drive(connection, self.scissors.0.subscribe(), dropped));
        Ok(Line { sender, _held: held })
    }
}

async fn drive(
    mut connection: Connection<TokioIo<TcpStream>, Full<Bytes>>,
    mut is_cut: watch::Receiver<bool>,
    dropped: oneshot::Receiver<()>,
) {
    tokio::select! {
        // Checked first, because a cut also drops the connection, but must not look like a graceful close.
        biased;
        Ok(_) = is_cut.wait_for(|is_cut| *is_cut) => {}
        _ = dropped => return,
        // The request's caller receives its outcome.
        _ = poll_fn(|context| connection.poll_without_shutdown(context)) => return,
    }
    // Fails only if the socket is already gone.
    drop(connection.into_parts().io.into_inner().set_zero_linger());
}

impl ExchangeError {
    fn of_body(error: Box<dyn Error + Send + Sync>) -> Self {
        match error.downcast::<hyper::Error>() {
            Ok(error) => (*error).into(),
            Err(error) if error.is::<LengthLimitError>() => Self::NoHttp("an answer without end".into()),
            Err(error) => Self::NoHttp(error.to_string()),
        }
    }
}

impl From<hyper::Error> for ExchangeError {
    fn from(error: hyper::Error) -> Self {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        match cause {
            Some(io::ErrorKind::UnexpectedEof) => Self::Closed,
            Some(kind) => Self::Socket(kind.into()),
            None if error.is_parse() || error.is_user() => Self::NoHttp(error.to_string()),
            None => Self::Closed,
        }
    }
}

impl From<ExchangeError> for ConnectError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Socket(error) => error.into(),
            ExchangeError::Closed => Self::Closed,
            ExchangeError::NoHttp(text) => Self::Request("the server", text),
        }
    }
}

impl From<ExchangeError> for Ended {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Socket(error) => Self::Socket(error.kind()),
            ExchangeError::Closed => Self::without_a_word(),
            ExchangeError::NoHttp(text) => Self::Protocol(text),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    use super::*;

    /// Passive server with a client.
    pub(crate) async fn ends() -> (TcpListener, Exchange) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::parse(&listener.local_addr().unwrap().to_string(), "/hub").unwrap();
        (listener, Exchange::new(Caller::new(&target, None, Some("secret")).unwrap()))
    }

    /// Reads one request as a server.
    pub(crate) async fn request(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if length.map_or(0, |length| length.parse().unwrap()) == body.len() {
                    return text;
                }
            }
            assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "{text}");
        }
    }

    pub(crate) async fn answer(stream: &mut TcpStream) {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_opened_again_where_the_server_gave_it_up() {
        let serve = async |listener: TcpListener| {
            let (mut first, _) = listener.accept().await.unwrap();
            for _ in 0..2 {
                let asked = request(&mut first).await;
                assert!(asked.starts_with("GET /a HTTP/1.1\r\nhost: 127.0.0.1:"), "{asked}");
                assert!(asked.contains("authorization: Bearer secret"), "{asked}");
                answer(&mut first).await;
            }
            drop(first);
            let (mut second, _) = listener.accept().await.unwrap();
            assert!(request(&mut second).await.ends_with("\r\n\r\nlast"));
            answer(&mut second).await;
        };
        let local = LocalSet::new();
        let asking = async {
            let (listener, mut exchange) = ends().await;
            let serving = spawn_local(serve(listener));
            for _ in 0..2 {
                assert_eq!(exchange.ask(Ask::get("/a")).await.unwrap(), (StatusCode::OK, "ok".into()));
            }
            exchange.ask(Ask::post("/b", "text/plain", "last".into())).await.unwrap();
            serving.await.unwrap();
        };
        local.run_until(asking).await;
    }

    #[tokio::test]
    async fn scissors_reset_what_is_open_and_what_is_being_opened() {
        let local = LocalSet::new();
        let cutting = async {
            let (listener, mut exchange) = ends().await;
            let scissors = exchange.scissors();
            let mut other = exchange.another();
            let asking = spawn_local(async move { exchange.ask(Ask::get("/")).await });
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            scissors.cut();
            assert!(asking.await.unwrap().is_err());
            let reset = stream.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
            assert!(other.ask(Ask::get("/")).await.is_err());
        };
        local.run_until(cutting).await;
    }
}
