//! Download of a small document over HTTP. Redirects are not followed: only URLs configured by the operator are
//! trusted.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};

use crate::ground::net::address::Address;
use crate::ground::net::connector::Connector;
use crate::ground::net::http_client::{HttpClient, HttpError, read_whole, within};

/// Timeout of a download. Requests may be waiting for the keys.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches the document at `url`.
///
/// # Errors
/// Returns a text for the log if the document can't be fetched.
pub(super) async fn fetch(connector: &Connector, url: &Uri, max_bytes: usize) -> Result<Bytes, String> {
    let host = url.authority().ok_or("the URL has no host")?;
    let address = Address::try_from(url).map_err(|problem| format!("can't connect to {host}: it {problem}"))?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(HOST, host.as_str()).header(ACCEPT, "application/json, */*");
    let request = request.body(Body::empty()).map_err(|error| error.to_string())?;
    let client = HttpClient::without_pool(connector.clone());
    let fetched = async {
        let answer = client.send(&address, request).await?;
        match answer.status() {
            StatusCode::OK => Ok(Ok(read_whole(answer, max_bytes).await?.into_body())),
            status => Ok(Err(format!("the answer is {status}"))),
        }
    };
    within(ANSWER_TIMEOUT, fetched).await.map_err(|error| match error {
        HttpError::Connect(error) => format!("can't connect to {host}: {error}"),
        HttpError::Broken(error) => error.to_string(),
        other => other.to_string(),
    })?
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn issuer(answer: Vec<u8>) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.read(&mut [0; 1024]).await;
        });
        url
    }

    async fn fetched(head: &str, body: &str) -> Result<Bytes, String> {
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        fetch(&Connector::default(), &issuer(answer.into()).await, 10_000).await
    }

    #[tokio::test]
    async fn a_document_is_fetched_whole_unless_it_is_too_large() {
        let body = "x".repeat(10_000);
        assert_eq!(fetched("200 OK", &body).await.unwrap(), body);
        assert_eq!(fetched("200 OK", &(body + "x")).await.unwrap_err(), "length limit exceeded");
    }

    #[tokio::test]
    async fn a_request_for_keys_names_its_agent() {
        let issuer = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", issuer.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { fetch(&Connector::default(), &url, 10).await });
        let (mut stream, _) = issuer.accept().await.unwrap();
        let mut head = vec![0; 1024];
        let count = stream.read(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head[..count]).to_ascii_lowercase();
        assert!(head.contains(concat!("\r\nuser-agent: trunkline/", env!("CARGO_PKG_VERSION"), "\r\n")), "{head}");
    }

    #[tokio::test]
    async fn no_redirect_is_followed() {
        let problem = fetched("302 Found\r\nLocation: http://elsewhere.example/keys", "").await.unwrap_err();
        assert_eq!(problem, "the answer is 302 Found");
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_does_not_end_its_answer_is_given_up() {
        let url = issuer(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n".to_vec()).await;
        let problem = fetch(&Connector::default(), &url, 10).await.unwrap_err();
        assert!(problem.contains("no answer within 5 s"), "{problem}");
    }
}
