//! Crowds of each kind at the servers of a peer.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustls::{ClientConnection, HandshakeKind, StreamOwned};
use trunkline_generator::callers::Callers;
use trunkline_generator::client::Opened;
use trunkline_generator::connect;
use trunkline_generator::idlers::Idlers;
use trunkline_generator::origin::Origins;
use trunkline_generator::receivers::{Burst, Publisher, Receivers, numbered_text};
use trunkline_generator::stream::Stream;
use trunkline_generator::visitors::{Arrivals, Visitors};

use crate::certificate::{Certificate, Sessions};
use crate::dialect::{Dialect, DialectWelcome};
use crate::servers::Servers;

const SCRATCH_BYTES: usize = 64 * 1024;

/// Clients that receive each message, and the publisher.
pub(crate) fn receivers(
    servers: &Servers,
    dialect: Dialect,
    count: usize,
    payload: usize,
) -> Result<Receivers<Dialect, TextPublisher>> {
    let asking = Cell::new(None);
    // A TLS session can't be shared, so another client publishes and reads its own messages.
    let is_apart = dialect.publishes_apart() || servers.certificate.is_some();
    let open = |number| {
        let client = client(servers, dialect, number)?;
        if number == 0 && !is_apart {
            asking.set(Some((client.0.try_clone()?, None)));
        }
        Ok(client)
    };
    let publisher = || {
        if dialect.publishes_apart() {
            asking.set(Some((connect::open(address(servers, 0)?)?, None)));
        } else if is_apart {
            let (socket, _, opened) = client(servers, dialect, 0)?;
            asking.set(Some((socket, opened.tls)));
        }
        let (socket, tls) = asking.take().context("there are no clients")?;
        socket.set_nonblocking(true)?;
        let asking = Stream::new(mio::net::TcpStream::from_std(socket), tls);
        Ok(TextPublisher { dialect, payload, is_apart, asking, scratch: vec![0; SCRATCH_BYTES] })
    };
    Receivers::gather(count, open, publisher)
}

/// Clients that request echoes; `None` if the peer has no answers.
pub(crate) fn callers(
    servers: &Servers,
    dialect: Dialect,
    count: usize,
    payload: usize,
) -> Result<Option<Callers<Dialect>>> {
    let call = dialect.echo(&"x".repeat(payload));
    call.map(|call| Callers::gather(count, call, |number| client(servers, dialect, number))).transpose()
}

pub(crate) fn idlers(servers: &Servers, dialect: Dialect, count: usize) -> Result<Idlers<Dialect>> {
    Idlers::gather(count, |number| client(servers, dialect, number))
}

/// Clients that connect and disconnect; with TLS, each performs a full handshake.
pub(crate) fn visitors(servers: &Servers, dialect: Dialect, count: usize) -> Result<Visitors<DialectArrivals<'_>>> {
    let sessions = servers.certificate.iter().map(Certificate::sessions).collect();
    Visitors::new(count, DialectArrivals::new(servers, dialect, sessions, HandshakeKind::Full))
}

/// Clients that connect by resuming an earlier TLS session, and disconnect; `None` without TLS.
pub(crate) fn resuming_visitors(
    servers: &Servers,
    dialect: Dialect,
    count: usize,
) -> Result<Option<Visitors<DialectArrivals<'_>>>> {
    let Some(certificate) = &servers.certificate else { return Ok(None) };
    // Each slot has its own sessions: nodes can't open each other's tickets, and a ticket is used once.
    let sessions = (0..count).map(|_| certificate.resumed_sessions()).collect();
    Visitors::new(count, DialectArrivals::new(servers, dialect, sessions, HandshakeKind::Resumed)).map(Some)
}

/// Connects the client with this number, at the next address.
fn client(servers: &Servers, dialect: Dialect, number: usize) -> Result<(TcpStream, Dialect, Opened)> {
    let (socket, upgrade) = (connect::open(address(servers, number)?)?, servers.upgrade(dialect));
    let Some(certificate) = &servers.certificate else {
        let (socket, early) = connect::enter(socket, &upgrade, DialectWelcome::new(dialect))?;
        return Ok((socket, dialect, early.into()));
    };
    let stream = StreamOwned::new(certificate.sessions().begin()?, socket);
    let (stream, early) = connect::enter(stream, &upgrade, DialectWelcome::new(dialect))?;
    let (tls, socket) = stream.into_parts();
    Ok((socket, dialect, Opened { carrier: early.into(), tls: Some(tls.into()) }))
}

fn address(servers: &Servers, number: usize) -> Result<SocketAddr> {
    servers.addresses.iter().cycle().nth(number % servers.addresses.len().max(1)).copied().context("no server")
}

/// Publishes numbered texts sequentially.
pub(crate) struct TextPublisher {
    dialect: Dialect,
    payload: usize,
    /// Another handle of the first client's socket, or a separate connection.
    asking: Stream,
    /// Whether this connection has no other reader.
    is_apart: bool,
    scratch: Vec<u8>,
}

impl Publisher for TextPublisher {
    fn burst(&mut self, first: u64) -> Burst {
        let text = numbered_text(first, self.payload);
        let (asking, messages) = (self.dialect.publish(&text), vec![self.dialect.published(&text)]);
        Burst { asking, messages, binary_messages: Vec::new() }
    }

    fn ask(&mut self, asking: &[u8]) -> Result<Instant> {
        let started = Instant::now();
        self.asking.write_all(asking).context("the server takes no more")?;
        Ok(started)
    }

    /// Reads the outcome of requests, if the server reports it: a refused message is also detected elsewhere.
    fn receive(&mut self) -> Result<()> {
        if !self.is_apart {
            return Ok(());
        }
        match self.asking.read(&mut self.scratch) {
            Ok(0) => bail!("the server closed the publisher's connection"),
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Visitors of a peer's servers.
pub(crate) struct DialectArrivals<'a> {
    servers: &'a Servers,
    dialect: Dialect,
    upgrade: Vec<u8>,
    origins: Origins,
    /// Sessions by slot, or one for all; empty without TLS.
    sessions: Vec<Sessions>,
    due: HandshakeKind,
    /// Number of handshakes with the expected kind, and with another one.
    handshakes: [u64; 2],
}

impl<'a> DialectArrivals<'a> {
    fn new(servers: &'a Servers, dialect: Dialect, sessions: Vec<Sessions>, due: HandshakeKind) -> Self {
        let (upgrade, origins) = (servers.upgrade(dialect), Origins::default());
        Self { servers, dialect, upgrade, origins, sessions, due, handshakes: [0, 0] }
    }
}

impl Arrivals for DialectArrivals<'_> {
    type Welcome = DialectWelcome;

    fn open(&mut self, place: usize) -> Result<TcpStream> {
        self.origins.connect(address(self.servers, place)?)
    }

    fn tls(&mut self, place: usize) -> Result<Option<Box<ClientConnection>>> {
        let sessions = self.sessions.get(place % self.sessions.len().max(1));
        sessions.map(|sessions| sessions.begin().map(Box::new)).transpose()
    }

    /// Checks the kinds of handshakes, except for the first ones, which have no session to resume.
    fn entered(&mut self, socket: &Stream) -> Result<()> {
        let Some(kind) = socket.handshake_kind() else { return Ok(()) };
        let [due, other] = &mut self.handshakes;
        if kind == self.due {
            *due += 1;
        } else {
            *other += 1;
        }
        // The first handshake of each slot; occasionally a server refuses a ticket.
        let other_max = if self.due == HandshakeKind::Full { 0 } else { self.sessions.len() as u64 + *due / 10 };
        ensure!(*other <= other_max, "{other} handshakes are none of the kind {:?}, and {due} are", self.due);
        Ok(())
    }

    fn upgrade(&self) -> &[u8] {
        &self.upgrade
    }

    fn welcome(&self) -> DialectWelcome {
        DialectWelcome::new(self.dialect)
    }
}
