//! Clients that do nothing but say that they are there, and hear the same.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use trunkline_tests::bench::done::Done;
use trunkline_tests::bench::look::{EVENTS, READ_BYTES, look_at};
use trunkline_tests::bench::{connect, frame};

use super::{At, CrowdArguments, Play};
use crate::server::Server;
use crate::work::{self, KEEP_ALIVE, KEEP_ALIVE_SHARES};

/// From one share to the next.
const TURN: Duration = KEEP_ALIVE.checked_div(KEEP_ALIVE_SHARES).unwrap();

/// All clients.
pub(super) struct Idlers {
    poll: Poll,
    events: Events,
    clients: Vec<TcpStream>,
    keep_alive: Vec<u8>,
    scratch: Vec<u8>,
    share: usize,
}

impl Idlers {
    pub(super) fn gather(server: &Server, arguments: &CrowdArguments) -> Result<Self> {
        Self::connect(arguments.at, server.address(), arguments.clients)
    }

    /// Connects so many.
    pub(super) fn connect(at: At, address: SocketAddr, count: usize) -> Result<Self> {
        let poll = Poll::new()?;
        let mut clients = Vec::with_capacity(count);
        for number in 0..count {
            let connected = match at {
                At::Floor => connect::open(address),
                At::Proxy => connect::to_hub(address, "/bench", "").map(|(socket, _)| socket),
            };
            let socket = connected.with_context(|| format!("client {number}"))?;
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
            clients.push(socket);
        }
        let (events, scratch) = (Events::with_capacity(EVENTS), vec![0; READ_BYTES]);
        Ok(Self { poll, events, clients, keep_alive: work::keep_alive().asked, scratch, share: 0 })
    }

    /// One share of the clients says that it is there; returns how many keep-alives had come.
    fn turn(&mut self) -> Result<u64> {
        for client in self.clients.iter_mut().skip(self.share).step_by(KEEP_ALIVE_SHARES as usize) {
            client.write_all(&self.keep_alive).context("the server takes no more")?;
        }
        self.share = (self.share + 1) % KEEP_ALIVE_SHARES as usize;
        self.take()
    }

    /// Reads what is there; returns how many keep-alives that was.
    fn take(&mut self) -> Result<u64> {
        look_at(&mut self.poll, &mut self.events)?;
        let mut came = 0;
        for event in &self.events {
            let Some(client) = self.clients.get_mut(event.token().0) else { continue };
            let count = match client.read(&mut self.scratch) {
                Ok(0) => bail!("the server closed it"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            let mut bytes = self.scratch.get(..count).unwrap_or_default();
            while let Some((_, payload, rest)) = frame::split(bytes) {
                ensure!(payload == frame::PING, "more than a keep-alive came");
                (came, bytes) = (came + 1, rest);
            }
            ensure!(bytes.is_empty(), "half a keep-alive came");
        }
        Ok(came)
    }
}

impl Play for Idlers {
    fn run_for(&mut self, length: Duration) -> Result<Done> {
        let (mut due, end) = (Instant::now(), Instant::now() + length);
        let mut done = Done::default();
        while due < end {
            sleep(due.saturating_duration_since(Instant::now()));
            due += TURN;
            done.note(self.turn()?, Duration::ZERO);
        }
        Ok(done)
    }

    fn look(&mut self) -> Result<()> {
        self.take().map(drop)
    }

    fn rest(&mut self) -> Result<Duration> {
        self.turn()?;
        Ok(TURN)
    }
}
