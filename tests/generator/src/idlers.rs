//! Clients that only keep their connections alive.

use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::client::{Client, Opened};
use crate::crowd::Crowd;
use crate::done::Done;
use crate::frame;
use crate::frame_protocol::{FrameProtocol, PING};
use crate::workload::Workload;

/// Keep-alive interval of both ends, spread over groups of clients.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Number of groups of clients.
pub const KEEP_ALIVE_SHARES: u32 = 150;
/// Time between two groups.
pub const KEEP_ALIVE_TURN: Duration = KEEP_ALIVE.checked_div(KEEP_ALIVE_SHARES).unwrap();

/// Sends keep-alives for one group of clients at a time.
#[derive(Debug)]
pub struct KeepAlives {
    frame: Vec<u8>,
    share: usize,
}

impl Default for KeepAlives {
    fn default() -> Self {
        Self { frame: frame::from_client(PING), share: 0 }
    }
}

impl KeepAlives {
    /// Sends keep-alives for the next group.
    pub fn send<'a, S: FrameProtocol + 'a>(&mut self, clients: impl Iterator<Item = &'a mut Client<S>>) -> Result<()> {
        let shares = KEEP_ALIVE_SHARES as usize;
        clients.skip(self.share).step_by(shares).try_for_each(|client| client.send(&self.frame))?;
        self.share = (self.share + 1) % shares;
        Ok(())
    }
}

/// Crowd of idle clients.
#[derive(Debug)]
pub struct Idlers<S> {
    crowd: Crowd<Client<S>>,
    keep_alives: KeepAlives,
}

impl<S: FrameProtocol> Idlers<S> {
    /// Connects the clients; see [`Client::gather`].
    pub fn gather<T: Into<Opened>>(
        count: usize,
        connect: impl FnMut(usize) -> Result<(TcpStream, S, T)>,
    ) -> Result<Self> {
        Ok(Self { crowd: Client::gather(count, connect, |client| client)?, keep_alives: KeepAlives::default() })
    }

    /// Sends keep-alives for a group. Returns the number of received keep-alives.
    fn turn(&mut self) -> Result<u64> {
        self.keep_alives.send(self.crowd.clients.iter_mut())?;
        self.take()
    }

    /// Reads available data and returns the number of keep-alives.
    fn take(&mut self) -> Result<u64> {
        let mut came = 0;
        self.crowd.each_ready(|client, scratch| {
            came += client.read(scratch, |message| bail!("{:?} came unasked", String::from_utf8_lossy(message)))?;
            Ok(())
        })?;
        Ok(came)
    }
}

impl<S: FrameProtocol> Workload for Idlers<S> {
    fn run_for(&mut self, length: Duration) -> Result<Done> {
        let (mut due, end) = (Instant::now(), Instant::now() + length);
        let mut done = Done::default();
        while due < end {
            sleep(due.saturating_duration_since(Instant::now()));
            due += KEEP_ALIVE_TURN;
            done.note(self.turn()?, Duration::ZERO);
        }
        Ok(done)
    }

    fn inspect(&mut self) -> Result<()> {
        self.take().map(drop)
    }

    fn rest(&mut self) -> Result<Duration> {
        self.turn()?;
        Ok(KEEP_ALIVE_TURN)
    }
}
