//! Clients that come, are welcomed, and leave; each makes place for the next.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use trunkline_tests::bench::connect;
use trunkline_tests::bench::done::Done;
use trunkline_tests::bench::look::{EVENTS, NAP, READ_BYTES, demand_progress, look_at};

use super::{CrowdArguments, Play};
use crate::server::Server;
use crate::work::{self, Exchange};

/// One who is on the way in.
struct Visitor {
    socket: TcpStream,
    heard: Vec<u8>,
    is_upgraded: bool,
    since: Instant,
}

/// All that are on their way.
pub(super) struct Visitors {
    poll: Poll,
    events: Events,
    address: SocketAddr,
    upgrade: Exchange,
    handshake: Exchange,
    visitors: Vec<Option<Visitor>>,
    scratch: Vec<u8>,
}

impl Visitors {
    pub(super) fn new(server: &Server, arguments: &CrowdArguments) -> Result<Self> {
        let [upgrade, handshake] = work::connect();
        let visitors = (0..arguments.clients).map(|_| None).collect();
        let (events, scratch) = (Events::with_capacity(EVENTS), vec![0; READ_BYTES]);
        Ok(Self { poll: Poll::new()?, events, address: server.address(), upgrade, handshake, visitors, scratch })
    }

    fn come(&mut self, place: usize) -> Result<()> {
        let since = Instant::now();
        let mut socket = connect::open(self.address)?;
        socket.write_all(&self.upgrade.asked)?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        self.poll.registry().register(&mut socket, Token(place), Interest::READABLE)?;
        let visitor = Visitor { socket, heard: Vec::new(), is_upgraded: false, since };
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
            if !visitor.go_on(&mut self.scratch, &self.handshake)? {
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

impl Play for Visitors {
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
    /// Reads what is there; whether it is welcome now.
    fn go_on(&mut self, scratch: &mut [u8], handshake: &Exchange) -> Result<bool> {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => bail!("the server closed it: {:?}", String::from_utf8_lossy(&self.heard)),
                Ok(count) => self.heard.extend_from_slice(scratch.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        if !self.is_upgraded
            && let Some(end) = connect::head_end(&self.heard)
        {
            ensure!(self.heard.starts_with(b"HTTP/1.1 101 "), "{:?}", String::from_utf8_lossy(&self.heard));
            self.heard.drain(..end);
            self.is_upgraded = true;
            self.socket.write_all(&handshake.asked).context("the handshake")?;
        }
        Ok(self.is_upgraded && self.heard == handshake.answered)
    }
}
