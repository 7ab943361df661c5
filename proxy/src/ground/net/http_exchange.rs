//! One exchange of HTTP/1.1: a connection, its errors, its deadline.

use std::error::Error;
use std::io;
use std::time::Duration;

use axum::body::Body;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::address::Address;
use super::connector::{OutgoingStream, root_cause};

/// Maximum buffer for a slowly read body, and maximum size of a response head.
const BUFFER_MAX_BYTES: usize = 64 * 1024;

/// Reason for a missing response. It shows which side failed, and whether another server may be tried.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The request can't be encoded: the caller's fault; nothing was sent.
    #[error("the request can't be written: {0}")]
    Request(#[from] http::Error),
    /// No connection, or not in time; nothing was sent.
    #[error("{}", root_cause(.0))]
    Connect(#[source] io::Error),
    /// The connection broke before the response, or the server does not speak HTTP. The server may have acted.
    #[error("{}", root_cause(.0))]
    Broken(#[source] hyper::Error),
    /// The response breaks off or is too large. The server has acted.
    #[error("{0}")]
    Body(Box<dyn Error + Send + Sync>),
    /// No complete response before the deadline. The server may have acted.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

impl HttpError {
    /// Whether nothing was sent, so that another server may be tried.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Request(_) | Self::Connect(_))
    }

    pub(crate) fn is_connect_timeout(&self) -> bool {
        matches!(self, Self::Connect(error) if error.kind() == io::ErrorKind::TimedOut)
    }
}

/// Opens HTTP over a stream. The connection ends when its sender is dropped, or with the response body or the upgraded
/// socket.
pub(crate) async fn open(stream: OutgoingStream) -> Result<SendRequest<Body>, HttpError> {
    let opened = http1::Builder::new().max_buf_size(BUFFER_MAX_BYTES).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = opened.map_err(HttpError::Broken)?;
    // Errors surface in the response.
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

/// Applies a deadline to an exchange.
///
/// # Errors
/// Errors of the exchange, or [`HttpError::Timeout`].
pub async fn within<T>(
    deadline: Duration,
    exchange: impl Future<Output = Result<T, HttpError>>,
) -> Result<T, HttpError> {
    timeout(deadline, exchange).await.unwrap_or(Err(HttpError::Timeout(deadline)))
}

/// Reduces the request target to path and query, and adds the host as `Host`.
pub(crate) fn to_origin_form(address: &Address, request: &mut Request<Body>) -> Result<(), HttpError> {
    let target = request.uri().path_and_query().cloned();
    *request.uri_mut() = target.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
    if !request.headers().contains_key(HOST) {
        let usual_port = if address.is_tls() { ":443" } else { ":80" };
        let host = address.authority().strip_suffix(usual_port).unwrap_or(address.authority());
        request.headers_mut().insert(HOST, HeaderValue::from_str(host).map_err(http::Error::from)?);
    }
    Ok(())
}
