//! Clients that get broadcasts, one burst after the other.
//!
//! Each frame is compared byte by byte with the one that is due: the run stops at the first that is not.

use std::io::{ErrorKind, Read, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use trunkline_tests::bench::done::Done;
use trunkline_tests::bench::frame;
use trunkline_tests::bench::look::{EVENTS, NAP, READ_BYTES, demand_progress, look_at};

use super::connect::{to_floor, to_proxy};
use super::left_out::LeftOut;
use super::{At, CrowdArguments, Play};
use crate::broadcast::To;
use crate::server::Server;
use crate::{broadcast, writer};

/// One client.
struct Client {
    socket: TcpStream,
    /// Bytes of a frame that is not whole yet.
    partial: Vec<u8>,
    /// The number of the last broadcast that came.
    last: u64,
    is_binary: bool,
}

/// The broadcasts that are under way: the number of the first, and the messages.
struct Burst {
    first: u64,
    messages: Vec<Vec<u8>>,
    /// The same for clients of MessagePack.
    binary_messages: Vec<Vec<u8>>,
}

/// All clients.
pub(super) struct Receivers {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    /// Asks for broadcasts: the floor's first connection, or another handle of the first client's socket.
    asking: std::net::TcpStream,
    scratch: Vec<u8>,
    burst: Burst,
    left_out: LeftOut,
    settings: Settings,
}

/// What is asked for, and how.
#[derive(Clone, Copy)]
struct Settings {
    at: At,
    payload: usize,
    burst: u64,
    rate: Option<u32>,
    to: To,
}

impl Receivers {
    pub(super) fn gather(server: &Server, arguments: &CrowdArguments) -> Result<Self> {
        let CrowdArguments { at, payload, burst, rate, to, speech, .. } = *arguments;
        let poll = Poll::new()?;
        let mut asking = match at {
            At::Floor => Some(to_floor(server.address())?),
            At::Proxy => None,
        };
        let mut clients = Vec::with_capacity(arguments.clients);
        for (number, address) in (0..arguments.clients).zip(server.addresses()) {
            let is_binary = at == At::Proxy && speech.is_binary(number);
            let connected = match at {
                At::Floor => to_floor(address).map(|socket| (socket, Vec::new())),
                At::Proxy => to_proxy(address, is_binary, to.group(number)),
            };
            let (socket, partial) = connected.with_context(|| format!("client {number}"))?;
            if asking.is_none() {
                asking = Some(socket.try_clone()?);
            }
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
            clients.push(Client { socket, partial, last: 0, is_binary });
        }
        let asking = asking.context("a crowd of nobody")?;
        let (events, scratch) = (Events::with_capacity(EVENTS), vec![0; READ_BYTES]);
        let settings = Settings { at, payload, burst, rate, to };
        let burst = Burst { first: 1, messages: Vec::new(), binary_messages: Vec::new() };
        let left_out = match (at, to) {
            (At::Proxy, To::Except) => LeftOut::gather(server.address())?,
            _ => LeftOut::default(),
        };
        Ok(Self { poll, events, clients, asking, scratch, burst, left_out, settings })
    }

    /// One burst, from the asking until everyone has all of it.
    fn broadcast(&mut self, done: &mut Done) -> Result<()> {
        let Settings { at, payload, burst, to, .. } = self.settings;
        let first = self.burst.first + self.burst.messages.len() as u64;
        let numbers = first..first + burst;
        let asking: Vec<u8> = match at {
            At::Floor => {
                let frames = numbers.clone().map(|number| frame::from_server(&broadcast::message(number, payload)));
                writer::command(&frames.collect::<Vec<_>>().concat())
            }
            At::Proxy => {
                let call = |number| to.call(number, payload, self.clients.len(), self.left_out.ids());
                numbers.clone().flat_map(|number| frame::from_client(&call(number))).collect()
            }
        };
        let messages = numbers.clone().map(|number| broadcast::message(number, payload)).collect();
        let binary_messages = numbers.map(|number| broadcast::binary_message(number, payload)).collect();
        self.burst = Burst { first, messages, binary_messages };
        self.asking.write_all(&asking).context("the server takes no more")?;
        let started = Instant::now();
        let mut missing = self.clients.len() * self.burst.messages.len();
        while missing > 0 {
            demand_progress(started, missing)?;
            sleep(NAP);
            let came = self.take()?;
            missing = missing.checked_sub(came).context("more frames than clients")?;
            done.note(came as u64, started.elapsed());
        }
        Ok(())
    }

    /// Reads what is there; returns how many messages came.
    fn take(&mut self) -> Result<usize> {
        look_at(&mut self.poll, &mut self.events)?;
        let mut came = 0;
        for event in &self.events {
            let number = event.token().0;
            let Some(client) = self.clients.get_mut(number) else { continue };
            let taken = client.read(&mut self.scratch, &self.burst);
            came += taken.with_context(|| format!("client {number}"))?;
        }
        Ok(came)
    }
}

impl Play for Receivers {
    /// Bursts one after the other.
    fn run_for(&mut self, length: Duration) -> Result<Done> {
        let (started, mut done) = (Instant::now(), Done::default());
        let interval = self.settings.rate.map(|rate| Duration::from_secs(1) / rate);
        while started.elapsed() < length {
            let due = Instant::now() + interval.unwrap_or_default();
            self.broadcast(&mut done)?;
            sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(done)
    }

    fn look(&mut self) -> Result<()> {
        ensure!(self.take()? == 0, "a broadcast came twice");
        self.left_out.look()
    }
}

impl Client {
    /// Reads what is there; returns how many messages were in it.
    fn read(&mut self, scratch: &mut [u8], burst: &Burst) -> Result<usize> {
        let mut came = 0;
        loop {
            match self.socket.read(scratch) {
                Ok(0) => bail!("the server closed it"),
                Ok(count) => {
                    came += self.check(scratch.get(..count).unwrap_or_default(), burst)?;
                    // Less than there was room for: there is no more, and the next bytes are a new event.
                    if count < scratch.len() {
                        return Ok(came);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(came),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn check(&mut self, bytes: &[u8], burst: &Burst) -> Result<usize> {
        if self.partial.is_empty() {
            let (came, rest) = check_frames(bytes, &mut self.last, burst, self.is_binary)?;
            self.partial.extend_from_slice(rest);
            return Ok(came);
        }
        self.partial.extend_from_slice(bytes);
        let (came, rest) = check_frames(&self.partial, &mut self.last, burst, self.is_binary)?;
        let done = self.partial.len() - rest.len();
        self.partial.drain(..done);
        Ok(came)
    }
}

/// Looks at all whole frames; returns how many are messages that are due, and what is left over.
fn check_frames<'a>(mut bytes: &'a [u8], last: &mut u64, burst: &Burst, is_binary: bool) -> Result<(usize, &'a [u8])> {
    let (kind, ping, messages) = match is_binary {
        false => (frame::TEXT, frame::PING, &burst.messages),
        true => (frame::BINARY, frame::BINARY_PING, &burst.binary_messages),
    };
    let mut came = 0;
    while let Some((first, payload, rest)) = frame::split(bytes) {
        bytes = rest;
        if (first, payload) == (kind, ping) {
            continue;
        }
        let due = (*last + 1).checked_sub(burst.first).and_then(|place| messages.get(usize::try_from(place).ok()?));
        if Some(payload) != due.map(Vec::as_slice) || first != kind {
            let (is, due) = (String::from_utf8_lossy(payload), due.map(|due| String::from_utf8_lossy(due)));
            bail!("frame {first:#x} {is:?} came where {due:?} was due");
        }
        *last += 1;
        came += 1;
    }
    Ok((came, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(first: u64) -> Burst {
        let messages = vec![b"one".to_vec(), b"two".to_vec()];
        Burst { first, binary_messages: messages.clone(), messages }
    }

    fn outcome(frames: &[&[u8]]) -> Result<usize> {
        let bytes: Vec<u8> = frames.iter().flat_map(|payload| frame::from_server(payload)).collect();
        let mut last = 4;
        Ok(check_frames(&bytes, &mut last, &burst(5), false)?.0)
    }

    #[test]
    fn only_the_frame_that_is_due_counts_and_only_once() {
        assert_eq!(outcome(&[frame::PING, b"one", frame::PING, b"two"]).unwrap(), 2);
        assert!(outcome(&[b"one", b"one"]).is_err());
        assert!(outcome(&[b"two"]).is_err());
        assert!(outcome(&[b"one", b"two", b"three"]).is_err());
    }

    #[test]
    fn a_lost_broadcast_is_noticed_at_the_next() {
        let mut last = 3;
        assert!(check_frames(&frame::from_server(b"one"), &mut last, &burst(5), false).is_err());
    }

    #[test]
    fn what_is_not_whole_waits() {
        let (bytes, mut last) = (frame::from_server(b"one"), 4);
        let (came, rest) = check_frames(&bytes[..4], &mut last, &burst(5), false).unwrap();
        assert_eq!((came, rest.len()), (0, 4));
    }
}
