//! A thread's sockets. It never waits in epoll: it naps and polls.
//!
//! On loopback the server wakes a receiver that waits, at some µs of its own CPU time, and the slower the server the
//! more often it catches the receiver waiting: 20 to 50 times per broadcast to 1 000 by the proxy, 4 to 15 times by the
//! floor. A real client is on another machine. Of one and the same proxy, single rounds on a quiet machine gave an
//! excess from -0.4 to 1.4 µs per delivery without naps, -0.1 to 0.4 with them.

use std::fmt;
use std::io::{self, Read};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Interest, Poll, Token};

/// Short beside a broadcast, so that server and generator work side by side for most of it.
pub const NAP: Duration = Duration::from_micros(100);

/// Events taken by one poll.
const EVENTS: usize = 4096;
/// Bytes taken by one read.
const READ_BYTES: usize = 64 * 1024;

/// A message that has not come by then is lost.
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
    /// Makes the clients of these numbers, one after the other, each of a socket that `connect` has opened.
    ///
    /// # Errors
    /// When one can't connect.
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

    /// A crowd of clients whose sockets are registered later.
    ///
    /// # Errors
    /// When the system has no epoll instance left.
    pub fn of(clients: Vec<C>) -> Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(EVENTS), clients, scratch: vec![0; READ_BYTES] })
    }

    /// Polls a socket as the client of this number from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn register(&self, number: usize, socket: TcpStream) -> Result<mio::net::TcpStream> {
        socket.set_nonblocking(true)?;
        let mut socket = mio::net::TcpStream::from_std(socket);
        self.poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
        Ok(socket)
    }

    /// Hands on each client that has something to read, and the buffer to read into. Does not wait.
    ///
    /// # Errors
    /// The first of `each`.
    pub fn each_ready(&mut self, each: impl FnMut(&mut C, &mut [u8]) -> Result<()>) -> Result<()> {
        self.each_ready_within(Duration::ZERO, each)
    }

    /// Works like [`each_ready`](Self::each_ready), but waits up to this long for the first.
    ///
    /// # Errors
    /// The first of `each`.
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

    /// The numbers of the clients that have something to read. Does not wait.
    ///
    /// # Errors
    /// When the system can't poll.
    pub fn ready(&mut self) -> Result<Vec<usize>> {
        self.poll(Duration::ZERO)?;
        Ok(self.events.iter().map(|event| event.token().0).collect())
    }

    /// The client of a number, and the buffer to read into.
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

/// Naps and takes until nothing is missing; `take` returns how many came.
///
/// # Errors
/// When nothing is left to wait for, but more is missing.
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

/// Reads what a nonblocking socket has, and hands each part on.
///
/// # Errors
/// When the socket is closed or fails, or the first of `each`.
pub fn read_ready(socket: &mut impl Read, scratch: &mut [u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    loop {
        match socket.read(scratch) {
            Ok(0) => bail!("the server closed it"),
            Ok(count) => {
                each(scratch.get(..count).unwrap_or_default())?;
                // Less than there was room for: there is no more, and the next bytes are a new event.
                if count < scratch.len() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
