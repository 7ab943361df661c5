//! Client with stateful reconnect that reconnects after its socket is cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use trunkline_generator::frame_protocol::{HANDSHAKE_ANSWER, Hub};
use trunkline_generator::welcome::{Next, Welcome};
use trunkline_generator::{connect, frame, upgrade};

const HUB: &str = "/bench";

/// Handshake of a client that counts received messages.
const STATEFUL_HANDSHAKE: &[u8] = b"{\"protocol\":\"json\",\"version\":2}\x1e";

/// Client of the hub `/bench` with stateful reconnect.
#[derive(Debug)]
pub struct Mover {
    socket: TcpStream,
    /// Bytes after the last message.
    early: Vec<u8>,
    target: String,
    /// Index of its node.
    at: usize,
    sent: u64,
    received: u64,
}

/// Upgrade without any further steps.
struct BareWelcome;

impl Welcome for BareWelcome {
    fn step(&mut self, heard: &mut Vec<u8>) -> Result<Next> {
        let Some(end) = upgrade::accepted(heard)? else { return Ok(Next::Wait) };
        heard.drain(..end);
        Ok(Next::In)
    }
}

impl Mover {
    /// Connects to the node at this index of `nodes`, and makes a call.
    pub fn connect(nodes: &[SocketAddr], at: usize) -> Result<Self> {
        let node = *nodes.get(at).context("no node")?;
        let target = format!("{HUB}?id={}", connection_token(node)?);
        let (socket, early) = upgraded(node, &target)?;
        let mut mover = Self { socket, early, target, at, sent: 0, received: 0 };
        mover.socket.write_all(&frame::from_client(STATEFUL_HANDSHAKE))?;
        let answer = mover.message()?;
        ensure!(answer == HANDSHAKE_ANSWER, "the handshake is answered with {:?}", String::from_utf8_lossy(&answer));
        mover.is_served()?;
        Ok(mover)
    }

    /// Cuts the socket and reconnects to the node `step` positions further. Returns the time until a call was answered.
    pub fn come_back(&mut self, nodes: &[SocketAddr], step: usize) -> Result<Duration> {
        self.at = (self.at + step) % nodes.len();
        let node = *nodes.get(self.at).context("no node")?;
        let cut_at = Instant::now();
        self.socket.shutdown(Shutdown::Both).context("cutting the socket")?;
        (self.socket, self.early) = upgraded(node, &self.target).context("coming back")?;
        let begin = kind_and_number(&self.message()?)?;
        ensure!(begin == (9, self.received + 1), "the node goes on with {begin:?} behind {}", self.received);
        self.send(&format!("{{\"type\":9,\"sequenceId\":{}}}\x1e", self.sent + 1))?;
        self.is_served()?;
        Ok(cut_at.elapsed())
    }

    /// Makes a call and acknowledges its answer.
    fn is_served(&mut self) -> Result<()> {
        self.sent += 1;
        let call = self.sent;
        self.send(&format!(
            "{{\"type\":1,\"invocationId\":\"{call}\",\"target\":\"Echo\",\"arguments\":[{call}]}}\x1e"
        ))?;
        let due = format!("{{\"type\":3,\"invocationId\":\"{call}\",\"result\":{call}}}\x1e");
        loop {
            let message = self.message()?;
            if message == due.as_bytes() {
                self.received += 1;
                return self.send(&format!("{{\"type\":8,\"sequenceId\":{}}}\x1e", self.received));
            }
            // Acknowledgements come once a second.
            ensure!(kind_and_number(&message)?.0 == 8, "{:?} came instead", String::from_utf8_lossy(&message));
        }
    }

    fn send(&mut self, messages: &str) -> Result<()> {
        Ok(self.socket.write_all(&frame::from_client(messages.as_bytes()))?)
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        let (message, early) = connect::next_message(&mut self.socket, std::mem::take(&mut self.early), Hub::Json)?;
        self.early = early;
        Ok(message)
    }
}

fn upgraded(node: SocketAddr, target: &str) -> Result<(TcpStream, Vec<u8>)> {
    connect::enter(connect::open(node)?, upgrade::request(&node.to_string(), target, "").as_bytes(), BareWelcome)
}

/// Kind and sequence id of an ack or sequence message.
fn kind_and_number(message: &[u8]) -> Result<(u64, u64)> {
    let text = message.strip_suffix(b"\x1e").unwrap_or(message);
    let Ok(message) = serde_json::from_slice::<Value>(text) else {
        bail!("{:?} is no message", String::from_utf8_lossy(text));
    };
    let number = |name: &str| message.get(name).and_then(Value::as_u64).unwrap_or_default();
    Ok((number("type"), number("sequenceId")))
}

/// Negotiates a connection with stateful reconnect.
fn connection_token(node: SocketAddr) -> Result<String> {
    let mut socket = connect::open(node)?;
    let query = "negotiateVersion=1&useStatefulReconnect=true";
    let request = format!(
        "POST {HUB}/negotiate?{query} HTTP/1.1\r\nHost: {node}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).context("no answer to the negotiation")?;
    let (_, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer to the negotiation: {answer}"))?;
    let negotiated: Value = serde_json::from_str(body).with_context(|| format!("negotiation: {answer}"))?;
    let token = negotiated.get("connectionToken").and_then(Value::as_str);
    token.map(str::to_owned).with_context(|| format!("no token: {body}"))
}
