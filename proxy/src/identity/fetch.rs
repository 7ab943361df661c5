//! Fetch a small document over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An issuer that does not answer is given up after this: requests may be waiting for its keys.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches the document at `url`.
///
/// # Errors
/// Why there is none, for the log.
pub(super) async fn fetch(url: &Uri, max_bytes: usize) -> Result<Bytes, String> {
    timeout(ANSWER_TIMEOUT, exchange(url, max_bytes))
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))
}

async fn exchange(url: &Uri, max_bytes: usize) -> Result<Bytes, String> {
    let host = url.authority().ok_or("the URL has no host")?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(HOST, host.as_str()).header(ACCEPT, "application/json, */*");
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let stream = connect(url).await?;
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    // It ends with the answer's body.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("the answer is {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), max_bytes).collect().await.map_err(|error| error.to_string())?;
    Ok(body.to_bytes())
}

/// The socket; `https` would be put around it here.
async fn connect(url: &Uri) -> Result<TcpStream, String> {
    let host = url.host().ok_or("the URL has no host")?.trim_start_matches('[').trim_end_matches(']');
    TcpStream::connect((host, url.port_u16().unwrap_or(80))).await.map_err(|error| error.to_string())
}
