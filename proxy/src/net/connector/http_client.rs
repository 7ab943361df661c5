//! Requests over connections that are kept for the next ones.
//!
//! A name may have many addresses, and each is a server of its own: what is kept to one is not for another. hyper's pool
//! tells its connections apart by URIs alone, so the address stands in them, see [`Address::uri`].

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::timeout;

use super::{Connector, Wire, root_cause};
use crate::config::Address;

/// Connections without a request are closed after this: sooner than any server of ours closes them, so that no request
/// meets a connection that is just going away.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bounds what one exchange keeps in memory of a body that is read slowly; also the largest head of an answer.
const BUFFER_MAX_BYTES: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ExchangeError {
    /// The request can't be put.
    #[error("the request can't be written: {0}")]
    Request(#[from] http::Error),
    /// No connection, or it broke.
    #[error("{}", root_cause(.0))]
    Http(#[from] Error),
}

impl ExchangeError {
    /// Whether there was no connection: then nothing was sent, and another server may be asked.
    #[must_use]
    pub(crate) fn is_unreachable(&self) -> bool {
        match self {
            Self::Request(_) => true,
            Self::Http(error) => error.is_connect(),
        }
    }

    /// Whether there was none in time.
    #[must_use]
    pub(crate) fn is_connect_timeout(&self) -> bool {
        let Self::Http(error) = self else { return false };
        let error: &dyn std::error::Error = error;
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        let is_timeout = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
        self.is_unreachable() && causes.any(|error| error.downcast_ref().is_some_and(is_timeout))
    }
}

/// Sends requests over connections that it keeps; those who share them have copies. They live on the thread of whoever
/// sends, so each shard has its own.
#[derive(Debug, Clone)]
pub(crate) struct HttpClient {
    client: Client<Dialler, Body>,
}

impl HttpClient {
    /// Connects by `connector`, and gives up after `connect_timeout`.
    #[must_use]
    pub(crate) fn new(connector: Connector, connect_timeout: Duration) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http1_max_buf_size(BUFFER_MAX_BYTES)
            .build(Dialler { connector, timeout: connect_timeout });
        Self { client }
    }

    /// Sends a request, whose path and query count, to the server at `address`, and waits for the head of its answer.
    /// Without a `Host` it gets that of the address.
    ///
    /// A request that meets a kept connection which has just ended, before anything of it was sent, is sent again.
    ///
    /// # Errors
    /// When none comes.
    pub(crate) async fn send(
        &self,
        address: &Address,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, ExchangeError> {
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = address.uri(target.unwrap_or_else(|| PathAndQuery::from_static("/")))?;
        Ok(self.client.request(request).await?)
    }
}

/// Makes connections, each within a time.
#[derive(Debug, Clone)]
struct Dialler {
    connector: Connector,
    timeout: Duration,
}

impl tower::Service<Uri> for Dialler {
    type Response = TokioIo<Wire>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Wire>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialled = timeout(self.timeout, self.connector.connect_to(uri));
        async { dialled.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(TokioIo::new) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::routing::get;
    use http::HeaderMap;
    use http::header::HOST;
    use http_body_util::BodyExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers with its number, the host that was asked for, and where the question came from.
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
        // Nobody resolves this name.
        let name: Address = "http://apps.invalid:5000".parse().unwrap();
        let servers = [name.at(server(0).await), name.at(server(1).await)];
        let mut ports = Vec::new();
        for turn in 0..6 {
            let request = Request::get("/").body(Body::empty()).unwrap();
            let answer = client.send(&servers[turn % 2], request).await.unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8(body.to_vec()).unwrap();
            let (who, port) = text.rsplit_once(' ').unwrap();
            assert_eq!(who, format!("{} apps.invalid:5000", turn % 2));
            ports.push(port.to_owned());
        }
        assert_ne!(ports[0], ports[1]);
        assert_eq!((&ports[0..2], &ports[0..2]), (&ports[2..4], &ports[4..6]), "connections are kept");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_told_from_one_that_breaks_off() {
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
}
