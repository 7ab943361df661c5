//! HTTP request with a small response, without a library.

use std::io;
use std::net::SocketAddr;

use anyhow::bail;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Maximum number of bytes read from a response; displayed texts are shorter.
const ANSWER_MAX_BYTES: u64 = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Answer(String);

impl Answer {
    pub(crate) fn is_ok(&self) -> bool {
        self.status() == Some(200)
    }

    pub(crate) fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").map_or(&self.0, |(_, body)| body)
    }

    fn status(&self) -> Option<u16> {
        let (version, rest) = self.0.split_once(' ')?;
        let code = rest.get(..3)?.parse().ok()?;
        version.starts_with("HTTP/1.").then_some(code)
    }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")).await
}

/// Posts JSON and returns the body of a successful response.
pub(crate) async fn post(address: SocketAddr, path: &str, json: &str) -> anyhow::Result<String> {
    let answer = exchange(
        address,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{json}",
            json.len()
        ),
    )
    .await?;
    if !answer.is_ok() {
        bail!("{path} was refused: {}", answer.body());
    }
    Ok(answer.body().to_owned())
}

async fn exchange(address: SocketAddr, request: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await?;
    Ok(Answer(String::from_utf8_lossy(&answer).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_from_the_first_line() {
        let status = |answer: &str| Answer(answer.to_owned()).status();
        assert_eq!(status("HTTP/1.1 200 OK\r\n\r\n"), Some(200));
        assert_eq!(status("HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready"), Some(503));
        for other in ["", "HTTP/1.1", "HTTP/1.1 x", "SSH-2.0-x 200 x"] {
            assert_eq!(status(other), None, "{other}");
        }
        assert_eq!(Answer("HTTP/1.1 503 x\r\nA: b\r\n\r\nnot ready\n".into()).body(), "not ready\n");
    }
}
