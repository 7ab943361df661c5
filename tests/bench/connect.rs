//! One client connection by hand: a bare socket, or a whole SignalR connection over a WebSocket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;

use super::frame;

/// A server that does not answer by then is not going to.
const PATIENCE: Duration = Duration::from_secs(10);

/// The hub handshake of a JSON client.
pub const HANDSHAKE: &[u8] = b"{\"protocol\":\"json\",\"version\":1}\x1e";
/// The hub handshake of a MessagePack client: JSON, too.
const HANDSHAKE_BINARY: &[u8] = b"{\"protocol\":\"messagepack\",\"version\":1}\x1e";
/// What accepts it.
pub const HANDSHAKE_ANSWER: &[u8] = b"{}\x1e";

/// An answer to the upgrade that is longer is none.
const HEAD_MAX_BYTES: usize = 16 * 1024;
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Connects to a hub, without negotiation, and waits for the answer to the hub handshake.
///
/// `target` is the hub's path, with a query if there is one; `headers` are further lines of the request, each with its
/// line end. Also returns what came behind that answer.
///
/// # Errors
/// When the server does not accept it.
pub fn to_hub(address: SocketAddr, target: &str, headers: &str) -> Result<(TcpStream, Vec<u8>)> {
    over(open(address)?, address, target, headers)
}

/// The same, for a client of MessagePack.
///
/// # Errors
/// When the server does not accept it.
pub fn to_hub_binary(address: SocketAddr, target: &str) -> Result<(TcpStream, Vec<u8>)> {
    greet(open(address)?, address, target, "", &frame::from_client(HANDSHAKE_BINARY), frame::BINARY)
}

/// The same over a socket that is open.
///
/// # Errors
/// When the server does not accept it.
pub fn over(socket: TcpStream, address: SocketAddr, target: &str, headers: &str) -> Result<(TcpStream, Vec<u8>)> {
    greet(socket, address, target, headers, &frame::from_client(HANDSHAKE), frame::TEXT)
}

/// Upgrades, and says the hub handshake, which is answered by a frame with this first byte.
fn greet(
    mut socket: TcpStream,
    address: SocketAddr,
    target: &str,
    headers: &str,
    handshake: &[u8],
    first: u8,
) -> Result<(TcpStream, Vec<u8>)> {
    socket.write_all(upgrade_request(&address.to_string(), target, headers).as_bytes())?;
    let (head, rest) = read_until(&mut socket, Vec::new(), head_end).context("the upgrade")?;
    if !head.starts_with(b"HTTP/1.1 101 ") {
        bail!("the upgrade is refused: {}", String::from_utf8_lossy(&head));
    }
    socket.write_all(handshake)?;
    let (answer, rest) = read_frame(&mut socket, rest).context("the hub handshake")?;
    if frame::split(&answer).is_none_or(|(kind, payload, _)| (kind, payload) != (first, HANDSHAKE_ANSWER)) {
        bail!("the hub handshake is answered with {:?}", String::from_utf8_lossy(&answer));
    }
    Ok((socket, rest))
}

/// Reads one whole frame behind what has come already; also returns what came behind it.
///
/// # Errors
/// When none comes.
pub fn read_frame(socket: &mut TcpStream, early: Vec<u8>) -> Result<(Vec<u8>, Vec<u8>)> {
    read_until(socket, early, |bytes| frame::split(bytes).map(|(_, _, rest)| bytes.len() - rest.len()))
}

/// The request for an upgrade to a WebSocket.
#[must_use]
pub fn upgrade_request(host: &str, target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n{headers}Upgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Opens a socket that waits for nobody in vain.
///
/// # Errors
/// When nobody listens there.
pub fn open(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("connecting to {address}"))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Reads until `end` says how long the first part is; returns that part, and what came behind it.
fn read_until(
    socket: &mut TcpStream,
    mut bytes: Vec<u8>,
    end: impl Fn(&[u8]) -> Option<usize>,
) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut scratch = [0; 1024];
    loop {
        if let Some(end) = end(&bytes) {
            let rest = bytes.split_off(end.min(bytes.len()));
            return Ok((bytes, rest));
        }
        ensure!(bytes.len() < HEAD_MAX_BYTES, "the answer has no end");
        let count = socket.read(&mut scratch).context("no whole answer came")?;
        ensure!(count > 0, "the server closed instead of answering: {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(scratch.get(..count).unwrap_or_default());
    }
}

/// Where the head of an HTTP answer ends; `None` while it is not whole.
#[must_use]
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, HEAD_END).map(|place| place + HEAD_END.len())
}
