//! Sockets of one thread, polled with naps instead of waiting in epoll.
//!
//! On loopback the server has to wake a waiting receiver, which costs several µs of its own CPU time. A slower server
//! finds the receiver waiting more often: 20 to 50 times per broadcast to 1 000 for the proxy, 4 to 15 times for the
//! floor. Real clients are on other machines. For the same proxy, single rounds on a quiet machine measured an excess
//! from -0.4 to 1.4 µs per delivery without naps, and -0.1 to 0.4 with them.

use std::fmt;
use std::io::{self, Read};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Interest, Poll, Token};

/// Short compared with a broadcast, so that server and generator mostly work in parallel.
pub const NAP: Duration = Duration::from_micros(100);

const EVENTS: usize = 4096;
const READ_BYTES: usize = 64 * 1024;

/// Time after which a missing message counts as lost.
pub(crate) const PROGRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// All clients of one kind, polled together and read into one buffer.
pub struct Crowd<C> {
    poll: Poll,
    events: Events,
    /// The clients, by number.
    pub clients: Vec<C>,
    scratch: Vec<u8>,
}

impl<C> fmt::Debug for Crowd<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crowd").field("clients", &self.clients.len()).finish_non_exhaustive()
    }
}

impl<C> Crowd<C> {
    /// Creates the clients sequentially, each from a socket opened by `connect`.
    pub fn gather<T>(
        count: usize,
        mut connect: impl FnMut(usize) -> Result<(TcpStream, T)>,
        mut client: impl FnMut(mio::net::TcpStream, T) -> C,
    ) -> Result<Self> {
        let mut crowd = Self::of(Vec::with_capacity(count))?;
        for number in 0..count {
            let (socket, more) = connect(number).with_context(|| format!("client {number}"))?;
            let socket = crowd.register(number, socket)?;
            crowd.clients.push(client(socket, more));
        }
        Ok(crowd)
    }

    /// Creates a crowd of clients with unregistered sockets.
    pub fn of(clients: Vec<C>) -> Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(EVENTS), clients, scratch: vec![0; READ_BYTES] })
    }

    /// Registers a socket as the client with this number.
    pub fn register(&self, number: usize, socket: TcpStream) -> Result<mio::net::TcpStream> {
        socket.set_nonblocking(true)?;
        let mut socket = mio::net::TcpStream::from_std(socket);
        self.poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
        Ok(socket)
    }

    /// Passes on each readable client with a read buffer, without waiting.
    ///
    /// # Errors
    /// The first error of `each`.
    pub fn each_ready(&mut self, each: impl FnMut(&mut C, &mut [u8]) -> Result<()>) -> Result<()> {
        self.each_ready_within(Duration::ZERO, each)
    }

    /// Like [`each_ready`](Self::each_ready), but waits up to this long for the first readable client.
    ///
    /// # Errors
    /// The first error of `each`.
    pub fn each_ready_within(
        &mut self,
        wait: Duration,
        mut each: impl FnMut(&mut C, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        self.poll(wait)?;
        for event in &self.events {
            let Token(number) = event.token();
            let Some(client) = self.clients.get_mut(number) else { continue };
            each(client, &mut self.scratch).with_context(|| format!("client {number}"))?;
        }
        Ok(())
    }

    /// Numbers of the readable clients, without waiting.
    pub fn ready(&mut self) -> Result<Vec<usize>> {
        self.poll(Duration::ZERO)?;
        Ok(self.events.iter().map(|event| event.token().0).collect())
    }

    /// Client with this number, and the read buffer.
    pub fn client(&mut self, number: usize) -> Option<(&mut C, &mut [u8])> {
        Some((self.clients.get_mut(number)?, &mut self.scratch))
    }

    fn poll(&mut self, wait: Duration) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            polled => polled.context("epoll"),
        }
    }
}

/// Naps and calls `take` until nothing is missing. `take` returns how many arrived.
pub fn nap_until_none_is_missing(
    since: Instant,
    mut missing: usize,
    mut take: impl FnMut() -> Result<usize>,
) -> Result<()> {
    while missing > 0 {
        ensure!(since.elapsed() <= PROGRESS_TIMEOUT, "{missing} clients wait in vain");
        sleep(NAP);
        missing = missing.checked_sub(take()?).context("more came than was due")?;
    }
    Ok(())
}

/// Reads available data of a nonblocking socket and passes each part on.
pub fn read_ready(socket: &mut impl Read, scratch: &mut [u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    loop {
        match socket.read(scratch) {
            Ok(0) => bail!("the server closed it"),
            Ok(count) => {
                each(scratch.get(..count).unwrap_or_default())?;
                // A partly filled buffer means that no data remains; further bytes cause a new event.
                if count < scratch.len() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
