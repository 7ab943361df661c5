//! The receiver: a process that starts one server and holds all its clients, asks for broadcasts, counts what comes.
//!
//! ```text
//!  "5000\n" ──► warm up ─► CPU time ─► broadcast, until all have it, for 5 s ─► CPU time ──► {"deliveries":…}
//! ```
//!
//! It stops at the first frame that is not the one that is due.
//!
//! It never waits in epoll, it naps and looks. On loopback the server wakes a receiver that waits, at some µs of its
//! own CPU time, and the slower the server the more often it catches the receiver waiting: 20 to 50 times per broadcast
//! to 1 000 by the proxy, 4 to 15 times by the floor. A real client is on another machine. Of one and the same proxy,
//! single rounds on a quiet machine gave an excess from -0.4 to 1.4 µs per delivery without naps, -0.1 to 0.4 with them.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};
use trunkline_tests::bench::cpu::CpuTime;
use trunkline_tests::bench::memory::Memory;
use trunkline_tests::bench::process::{READY, say};
use trunkline_tests::bench::{connect, frame};

use crate::connect::to_floor;
use crate::server::Server;
use crate::{broadcast, stalled, writer};

/// A broadcast that has not come by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Long enough for caches and buffers to settle, short beside a window.
const WARM_UP: Duration = Duration::from_millis(300);

/// After it the server sleeps, and whatever it sends too much has come.
const SETTLE: Duration = Duration::from_millis(50);

/// Short beside a broadcast, so that server and receiver work side by side for most of it.
const NAP: Duration = Duration::from_micros(100);

const EVENTS: usize = 4096;
const READ_BYTES: usize = 64 * 1024;

/// Which server a crowd is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum At {
    /// The floor.
    Floor,
    /// A proxy before the app server `bench`.
    Proxy,
}

/// What a crowd needs to know.
#[derive(Debug, clap::Args)]
pub(crate) struct CrowdArguments {
    /// Which server it is
    #[arg(long)]
    at: At,
    /// Threads of the proxy that serve clients
    #[arg(long)]
    shards: u16,
    /// Client connections
    #[arg(long)]
    clients: usize,
    /// Bytes of the text that is broadcast
    #[arg(long)]
    payload: usize,
    /// Broadcasts per second at most
    #[arg(long)]
    rate: Option<u32>,
    /// Clients beside the crowd that have stopped reading
    #[arg(long)]
    stalled: u32,
}

/// What came of one window.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Broadcasts, each of which all clients got once.
    pub(crate) broadcasts: u64,
    /// Frames that came: broadcasts times clients.
    pub(crate) deliveries: u64,
    /// CPU time of the server.
    pub(crate) cpu_ns: u64,
    /// CPU time of this receiver.
    pub(crate) receiver_cpu_ns: u64,
    /// CPU time of the whole machine's `ksoftirqd`, which is in neither.
    pub(crate) softirq_cpu_ns: u64,
    /// How long it took.
    pub(crate) wall_ns: u64,
    /// Time from the asking within which 99 of 100 frames had come, as the naps between two looks allow to tell.
    pub(crate) p99_us: u64,
    /// What the server has in memory at the end.
    pub(crate) memory_bytes: u64,
}

/// Starts the server, connects, then measures a window for each line of input, which tells its milliseconds.
///
/// Ends with its input, and the server with it: so nothing is left behind however the benchmark ends.
pub(crate) fn run(arguments: &CrowdArguments) -> Result<()> {
    let server = match arguments.at {
        At::Floor => Server::floor()?,
        At::Proxy => Server::proxy(arguments.shards)?,
    };
    let mut crowd = Crowd::gather(&server, arguments)?;
    // Held to the end.
    let _stalled = (arguments.stalled > 0).then(|| stalled::start(server.address(), arguments.stalled)).transpose()?;
    say(READY);
    for line in io::stdin().lock().lines() {
        let length = Duration::from_millis(line?.parse()?);
        say(&serde_json::to_string(&crowd.measure(length, server.pid(), arguments)?)?);
    }
    Ok(())
}

/// One client.
struct Client {
    socket: TcpStream,
    /// Bytes of a frame that is not whole yet.
    partial: Vec<u8>,
    /// The number of the last broadcast that came.
    last: u64,
}

struct Crowd {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    /// Asks for broadcasts: the floor's first connection, or another handle of the first client's socket.
    asking: std::net::TcpStream,
    scratch: Vec<u8>,
    sequence: u64,
    /// How many frames had come how many µs after the asking, in this window.
    latencies: BTreeMap<u64, u64>,
}

impl Crowd {
    fn gather(server: &Server, arguments: &CrowdArguments) -> Result<Self> {
        let poll = Poll::new()?;
        let mut asking = match arguments.at {
            At::Floor => Some(to_floor(server.address())?),
            At::Proxy => None,
        };
        let mut clients = Vec::with_capacity(arguments.clients);
        for number in 0..arguments.clients {
            let connected = match arguments.at {
                At::Floor => to_floor(server.address()).map(|socket| (socket, Vec::new())),
                At::Proxy => connect::to_hub(server.address(), "/bench", ""),
            };
            let (socket, partial) = connected.with_context(|| format!("client {number}"))?;
            if asking.is_none() {
                asking = Some(socket.try_clone()?);
            }
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
            clients.push(Client { socket, partial, last: 0 });
        }
        let asking = asking.context("a crowd of nobody")?;
        let events = Events::with_capacity(EVENTS);
        Ok(Self {
            poll,
            events,
            clients,
            asking,
            scratch: vec![0; READ_BYTES],
            sequence: 0,
            latencies: BTreeMap::new(),
        })
    }

    fn measure(&mut self, length: Duration, pid: u32, arguments: &CrowdArguments) -> Result<Window> {
        self.broadcast_for(WARM_UP, arguments)?;
        self.settle()?;
        self.latencies.clear();
        let before = (CpuTime::of(pid)?, CpuTime::of(std::process::id())?, CpuTime::of_softirqs()?);
        let started = Instant::now();
        let broadcasts = self.broadcast_for(length, arguments)?;
        let wall_ns = u64::try_from(started.elapsed().as_nanos())?;
        let receiver_cpu = CpuTime::of(std::process::id())?;
        self.settle()?;
        Ok(Window {
            broadcasts,
            deliveries: broadcasts * self.clients.len() as u64,
            cpu_ns: CpuTime::of(pid)?.since(&before.0),
            receiver_cpu_ns: receiver_cpu.since(&before.1),
            softirq_cpu_ns: CpuTime::of_softirqs()?.since(&before.2),
            wall_ns,
            p99_us: percentile(&self.latencies, 99),
            memory_bytes: Memory::of(pid)?.anonymous_bytes,
        })
    }

    /// Broadcasts one after the other; returns how many.
    fn broadcast_for(&mut self, length: Duration, arguments: &CrowdArguments) -> Result<u64> {
        let (started, first) = (Instant::now(), self.sequence);
        let interval = arguments.rate.map(|rate| Duration::from_secs(1) / rate);
        while started.elapsed() < length {
            let due = Instant::now() + interval.unwrap_or_default();
            self.broadcast(arguments)?;
            sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(self.sequence - first)
    }

    /// One broadcast, from the asking until everyone has it.
    fn broadcast(&mut self, arguments: &CrowdArguments) -> Result<()> {
        self.sequence += 1;
        let message = broadcast::message(self.sequence, arguments.payload);
        let asking = match arguments.at {
            At::Floor => writer::command(&frame::from_server(&message)),
            At::Proxy => frame::from_client(&broadcast::call(self.sequence, arguments.payload)),
        };
        self.asking.write_all(&asking).context("the server takes no more")?;
        let started = Instant::now();
        let mut missing = self.clients.len();
        while missing > 0 {
            if started.elapsed() > PATIENCE {
                bail!("{missing} of {} clients wait in vain for broadcast {}", self.clients.len(), self.sequence);
            }
            sleep(NAP);
            let came = self.take(&message)?;
            missing = missing.checked_sub(came).context("more frames than clients")?;
            let after = u64::try_from(started.elapsed().as_micros())?;
            *self.latencies.entry(after).or_default() += came as u64;
        }
        Ok(())
    }

    /// Waits until the server sleeps, and demands that nothing has come but pings.
    fn settle(&mut self) -> Result<()> {
        sleep(SETTLE);
        self.take(&[]).context("after all broadcasts")?;
        Ok(())
    }

    /// Reads what is there; returns how many clients got the message.
    fn take(&mut self, message: &[u8]) -> Result<usize> {
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            polled => polled?,
        }
        let mut came = 0;
        for event in &self.events {
            let number = event.token().0;
            let Some(client) = self.clients.get_mut(number) else { continue };
            let taken = client.read(&mut self.scratch, self.sequence, message);
            came += taken.with_context(|| format!("client {number}"))?;
        }
        Ok(came)
    }
}

/// The value that so many of 100 don't exceed; counts by value.
fn percentile(counts: &BTreeMap<u64, u64>, percent: u64) -> u64 {
    let all: u64 = counts.values().sum();
    let mut seen = 0;
    let found = counts.iter().find(|(_, count)| {
        seen += **count;
        seen * 100 >= all * percent
    });
    found.map_or(0, |(value, _)| *value)
}

impl Client {
    /// Reads what is there; returns how often the message was in it, which is once or never.
    fn read(&mut self, scratch: &mut [u8], sequence: u64, message: &[u8]) -> Result<usize> {
        let mut came = 0;
        loop {
            match self.socket.read(scratch) {
                Ok(0) => bail!("the server closed it"),
                Ok(count) => {
                    came += self.check(scratch.get(..count).unwrap_or_default(), sequence, message)?;
                    // Less than there was room for: there is no more, and the next bytes are a new event.
                    if count < scratch.len() {
                        return Ok(came);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(came),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn check(&mut self, bytes: &[u8], sequence: u64, message: &[u8]) -> Result<usize> {
        if self.partial.is_empty() {
            let (came, rest) = check_frames(bytes, &mut self.last, sequence, message)?;
            self.partial.extend_from_slice(rest);
            return Ok(came);
        }
        self.partial.extend_from_slice(bytes);
        let (came, rest) = check_frames(&self.partial, &mut self.last, sequence, message)?;
        let done = self.partial.len() - rest.len();
        self.partial.drain(..done);
        Ok(came)
    }
}

/// Looks at all whole frames; returns how many are the message, and what is left over.
fn check_frames<'a>(mut bytes: &'a [u8], last: &mut u64, sequence: u64, message: &[u8]) -> Result<(usize, &'a [u8])> {
    let mut came = 0;
    while let Some((first, payload, rest)) = frame::split(bytes) {
        bytes = rest;
        if (first, payload) == (frame::TEXT, frame::PING) {
            continue;
        }
        if (first, payload) != (frame::TEXT, message) {
            let (is, due) = (String::from_utf8_lossy(payload), String::from_utf8_lossy(message));
            bail!("frame {first:#x} {is:?} came where {due:?} was due");
        }
        ensure!(*last + 1 == sequence, "broadcast {sequence} came after {last}: one came twice or is lost");
        *last = sequence;
        came += 1;
    }
    Ok((came, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"due";

    fn outcome(frames: &[&[u8]]) -> Result<usize> {
        let bytes: Vec<u8> = frames.iter().flat_map(|payload| frame::from_server(payload)).collect();
        let mut last = 4;
        Ok(check_frames(&bytes, &mut last, 5, MESSAGE)?.0)
    }

    #[test]
    fn a_percentile_is_the_value_that_so_many_do_not_exceed() {
        let counts = BTreeMap::from([(10, 98), (20, 1), (30, 1)]);
        assert_eq!([50, 98, 99, 100].map(|percent| percentile(&counts, percent)), [10, 10, 20, 30]);
    }

    #[test]
    fn only_the_frame_that_is_due_counts_and_only_once() {
        assert_eq!(outcome(&[frame::PING, MESSAGE, frame::PING]).unwrap(), 1);
        assert!(outcome(&[MESSAGE, MESSAGE]).is_err());
        assert!(outcome(&[b"other"]).is_err());
    }

    #[test]
    fn a_lost_broadcast_is_noticed_at_the_next() {
        let mut last = 3;
        assert!(check_frames(&frame::from_server(MESSAGE), &mut last, 5, MESSAGE).is_err());
    }

    #[test]
    fn what_is_not_whole_waits() {
        let (bytes, mut last) = (frame::from_server(MESSAGE), 4);
        let (came, rest) = check_frames(&bytes[..4], &mut last, 5, MESSAGE).unwrap();
        assert_eq!((came, rest.len()), (0, 4));
    }
}
