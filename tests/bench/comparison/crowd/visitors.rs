//! Clients that come, are welcomed, and leave; each makes place for the next.

use std::io::{ErrorKind, Read, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use trunkline_tests::bench::done::Done;
use trunkline_tests::bench::look::{EVENTS, NAP, READ_BYTES, demand_progress, look_at};

use super::Play;
use super::client::address;
use super::origin::Origins;
use crate::dialect::{Dialect, Next, Welcome};
use crate::servers::Servers;

/// One who is on the way in.
struct Visitor {
    socket: TcpStream,
    heard: Vec<u8>,
    welcome: Welcome,
    since: Instant,
}

/// All that are on their way.
pub(crate) struct Visitors<'a> {
    poll: Poll,
    events: Events,
    servers: &'a Servers,
    dialect: Dialect,
    upgrade: Vec<u8>,
    origins: Origins,
    visitors: Vec<Option<Visitor>>,
    scratch: Vec<u8>,
}

impl<'a> Visitors<'a> {
    pub(crate) fn new(servers: &'a Servers, dialect: Dialect, count: usize) -> Result<Self> {
        let visitors = (0..count).map(|_| None).collect();
        let (events, scratch) = (Events::with_capacity(EVENTS), vec![0; READ_BYTES]);
        let (poll, upgrade, origins) = (Poll::new()?, dialect.upgrade(), Origins::new());
        Ok(Self { poll, events, servers, dialect, upgrade, origins, visitors, scratch })
    }

    fn come(&mut self, place: usize) -> Result<()> {
        let since = Instant::now();
        let mut socket = self.origins.connect(address(self.servers, place)?)?;
        socket.write_all(&self.upgrade)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        self.poll.registry().register(&mut socket, Token(place), Interest::READABLE)?;
        let visitor = Visitor { socket, heard: Vec::new(), welcome: Welcome::new(self.dialect), since };
        *self.visitors.get_mut(place).context("a place")? = Some(visitor);
        Ok(())
    }

    /// Goes on with all that are answered. Who is in leaves, and another one comes, if `again`; returns how many left.
    fn take(&mut self, done: &mut Done, again: bool) -> Result<usize> {
        look_at(&mut self.poll, &mut self.events)?;
        let places: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        let mut left = 0;
        for place in places {
            let Some(Some(visitor)) = self.visitors.get_mut(place) else { continue };
            if !visitor.go_on(&mut self.scratch)? {
                continue;
            }
            done.note(1, visitor.since.elapsed());
            *self.visitors.get_mut(place).context("a place")? = None;
            left += 1;
            if again {
                self.come(place)?;
            }
        }
        Ok(left)
    }
}

impl Play for Visitors<'_> {
    fn run_for(&mut self, length: Duration) -> Result<Done> {
        let (started, mut done) = (Instant::now(), Done::default());
        for place in 0..self.visitors.len() {
            self.come(place)?;
        }
        while started.elapsed() < length {
            sleep(NAP);
            self.take(&mut done, true)?;
        }
        let (over, mut waiting) = (Instant::now(), self.visitors.len());
        while waiting > 0 {
            demand_progress(over, waiting)?;
            sleep(NAP);
            waiting -= self.take(&mut done, false)?;
        }
        Ok(done)
    }

    fn look(&mut self) -> Result<()> {
        ensure!(self.visitors.iter().all(Option::is_none), "somebody is still on the way in");
        Ok(())
    }
}

impl Visitor {
    /// Reads what is there; whether it is in now.
    fn go_on(&mut self, scratch: &mut [u8]) -> Result<bool> {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => bail!("the server closed it: {:?}", String::from_utf8_lossy(&self.heard)),
                Ok(count) => {
                    self.heard.extend_from_slice(scratch.get(..count).unwrap_or_default());
                    if count < scratch.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        loop {
            match self.welcome.step(&mut self.heard)? {
                Next::In => return Ok(true),
                Next::Wait => return Ok(false),
                Next::Say(bytes) => self.socket.write_all(&bytes).context("the server takes no more")?,
            }
        }
    }
}
