//! Readiness of a process: asked over HTTP with one request and one small answer, without a library.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// Time between two requests.
const POLL: Duration = Duration::from_millis(50);

/// Time that one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Time after which a process counts as stuck. Nothing here takes long, but on a busy machine everything does.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Limit of what is read of an answer; what is shown to people is shorter.
const ANSWER_MAX_BYTES: u64 = 16 * 1024;

/// Waits until `path` at `address` is answered with 200.
pub(crate) async fn until_ready(name: &str, address: SocketAddr, path: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let answer = timeout(ANSWER_TIMEOUT, get(address, path)).await;
        let problem = match answer {
            Ok(Ok(answer)) if status(&answer) == Some(200) => return Ok(()),
            Ok(Ok(answer)) => body(&answer).trim_end().replace('\n', "; "),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".into(),
        };
        if Instant::now() >= deadline {
            bail!("{name} is not ready after {} s: {problem}", READY_TIMEOUT.as_secs());
        }
        sleep(POLL).await;
    }
}

async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn status(answer: &str) -> Option<u16> {
    let (version, rest) = answer.split_once(' ')?;
    let code = rest.get(..3)?.parse().ok()?;
    version.starts_with("HTTP/1.").then_some(code)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or(answer, |(_, body)| body)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_status_is_read_from_the_first_line() {
        assert_eq!(status("HTTP/1.1 200 OK\r\n\r\n"), Some(200));
        assert_eq!(status("HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready"), Some(503));
        for other in ["", "HTTP/1.1", "HTTP/1.1 x", "SSH-2.0-x 200 x"] {
            assert_eq!(status(other), None, "{other}");
        }
        assert_eq!(body("HTTP/1.1 503 x\r\nA: b\r\n\r\nnot ready\n"), "not ready\n");
    }

    #[tokio::test]
    async fn requests_are_repeated_until_the_answer_is_200() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            for status in ["503 Service Unavailable", "200 OK"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let count = stream.read(&mut request).await.unwrap();
                assert!(request[..count].starts_with(b"GET /readyz HTTP/1.1\r\n"));
                stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
            }
        });
        until_ready("a process", address, "/readyz").await.unwrap();
        server.await.unwrap();
    }
}
