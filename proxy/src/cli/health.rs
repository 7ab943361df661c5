//! `trunkline health`: ask a node whether it takes clients in.

use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A healthy node answers at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The reasons of a node that is not ready are short.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Why a node is not healthy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HealthError {
    /// The URL is none.
    #[error("--admin {0:?} is no URL like http://127.0.0.1:8090")]
    Url(String),
    /// Nobody answers.
    #[error("no answer from {url}: {problem}")]
    Silent {
        /// Who was asked.
        url: String,
        /// What went wrong.
        problem: String,
    },
    /// It takes nobody in.
    #[error("{url} answers {status}\n{reasons}")]
    NotReady {
        /// Who was asked.
        url: String,
        /// The answer.
        status: StatusCode,
        /// Its reasons.
        reasons: String,
    },
}

/// Asks `/readyz` of the admin port at this URL; the answer's text.
///
/// # Errors
/// When the node is not ready, or does not answer.
pub async fn health(url: &str) -> Result<String, HealthError> {
    let wrong = || HealthError::Url(url.into());
    let with_scheme = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri = with_scheme.parse().map_err(|_| wrong())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
    let silent = |problem: String| HealthError::Silent { url: url.into(), problem };
    let late = || silent(format!("nothing within {} s", ANSWER_TIMEOUT.as_secs()));
    let asked = timeout(ANSWER_TIMEOUT, ask(authority.as_str())).await.map_err(|_| late())?;
    let (status, reasons) = asked.map_err(|error| silent(error.to_string()))?;
    if status.is_success() { Ok(reasons) } else { Err(HealthError::NotReady { url: url.into(), status, reasons }) }
}

async fn ask(authority: &str) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let address = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let stream = TcpStream::connect(&address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/readyz").header(HOST, authority).body(Empty::<Bytes>::new())?;
    // What goes wrong with it, the answer tells.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
