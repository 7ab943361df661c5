//! Errors of dialled server connections, each with advice.

use std::io;

use http::StatusCode;
use trunkline_protocol::key::AccessKeyError;

/// Maximum length of a service's response text in the log.
const ANSWER_MAX_BYTES: usize = 200;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the access key of the connection string can't be used: {0}")]
    Key(AccessKeyError),
    #[cfg(not(feature = "tls"))]
    #[error("an https endpoint needs the feature `tls` of the crate `trunkline`")]
    NoFeature,
    #[cfg(feature = "tls")]
    #[error("this system has no root certificates that can be read: {0}")]
    NoRoots(String),
    #[cfg(feature = "tls")]
    #[error("the host of the endpoint can't be in a certificate")]
    Host,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error(
        "{authority} can't be reached ({source}): check that the service is up, and the host and port of the \
         connection string"
    )]
    Unreachable { authority: String, source: io::Error },
    #[error("{0} did not answer within 10 s: check that the service is up, and firewalls in front of it")]
    Timeout(String),
    #[cfg(feature = "tls")]
    #[error(
        "the TLS handshake failed ({0}): check that the certificate of the service is trusted here, and that its \
         endpoint uses https"
    )]
    Encryption(io::Error),
    #[error(
        "the service refused the token (401{0}): check AccessKey, that Endpoint is the service's own host name, and \
         the clock of this machine"
    )]
    Unauthorized(String),
    #[error(
        "there is no service at {url} (404{answer}): check that the connection string has the proxy's client port, and \
         that the proxy has an --access-key"
    )]
    NotFound { url: String, answer: String },
    #[error("the service answered {status}{answer} to {url}")]
    Status { status: StatusCode, url: String, answer: String },
    #[error(
        "{authority} gave no valid HTTP answer to the WebSocket upgrade ({problem}): check whether the connection \
         string needs https instead of http"
    )]
    NoWebSocket { authority: String, problem: String },
    #[error(
        "{authority} refused the encrypted channel ({problem}). Over http:// both ends authenticate by the access key \
         before anything is sent: check that AccessKey is the node's own key, or the key of this app (--app-key). For \
         a service that is not a Trunkline node, or has a path prefix, write https://; on a trusted network allow \
         plain HTTP by `Server::allow_plain_http` or TRUNKLINE_DIAL_PLAIN_HTTP=true"
    )]
    NoChannel { authority: String, problem: String },
    #[error("the service refuses the server connection: {0}")]
    Refused(String),
    #[error("the server connection was lost during its handshake: {0}")]
    BrokenOff(String),
}

impl DialError {
    pub(super) fn of_answer(status: StatusCode, url: &str, body: Option<&[u8]>) -> Self {
        let answer = first_line(body.unwrap_or_default());
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized(answer),
            StatusCode::NOT_FOUND => Self::NotFound { url: url.to_owned(), answer },
            _ => Self::Status { status, url: url.to_owned(), answer },
        }
    }
}

/// First line of a response body, after a colon; empty for an empty body.
fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().next().unwrap_or_default().trim();
    let line = line.get(..line.floor_char_boundary(ANSWER_MAX_BYTES)).unwrap_or_default();
    if line.is_empty() { String::new() } else { format!(": {line}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_what_to_check() {
        let of =
            |status, body: &[u8]| DialError::of_answer(status, "http://p/server/?hub=chat", Some(body)).to_string();
        let unauthorized = of(StatusCode::UNAUTHORIZED, b"expired\nmore");
        assert!(unauthorized.contains("401: expired)") && unauthorized.contains("AccessKey"), "{unauthorized}");
        assert!(of(StatusCode::NOT_FOUND, b"").contains("--access-key"));
        let other = of(StatusCode::SERVICE_UNAVAILABLE, &[b'x'; 1000]);
        assert!(other.contains("503") && other.len() < 400, "{other}");
    }
}
