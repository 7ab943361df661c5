//! WebSockets: one socket, upgraded to carry frames in both directions.
//!
//! One thread drives thousands of connections, so messages take no detours: they are written immediately, read into one
//! shared buffer, and parsed in place.

use std::cell::RefCell;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use trunkline_generator::frame::{self, Opcode};
use trunkline_generator::upgrade;
use trunkline_protocol::hub::HubProtocol;

use super::taker::{Taker, UNSENT_MAX_BYTES};
use crate::dial::ConnectError;
use crate::ended::{Ended, Ending};
use crate::exchange::USER_AGENT;
use crate::greeting::{self, ANSWER_MAX_BYTES};
use crate::wire::inbound::{Event, Inbound};

/// Size of the read buffer shared by all connections of the process.
const SCRATCH_BYTES: usize = 256 * 1024;

/// Maximum consecutive reads before other connections run.
const READS_MAX: usize = 8;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

#[derive(Debug)]
pub(crate) struct WebSocket {
    stream: TcpStream,
    protocol: HubProtocol,
    unsent: RefCell<Vec<u8>>,
    /// Frames after the handshake response, until the connection is served.
    rest: RefCell<Vec<u8>>,
    pub(super) ending: Ending,
}

impl WebSocket {
    /// Upgrades a new socket and performs the handshake. `path` contains the hub, and the connection token after a
    /// negotiation.
    pub(crate) async fn open(
        mut stream: TcpStream,
        authority: &str,
        path: &str,
        token: Option<&str>,
        protocol: HubProtocol,
    ) -> Result<Self, ConnectError> {
        stream.write_all(upgrade_request(authority, path, token).as_bytes()).await?;
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(end) = upgrade::head_end(&bytes) {
                break bytes.drain(..end).collect::<Vec<u8>>();
            }
            read_more(&mut stream, &mut bytes).await?;
        };
        let head = String::from_utf8_lossy(&head);
        let status = head.split(' ').nth(1).unwrap_or("nothing");
        if status != "101" {
            return Err(ConnectError::Upgrade(status.to_owned()));
        }
        let mut handshake = Vec::new();
        frame::put(Opcode::Text, &greeting::request(protocol), &mut handshake);
        stream.write_all(&handshake).await?;
        let rest = welcome(&mut stream, bytes).await?.into();
        Ok(Self { stream, protocol, unsent: RefCell::default(), rest, ending: Ending::default() })
    }

    pub(super) fn put(&self, message: &[u8]) {
        let opcode = match self.protocol {
            HubProtocol::Json => Opcode::Text,
            HubProtocol::MessagePack | HubProtocol::BlazorPack => Opcode::Binary,
        };
        self.put_frame(opcode, message);
    }

    pub(super) fn close(&self) {
        self.put_frame(Opcode::Close, &1000_u16.to_be_bytes());
        self.ending.notify(Ended::Closed);
    }

    pub(super) fn cut(&self) {
        // Fails only if the socket is already gone.
        drop(self.stream.set_zero_linger());
        self.ending.notify(Ended::Closed);
    }

    pub(super) async fn serve(&self, taker: &impl Taker) -> Ended {
        let mut inbound = Inbound::new(self.protocol);
        if let Err(ended) = self.take(&self.rest.take(), &mut inbound, taker) {
            return ended;
        }
        loop {
            if let Some(ended) = self.ending.told() {
                return ended;
            }
            let interest = if self.unsent.borrow().is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            tokio::select! {
                ready = self.stream.ready(interest) => if let Err(error) = ready {
                    return Ended::Socket(error.kind());
                },
                () = self.ending.rung() => continue,
            }
            self.flush();
            if let Err(ended) = self.read(&mut inbound, taker) {
                return ended;
            }
        }
    }

    fn read(&self, inbound: &mut Inbound, taker: &impl Taker) -> Result<(), Ended> {
        SCRATCH.with_borrow_mut(|scratch| {
            for _ in 0..READS_MAX {
                match self.stream.try_read(scratch) {
                    Ok(0) => return Err(Ended::without_a_word()),
                    Ok(count) => {
                        taker.note_received();
                        self.take(scratch.get(..count).unwrap_or_default(), inbound, taker)?;
                        if count < SCRATCH_BYTES {
                            return Ok(());
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(Ended::Socket(error.kind())),
                }
            }
            Ok(())
        })
    }

    fn take(&self, bytes: &[u8], inbound: &mut Inbound, taker: &impl Taker) -> Result<(), Ended> {
        let mut ended = None;
        let taken = inbound.take(bytes, |event| {
            let result = match event {
                Event::Message(body) => taker.message(body),
                Event::Ping(payload) => {
                    self.put_frame(Opcode::Pong, payload);
                    Ok(())
                }
                Event::Close => Err(Ended::ByServer("WebSocket close".into())),
            };
            if let Err(cause) = result {
                ended.get_or_insert(cause);
            }
        });
        match (ended, taken) {
            (Some(ended), _) => Err(ended),
            (None, Err(error)) => Err(Ended::Protocol(error.to_string())),
            (None, Ok(())) => Ok(()),
        }
    }

    fn put_frame(&self, opcode: Opcode, payload: &[u8]) {
        let mut unsent = self.unsent.borrow_mut();
        let was_empty = unsent.is_empty();
        frame::put(opcode, payload, &mut unsent);
        let is_slow = unsent.len() > UNSENT_MAX_BYTES;
        drop(unsent);
        if was_empty {
            self.flush();
        }
        if is_slow {
            self.ending.notify(Ended::Slow);
        }
        if !self.unsent.borrow().is_empty() {
            self.ending.ring();
        }
    }

    /// Writes as much as the socket accepts. Errors also reach the reading half, which handles them.
    fn flush(&self) {
        let mut unsent = self.unsent.borrow_mut();
        while !unsent.is_empty() {
            match self.stream.try_write(&unsent) {
                Ok(count) => drop(unsent.drain(..count)),
                Err(_) => return,
            }
        }
        *unsent = Vec::new();
    }
}

/// Waits for the handshake response and returns the frames after it.
async fn welcome(stream: &mut TcpStream, mut bytes: Vec<u8>) -> Result<Vec<u8>, ConnectError> {
    loop {
        let found = frame::split(&bytes).map_err(|_| ConnectError::Handshake("no WebSocket frame".into()))?;
        match found {
            None => read_more(stream, &mut bytes).await?,
            Some(found) if matches!(found.opcode, Opcode::Text | Opcode::Binary) => {
                let length = greeting::welcome(found.payload)?;
                // Hub messages in the frame of the response get a separate frame.
                let more = found.payload.get(length..).unwrap_or_default();
                return Ok(reframed(more, found.rest));
            }
            Some(found) if found.opcode == Opcode::Close => return Err(ConnectError::Closed),
            Some(found) => bytes = found.rest.to_vec(),
        }
    }
}

/// Encodes these messages as server frames, followed by these frames.
fn reframed(messages: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in messages.chunks(125) {
        let length = u8::try_from(chunk.len()).unwrap_or(0);
        bytes.extend_from_slice(&[0x82, length]);
        bytes.extend_from_slice(chunk);
    }
    bytes.extend_from_slice(rest);
    bytes
}

fn upgrade_request(authority: &str, path: &str, token: Option<&str>) -> String {
    let bearer = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    upgrade::request(authority, path, &format!("User-Agent: {USER_AGENT}\r\n{bearer}"))
}

async fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<(), ConnectError> {
    let mut scratch = [0; 1024];
    let count = stream.read(&mut scratch).await?;
    if count == 0 || bytes.len() > ANSWER_MAX_BYTES {
        return Err(ConnectError::Closed);
    }
    bytes.extend_from_slice(scratch.get(..count).unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_behind_the_handshake_answer_come_first() {
        assert_eq!(reframed(b"{}\x1e", b"\x81\x00"), b"\x82\x03{}\x1e\x81\x00");
        assert_eq!(reframed(b"", b"\x81\x00"), b"\x81\x00");
    }
}
