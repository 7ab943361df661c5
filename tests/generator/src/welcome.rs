//! Steps from the upgrade to an open connection.

use anyhow::{Result, bail};

use crate::frame_protocol::{FrameProtocol, HANDSHAKE_ANSWER, Heard, Hub};
use crate::{frame, upgrade};

/// Next step of opening a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The connection is open.
    In,
    /// These bytes have to be sent.
    Say(Vec<u8>),
    /// More bytes have to be read.
    Wait,
}

/// Opening of a connection after its upgrade request. Sans-I/O: bytes in, steps out.
pub trait Welcome {
    /// Consumes the bytes of one step from the front of `heard`. Call again until it returns `In` or `Wait`.
    fn step(&mut self, heard: &mut Vec<u8>) -> Result<Next>;
}

/// Opening of a hub connection: the upgrade, then the hub handshake.
#[derive(Debug, Clone, Copy)]
pub struct HubWelcome {
    hub: Hub,
    is_upgraded: bool,
}

impl HubWelcome {
    /// Starts after the upgrade request of a client with this hub protocol.
    #[must_use]
    pub fn new(hub: Hub) -> Self {
        Self { hub, is_upgraded: false }
    }
}

impl Welcome for HubWelcome {
    fn step(&mut self, heard: &mut Vec<u8>) -> Result<Next> {
        if !self.is_upgraded {
            let Some(end) = upgrade::accepted(heard)? else { return Ok(Next::Wait) };
            heard.drain(..end);
            self.is_upgraded = true;
            return Ok(Next::Say(self.hub.handshake()));
        }
        let Some(frame) = frame::split(heard)? else { return Ok(Next::Wait) };
        if self.hub.receive(&frame)? != Heard::Message(HANDSHAKE_ANSWER) {
            bail!("the hub handshake is answered with {:?}", String::from_utf8_lossy(frame.payload));
        }
        let length = heard.len() - frame.rest.len();
        heard.drain(..length);
        Ok(Next::In)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

    #[test]
    fn a_hub_connection_is_open_when_its_handshake_is_accepted_and_early_bytes_stay() {
        let (mut welcome, mut heard) = (HubWelcome::new(Hub::Json), UPGRADED[..20].to_vec());
        assert_eq!(welcome.step(&mut heard).unwrap(), Next::Wait);
        heard.extend_from_slice(&UPGRADED[20..]);
        assert_eq!(welcome.step(&mut heard).unwrap(), Next::Say(Hub::Json.handshake()));
        assert_eq!(welcome.step(&mut heard).unwrap(), Next::Wait);
        heard.extend_from_slice(b"\x81\x03{}\x1eearly");
        assert_eq!(welcome.step(&mut heard).unwrap(), Next::In);
        assert_eq!(heard, b"early");
    }

    #[test]
    fn a_refusal_is_an_error() {
        let refused = |bytes: &[u8]| HubWelcome::new(Hub::Json).step(&mut bytes.to_vec()).is_err();
        assert!(refused(b"HTTP/1.1 404 Not Found\r\n\r\n"));
        let mut welcome = HubWelcome { hub: Hub::Json, is_upgraded: true };
        assert!(welcome.step(&mut b"\x81\x0f{\"error\":\"no\"}\x1e".to_vec()).is_err());
    }
}
