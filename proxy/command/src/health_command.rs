//! `trunkline health`: asks a node whether it is ready.

use http::{StatusCode, Uri};
use trunkline_proxy::parts::{Address, Connector};

use super::admin_client::AdminClient;

/// Largest answer; the reasons of a node that is not ready are short.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Error for a node that is not healthy, or can't be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum HealthError {
    #[error("--admin {0:?} is no URL like http://127.0.0.1:8090")]
    Url(String),
    #[error("no answer from {url}: {problem}")]
    Silent { url: String, problem: String },
    #[error("{url} answers {status}\n{reasons}")]
    NotReady { url: String, status: StatusCode, reasons: String },
}

/// Asks `/readyz` of the admin port at this URL; returns the text of the answer.
///
/// # Errors
/// When the node is not ready, or does not answer.
pub(super) async fn health(url: &str) -> Result<String, HealthError> {
    let address = address(url).ok_or_else(|| HealthError::Url(url.into()))?;
    let client = AdminClient::new(Connector::default(), None);
    let answer = client.get(&address, "/readyz", ANSWER_MAX_BYTES).await;
    let answer = answer.map_err(|problem| HealthError::Silent { url: url.into(), problem })?;
    let (status, reasons) = (answer.status(), String::from_utf8_lossy(answer.body()).into_owned());
    if status.is_success() { Ok(reasons) } else { Err(HealthError::NotReady { url: url.into(), status, reasons }) }
}

/// Reads the address of an admin port; the scheme may be missing, and a path does not matter.
fn address(url: &str) -> Option<Address> {
    let with_scheme = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri = with_scheme.parse().ok()?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"))?;
    format!("http://{authority}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_port_needs_no_scheme_and_speaks_no_tls() {
        for url in ["127.0.0.1:8090", "http://127.0.0.1:8090", "http://127.0.0.1:8090/readyz"] {
            assert_eq!(address(url).unwrap().to_string(), "http://127.0.0.1:8090", "{url}");
        }
        assert_eq!(address("node-1").unwrap().to_string(), "http://node-1:80");
        for url in ["https://127.0.0.1:8090", "", "ftp://x", "a b"] {
            assert!(address(url).is_none(), "{url}");
        }
    }
}
