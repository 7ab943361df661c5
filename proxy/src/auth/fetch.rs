//! Fetch a small document over HTTP. No redirect is followed: keys are believed only where the operator says they are.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::Dial;

/// An issuer that does not answer is given up after this: requests may be waiting for its keys.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches the document at `url`.
///
/// # Errors
/// Why there is none, for the log.
pub(super) async fn fetch(dial: &dyn Dial, url: &Uri, max_bytes: usize) -> Result<Bytes, String> {
    timeout(ANSWER_TIMEOUT, exchange(dial, url, max_bytes))
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))
}

async fn exchange(dial: &dyn Dial, url: &Uri, max_bytes: usize) -> Result<Bytes, String> {
    let host = url.authority().ok_or("the URL has no host")?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(HOST, host.as_str()).header(ACCEPT, "application/json, */*");
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let stream = dial.dial(url).await.map_err(|error| format!("can't connect to {host}: {error}"))?;
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

#[cfg(test)]
mod tests {
    use super::super::dial::Canned;
    use super::*;

    async fn fetched(head: &str, body: &str) -> Result<Bytes, String> {
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        fetch(&Canned(answer.into()), &Uri::from_static("https://issuer.example/keys"), 10_000).await
    }

    #[tokio::test]
    async fn a_document_is_fetched_whole_and_one_that_is_too_large_is_not() {
        let body = "x".repeat(10_000);
        assert_eq!(fetched("200 OK", &body).await.unwrap(), body);
        assert_eq!(fetched("200 OK", &(body + "x")).await.unwrap_err(), "length limit exceeded");
    }

    #[tokio::test]
    async fn no_redirect_is_followed() {
        let problem = fetched("302 Found\r\nLocation: http://elsewhere.example/keys", "").await.unwrap_err();
        assert_eq!(problem, "the answer is 302 Found");
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_does_not_end_its_answer_is_given_up() {
        let head = Canned(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n".to_vec());
        let problem = fetch(&head, &Uri::from_static("http://issuer.example"), 10).await.unwrap_err();
        assert!(problem.contains("no answer within 5 s"), "{problem}");
    }
}
