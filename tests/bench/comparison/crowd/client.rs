//! One client: a socket, and what of a frame has come.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Interest, Poll, Token};
use trunkline_tests::bench::{connect, frame};

use crate::dialect::{Dialect, Heard, Next, Welcome};
use crate::servers::Servers;

/// A connection that is in.
pub(super) struct Client {
    socket: TcpStream,
    dialect: Dialect,
    /// Bytes of a frame that is not whole yet.
    partial: Vec<u8>,
}

impl Client {
    /// Connects as one of many, each at the next address, and waits until it is in.
    pub(super) fn connect(
        servers: &Servers,
        dialect: Dialect,
        number: usize,
    ) -> Result<(std::net::TcpStream, Vec<u8>)> {
        let address = address(servers, number)?;
        let mut socket = connect::open(address)?;
        socket.write_all(&dialect.upgrade())?;
        let (mut welcome, mut heard, mut scratch) = (Welcome::new(dialect), Vec::new(), [0; 1024]);
        loop {
            match welcome.step(&mut heard)? {
                Next::In => return Ok((socket, heard)),
                Next::Say(bytes) => socket.write_all(&bytes)?,
                Next::Wait => {
                    let count = socket.read(&mut scratch).context("no welcome came")?;
                    ensure!(count > 0, "the server closed: {:?}", String::from_utf8_lossy(&heard));
                    heard.extend_from_slice(scratch.get(..count).unwrap_or_default());
                }
            }
        }
    }

    /// Connects so many, and has them looked at under their numbers.
    pub(super) fn gather(servers: &Servers, dialect: Dialect, count: usize, poll: &Poll) -> Result<Vec<Self>> {
        (0..count)
            .map(|number| {
                let connected = Self::connect(servers, dialect, number);
                let (socket, partial) = connected.with_context(|| format!("client {number}"))?;
                socket.set_nonblocking(true)?;
                let mut socket = TcpStream::from_std(socket);
                poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
                Ok(Self { socket, dialect, partial })
            })
            .collect()
    }

    pub(super) fn say(&mut self, bytes: &[u8]) -> Result<()> {
        // What is said is small: a socket that does not take it whole is of a server that does not read.
        self.socket.write_all(bytes).context("the server takes no more")
    }

    /// Reads what is there, and hands on each message.
    pub(super) fn read(&mut self, scratch: &mut [u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => bail!("the server closed it"),
                Ok(count) => {
                    self.take(scratch.get(..count).unwrap_or_default(), &mut each)?;
                    // Less than there was room for: there is no more, and the next bytes are a new event.
                    if count < scratch.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self, bytes: &[u8], each: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if self.partial.is_empty() {
            let rest = self.split(bytes, each)?;
            self.partial.extend_from_slice(rest);
            return Ok(());
        }
        let mut whole = std::mem::take(&mut self.partial);
        whole.extend_from_slice(bytes);
        let rest = self.split(&whole, each)?.len();
        self.partial.extend_from_slice(whole.get(whole.len() - rest..).unwrap_or_default());
        Ok(())
    }

    /// Hands on each message of these bytes; what is left is no whole frame.
    fn split<'a>(&mut self, mut bytes: &'a [u8], each: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<&'a [u8]> {
        while let Some((first, payload, rest)) = frame::split(bytes) {
            bytes = rest;
            match self.dialect.hear(first, payload)? {
                Heard::Message(message) => each(message)?,
                Heard::KeepAlive => {}
                Heard::Question(answer) => self.say(&frame::from_client(answer))?,
            }
        }
        Ok(bytes)
    }
}

/// Where the client of this number connects.
pub(super) fn address(servers: &Servers, number: usize) -> Result<SocketAddr> {
    servers.addresses.iter().cycle().nth(number % servers.addresses.len().max(1)).copied().context("no server")
}
