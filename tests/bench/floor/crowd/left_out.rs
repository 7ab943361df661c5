//! Clients that are left out of each message: they are there, and are to get nothing.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use trunkline_tests::bench::{connect, frame};

use super::connect::call;
use crate::broadcast::LEFT_OUT;

const WHO_AM_I: &[u8] = b"{\"type\":1,\"invocationId\":\"1\",\"target\":\"WhoAmI\",\"arguments\":[]}\x1e";

/// All of them.
#[derive(Default)]
pub(super) struct LeftOut {
    sockets: Vec<TcpStream>,
    ids: Vec<String>,
}

impl LeftOut {
    /// Connects them, and asks each for its id.
    pub(super) fn gather(address: SocketAddr) -> Result<Self> {
        let mut all = Self::default();
        for _ in 0..LEFT_OUT {
            let (mut socket, early) = connect::to_hub(address, "/bench", "")?;
            let (answer, _) = call(&mut socket, early, WHO_AM_I, false)?;
            let answer: serde_json::Value = serde_json::from_slice(answer.strip_suffix(b"\x1e").unwrap_or(&answer))?;
            let id = answer.pointer("/result/connectionId").and_then(|id| id.as_str());
            all.ids.push(id.context("a client is not told its id")?.to_owned());
            socket.set_nonblocking(true)?;
            all.sockets.push(socket);
        }
        Ok(all)
    }

    /// Their connection ids.
    pub(super) fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Demands that nothing but pings has come.
    pub(super) fn look(&mut self) -> Result<()> {
        let mut scratch = [0; 4096];
        for socket in &mut self.sockets {
            let count = match socket.read(&mut scratch) {
                Ok(0) => bail!("the server closed a client that is left out"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            let mut bytes = scratch.get(..count).unwrap_or_default();
            while let Some((_, payload, rest)) = frame::split(bytes) {
                ensure!(payload == frame::PING, "a client that is left out gets a message");
                bytes = rest;
            }
        }
        Ok(())
    }
}
