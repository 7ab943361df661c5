//! Sequential HTTP requests over one connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use trunkline_generator::connect;
use trunkline_generator::http_answer::{Answer, request};

/// Back end with one connection.
#[derive(Debug)]
pub(crate) struct Requester {
    socket: TcpStream,
    /// Header lines of all requests, each with its line end.
    headers: String,
}

impl Requester {
    pub(crate) fn connect(address: SocketAddr, headers: &str) -> Result<Self> {
        let headers = format!("Content-Type: application/json\r\n{headers}");
        Ok(Self { socket: connect::open(address)?, headers })
    }

    /// Posts a JSON body and returns the body of the answer.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> Result<String> {
        self.socket.write_all(&request("POST", path, "localhost", &self.headers, body))?;
        let (mut received, mut scratch) = (Vec::new(), [0; 4096]);
        loop {
            let count = self.socket.read(&mut scratch).context("no answer came")?;
            ensure!(count > 0, "the server closed instead of answering");
            received.extend_from_slice(scratch.get(..count).unwrap_or_default());
            let Some((mut answer, rest)) = Answer::begin(&received)? else { continue };
            let mut content = Vec::new();
            answer.take(rest, |part| {
                content.extend_from_slice(part);
                Ok(())
            })?;
            if answer.is_over() {
                let content = String::from_utf8(content)?;
                ensure!((200..300).contains(&answer.status), "{path} is answered with {}: {content}", answer.status);
                return Ok(content);
            }
        }
    }
}
