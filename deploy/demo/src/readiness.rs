//! Polls the readiness of a process.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep, timeout};

use crate::http_request::get;

const POLL: Duration = Duration::from_millis(50);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const READY_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) async fn until_ready(name: &str, address: SocketAddr, path: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let answer = timeout(ANSWER_TIMEOUT, get(address, path)).await;
        let problem = match answer {
            Ok(Ok(answer)) if answer.is_ok() => return Ok(()),
            Ok(Ok(answer)) => answer.body().trim_end().replace('\n', "; "),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".into(),
        };
        if Instant::now() >= deadline {
            bail!("{name} is not ready after {} s: {problem}", READY_TIMEOUT.as_secs());
        }
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

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
