//! Crowds of each kind at the servers of a peer.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use trunkline_generator::callers::Callers;
use trunkline_generator::connect;
use trunkline_generator::idlers::Idlers;
use trunkline_generator::origin::Origins;
use trunkline_generator::receivers::{Burst, Publisher, Receivers, numbered_text};
use trunkline_generator::visitors::{Arrivals, Visitors};

use crate::dialect::{Dialect, DialectWelcome};
use crate::servers::Servers;

const SCRATCH_BYTES: usize = 64 * 1024;

/// Clients that get each message, and the publisher.
pub(crate) fn receivers(
    servers: &Servers,
    dialect: Dialect,
    count: usize,
    payload: usize,
) -> Result<Receivers<Dialect, TextPublisher>> {
    let asking = Cell::new(None);
    let open = |number| {
        let client = client(servers, dialect, number)?;
        if number == 0 && !dialect.publishes_apart() {
            asking.set(Some(client.0.try_clone()?));
        }
        Ok(client)
    };
    let publisher = || {
        if dialect.publishes_apart() {
            let socket = connect::open(address(servers, 0)?)?;
            socket.set_nonblocking(true)?;
            asking.set(Some(socket));
        }
        let asking = asking.take().context("there are no clients")?;
        Ok(TextPublisher { dialect, payload, asking, scratch: vec![0; SCRATCH_BYTES] })
    };
    Receivers::gather(count, open, publisher)
}

/// Clients that ask for echoes; `None` where nobody is answered.
pub(crate) fn callers(
    servers: &Servers,
    dialect: Dialect,
    count: usize,
    payload: usize,
) -> Result<Option<Callers<Dialect>>> {
    let call = dialect.echo(&"x".repeat(payload));
    call.map(|call| Callers::gather(count, call, |number| client(servers, dialect, number))).transpose()
}

/// Clients that do nothing.
pub(crate) fn idlers(servers: &Servers, dialect: Dialect, count: usize) -> Result<Idlers<Dialect>> {
    Idlers::gather(count, |number| client(servers, dialect, number))
}

/// Clients that connect and leave.
pub(crate) fn visitors(servers: &Servers, dialect: Dialect, count: usize) -> Result<Visitors<DialectArrivals<'_>>> {
    let (upgrade, origins) = (dialect.upgrade(), Origins::default());
    Visitors::new(count, DialectArrivals { servers, dialect, upgrade, origins })
}

/// Connects the client of this number, at the next address.
fn client(servers: &Servers, dialect: Dialect, number: usize) -> Result<(TcpStream, Dialect, Vec<u8>)> {
    let socket = connect::open(address(servers, number)?)?;
    let (socket, early) = connect::enter(socket, &dialect.upgrade(), DialectWelcome::new(dialect))?;
    Ok((socket, dialect, early))
}

fn address(servers: &Servers, number: usize) -> Result<SocketAddr> {
    servers.addresses.iter().cycle().nth(number % servers.addresses.len().max(1)).copied().context("no server")
}

/// Publishes one numbered text after the other.
pub(crate) struct TextPublisher {
    dialect: Dialect,
    payload: usize,
    /// Another handle of the first client's socket, or a connection of its own.
    asking: TcpStream,
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

    /// Reads how requests ended, where the server tells: a refused one is missed elsewhere.
    fn hear(&mut self) -> Result<()> {
        if !self.dialect.publishes_apart() {
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
}

impl Arrivals for DialectArrivals<'_> {
    type Welcome = DialectWelcome;

    fn open(&mut self, place: usize) -> Result<TcpStream> {
        self.origins.connect(address(self.servers, place)?)
    }

    fn upgrade(&self) -> &[u8] {
        &self.upgrade
    }

    fn welcome(&self) -> DialectWelcome {
        DialectWelcome::new(self.dialect)
    }
}
