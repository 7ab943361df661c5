//! Blocking connects: a bare socket, or a complete SignalR connection over a WebSocket.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};

use crate::frame_protocol::{FrameProtocol, Heard, Hub};
use crate::welcome::{HubWelcome, Next, Welcome};
use crate::{frame, upgrade};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

const ANSWER_MAX_BYTES: usize = 16 * 1024;

/// Connects to a hub in JSON without negotiation, and waits for the handshake response.
///
/// `target` is the hub's path with an optional query. `headers` contains additional request lines, each with its line
/// end. Also returns the bytes after the response.
pub fn to_hub(address: SocketAddr, target: &str, headers: &str) -> Result<(TcpStream, Vec<u8>)> {
    over(open(address)?, address, target, headers, Hub::Json)
}

/// Connects to a hub over an open socket.
pub fn over(
    socket: TcpStream,
    address: SocketAddr,
    target: &str,
    headers: &str,
    hub: Hub,
) -> Result<(TcpStream, Vec<u8>)> {
    let request = upgrade::request(&address.to_string(), target, headers);
    enter(socket, request.as_bytes(), HubWelcome::new(hub))
}

/// Sends the upgrade request and performs all steps until the connection is open. Also returns the remaining bytes.
pub fn enter<T: Read + Write>(mut socket: T, request: &[u8], mut welcome: impl Welcome) -> Result<(T, Vec<u8>)> {
    socket.write_all(request)?;
    let mut heard = Vec::new();
    loop {
        match welcome.step(&mut heard)? {
            Next::In => return Ok((socket, heard)),
            Next::Say(bytes) => socket.write_all(&bytes)?,
            Next::Wait => read_more(&mut socket, &mut heard)?,
        }
    }
}

/// Waits for the next message, skipping pings. `early` contains bytes read before. Also returns the bytes after the
/// message.
pub fn next_message(socket: &mut TcpStream, early: Vec<u8>, hub: Hub) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut heard = early;
    loop {
        let Some(frame) = frame::split(&heard)? else {
            read_more(socket, &mut heard)?;
            continue;
        };
        if let Heard::Message(message) = hub.receive(&frame)? {
            return Ok((message.to_vec(), frame.rest.to_vec()));
        }
        heard = frame.rest.to_vec();
    }
}

fn read_more(socket: &mut impl Read, heard: &mut Vec<u8>) -> Result<()> {
    ensure!(heard.len() < ANSWER_MAX_BYTES, "the answer has no end");
    let mut scratch = [0; 1024];
    let count = socket.read(&mut scratch).context("no whole answer came")?;
    ensure!(count > 0, "the server closed instead of answering: {:?}", String::from_utf8_lossy(heard));
    heard.extend_from_slice(scratch.get(..count).unwrap_or_default());
    Ok(())
}

/// Opens a socket with time limits.
pub fn open(address: SocketAddr) -> Result<TcpStream> {
    let socket =
        TcpStream::connect_timeout(&address, ANSWER_TIMEOUT).with_context(|| format!("connecting to {address}"))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(socket)
}

/// Opens a socket from this address; port 0 lets the system choose.
pub fn open_from(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    // An earlier connection from this port may be in TIME-WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&from.into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}
