//! `trunkline health`: ask a node whether it takes clients in.

use std::time::Duration;

use axum::body::Body;
use http::header::HOST;
use http::{Request, StatusCode, Uri};

use crate::config::Address;
use crate::net::connector::Connector;
use crate::net::http_client::{HttpClient, HttpError};

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
    let host = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
    let address = Address::try_from(&uri).map_err(|_| wrong())?;
    let silent = |problem: String| HealthError::Silent { url: url.into(), problem };
    let request = Request::get("/readyz").header(HOST, host.as_str()).body(Body::empty());
    let request = request.map_err(|error| silent(error.to_string()))?;
    let client = HttpClient::without_pool(Connector::default());
    let answer = client.fetch(&address, request, ANSWER_MAX_BYTES, ANSWER_TIMEOUT).await;
    let answer = answer.map_err(|error| match error {
        HttpError::Timeout(deadline) => silent(format!("nothing within {} s", deadline.as_secs())),
        HttpError::Broken(error) => silent(error.to_string()),
        other => silent(other.to_string()),
    })?;
    let (status, reasons) = (answer.status(), String::from_utf8_lossy(answer.body()).into_owned());
    if status.is_success() { Ok(reasons) } else { Err(HealthError::NotReady { url: url.into(), status, reasons }) }
}
