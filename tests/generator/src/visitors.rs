//! Clients that connect and disconnect as soon as their connection is open, each followed by the next.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::ClientConnection;

use crate::crowd::{Crowd, read_ready};
use crate::done::Done;
use crate::stream::Stream;
use crate::welcome::{Next, Welcome};
use crate::workload::{Repeat, Then, Workload, repeat_for};

/// Connection policy of visitors.
pub trait Arrivals {
    /// Steps after the upgrade request.
    type Welcome: Welcome;

    /// Opens the socket of the next visitor in this slot.
    fn open(&mut self, place: usize) -> Result<TcpStream>;

    /// Starts the TLS session of the next visitor in this slot; `None` without TLS.
    fn tls(&mut self, _place: usize) -> Result<Option<Box<ClientConnection>>> {
        Ok(None)
    }

    /// Checks a visitor with an open connection.
    fn entered(&mut self, _socket: &Stream) -> Result<()> {
        Ok(())
    }

    /// Bytes of the upgrade request.
    fn upgrade(&self) -> &[u8];

    /// Steps after the upgrade request.
    fn welcome(&self) -> Self::Welcome;
}

#[derive(Debug)]
pub(crate) struct Visitor<W> {
    pub(crate) socket: Stream,
    /// Bytes received after the last step.
    pub(crate) heard: Vec<u8>,
    welcome: W,
    pub(crate) since: Instant,
}

/// All visitors, by slot. Slots are empty between two windows.
#[derive(Debug)]
pub struct Visitors<A: Arrivals> {
    arrivals: A,
    crowd: Crowd<Option<Visitor<A::Welcome>>>,
}

impl<A: Arrivals> Visitors<A> {
    /// Creates empty slots for this many concurrent visitors.
    pub fn new(count: usize, arrivals: A) -> Result<Self> {
        Ok(Self { arrivals, crowd: Crowd::of((0..count).map(|_| None).collect())? })
    }

    fn come(&mut self, place: usize) -> Result<()> {
        let visitor = Visitor::come(&mut self.arrivals, place, |socket| self.crowd.register(place, socket))?;
        *self.crowd.clients.get_mut(place).context("a place")? = Some(visitor);
        Ok(())
    }
}

impl<A: Arrivals> Repeat for Visitors<A> {
    fn begin(&mut self) -> Result<usize> {
        let count = self.crowd.clients.len();
        (0..count).try_for_each(|place| self.come(place))?;
        Ok(count)
    }

    fn take(&mut self, done: &mut Done, then: Then) -> Result<usize> {
        let mut left = 0;
        for place in self.crowd.ready()? {
            let Some((slot, scratch)) = self.crowd.client(place) else { continue };
            let Some(visitor) = slot else { continue };
            if !visitor.go_on(scratch)? {
                continue;
            }
            done.note(1, visitor.since.elapsed());
            self.arrivals.entered(&visitor.socket)?;
            *slot = None;
            left += 1;
            if then == Then::Again {
                self.come(place)?;
            }
        }
        Ok(left)
    }
}

impl<A: Arrivals> Workload for Visitors<A> {
    fn run_for(&mut self, length: Duration) -> Result<Done> {
        repeat_for(self, length)
    }

    fn inspect(&mut self) -> Result<()> {
        ensure!(self.crowd.clients.iter().all(Option::is_none), "somebody is still connecting");
        Ok(())
    }
}

impl<W: Welcome> Visitor<W> {
    /// Opens the socket of this slot and sends the upgrade request.
    pub(crate) fn come(
        arrivals: &mut impl Arrivals<Welcome = W>,
        place: usize,
        register: impl FnOnce(TcpStream) -> Result<mio::net::TcpStream>,
    ) -> Result<Self> {
        let since = Instant::now();
        let mut socket = Stream::new(register(arrivals.open(place)?)?, arrivals.tls(place)?);
        socket.write_all(arrivals.upgrade())?;
        Ok(Self { socket, heard: Vec::new(), welcome: arrivals.welcome(), since })
    }

    /// Reads available data and performs the possible steps. Returns whether the connection is open.
    pub(crate) fn go_on(&mut self, scratch: &mut [u8]) -> Result<bool> {
        let Self { socket, heard, welcome, .. } = self;
        read_ready(socket, scratch, |bytes| {
            heard.extend_from_slice(bytes);
            Ok(())
        })?;
        loop {
            match welcome.step(heard)? {
                Next::In => return Ok(true),
                Next::Wait => return Ok(false),
                Next::Say(bytes) => socket.write_all(&bytes).context("the server takes no more")?,
            }
        }
    }
}
