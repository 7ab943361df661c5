//! Clients that call a method, each again as soon as it is answered.

use std::io::{ErrorKind, Read, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use trunkline_tests::bench::done::Done;
use trunkline_tests::bench::look::{EVENTS, NAP, READ_BYTES, demand_progress, look_at};
use trunkline_tests::bench::{connect, frame};

use super::{At, CrowdArguments, Play};
use crate::server::Server;
use crate::work::{self, Exchange};

/// One client.
struct Client {
    socket: TcpStream,
    /// What of its answer has come, or of a ping before it.
    heard: Vec<u8>,
    /// When it called; `None` while it has nothing to wait for.
    since: Option<Instant>,
}

/// All clients.
pub(super) struct Callers {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    exchange: Exchange,
    scratch: Vec<u8>,
}

impl Callers {
    pub(super) fn gather(server: &Server, arguments: &CrowdArguments) -> Result<Self> {
        let poll = Poll::new()?;
        let mut clients = Vec::with_capacity(arguments.clients);
        for (number, address) in (0..arguments.clients).zip(server.addresses()) {
            let connected = match arguments.at {
                At::Floor => connect::open(address).map(|socket| (socket, Vec::new())),
                At::Proxy => connect::to_hub(address, "/bench", ""),
            };
            let (socket, heard) = connected.with_context(|| format!("client {number}"))?;
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
            clients.push(Client { socket, heard, since: None });
        }
        let (events, scratch) = (Events::with_capacity(EVENTS), vec![0; READ_BYTES]);
        Ok(Self { poll, events, clients, exchange: work::echo(arguments.payload), scratch })
    }

    /// Reads what is there. Who was answered calls again, if `again`. How many were not answered, and are not to call.
    fn take(&mut self, done: &mut Done, again: bool) -> Result<usize> {
        look_at(&mut self.poll, &mut self.events)?;
        let mut ended = 0;
        for event in &self.events {
            let Some(client) = self.clients.get_mut(event.token().0) else { continue };
            let Some(since) = client.read(&mut self.scratch, &self.exchange.answered)? else { continue };
            done.note(1, since.elapsed());
            if again {
                client.call(&self.exchange.asked)?;
            } else {
                ended += 1;
            }
        }
        Ok(ended)
    }
}

impl Play for Callers {
    fn run_for(&mut self, length: Duration) -> Result<Done> {
        let (started, mut done) = (Instant::now(), Done::default());
        for client in &mut self.clients {
            client.call(&self.exchange.asked)?;
        }
        while started.elapsed() < length {
            sleep(NAP);
            self.take(&mut done, true)?;
        }
        let (over, mut waiting) = (Instant::now(), self.clients.len());
        while waiting > 0 {
            demand_progress(over, waiting)?;
            sleep(NAP);
            waiting -= self.take(&mut done, false)?;
        }
        Ok(done)
    }

    fn look(&mut self) -> Result<()> {
        let mut nothing = Done::default();
        self.take(&mut nothing, false)?;
        ensure!(nothing.units == 0, "a call was answered twice");
        Ok(())
    }
}

impl Client {
    fn call(&mut self, asked: &[u8]) -> Result<()> {
        self.since = Some(Instant::now());
        // A call is small: a socket that does not take it whole is of a server that does not read.
        self.socket.write_all(asked).context("the server takes no more")
    }

    /// Reads what is there; since when the call was under way that is answered now.
    fn read(&mut self, scratch: &mut [u8], answered: &[u8]) -> Result<Option<Instant>> {
        let mut since = None;
        loop {
            match self.socket.read(scratch) {
                Ok(0) => bail!("the server closed it"),
                Ok(count) => {
                    self.heard.extend_from_slice(scratch.get(..count).unwrap_or_default());
                    while let Some((_, payload, rest)) = frame::split(&self.heard) {
                        let length = self.heard.len() - rest.len();
                        if payload != frame::PING {
                            ensure!(self.heard.get(..length) == Some(answered), "another answer came than is due");
                            since = Some(self.since.take().context("nobody had called")?);
                        }
                        self.heard.drain(..length);
                    }
                    if count < scratch.len() {
                        return Ok(since);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(since),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
