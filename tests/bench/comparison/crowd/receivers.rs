//! Clients that get what one of them publishes, one message after the other.
//!
//! Each message is compared byte by byte with the one that is due: the run stops at the first that is not.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Poll};
use trunkline_tests::bench::connect;
use trunkline_tests::bench::done::Done;
use trunkline_tests::bench::look::{EVENTS, NAP, READ_BYTES, demand_progress, look_at};

use super::Play;
use super::client::{Client, address};
use crate::dialect::Dialect;
use crate::servers::Servers;

/// All clients, and whoever publishes.
pub(crate) struct Receivers {
    poll: Poll,
    events: Events,
    clients: Vec<Receiver>,
    dialect: Dialect,
    publisher: Publisher,
    payload: usize,
    /// The message that is under way, or was last.
    due: Vec<u8>,
    number: u64,
    scratch: Vec<u8>,
}

struct Receiver {
    client: Client,
    /// The number of the last message that came.
    last: u64,
}

/// Whoever publishes.
enum Publisher {
    /// The first of the clients.
    First,
    /// A connection of its own, which hears how each request ended.
    Apart(TcpStream),
}

impl Receivers {
    pub(crate) fn gather(servers: &Servers, dialect: Dialect, count: usize, payload: usize) -> Result<Self> {
        let poll = Poll::new()?;
        let clients = Client::gather(servers, dialect, count, &poll)?;
        let publisher = if dialect.publishes_apart() {
            let socket = connect::open(address(servers, 0)?)?;
            socket.set_nonblocking(true)?;
            Publisher::Apart(socket)
        } else {
            Publisher::First
        };
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            clients: clients.into_iter().map(|client| Receiver { client, last: 0 }).collect(),
            dialect,
            publisher,
            payload,
            due: Vec::new(),
            number: 0,
            scratch: vec![0; READ_BYTES],
        })
    }

    /// One message, from the asking until everyone has it.
    fn publish(&mut self, done: &mut Done) -> Result<()> {
        self.number += 1;
        let text = text(self.number, self.payload);
        self.due = self.dialect.published(&text);
        let asking = self.dialect.publish(&text);
        let started = Instant::now();
        match &mut self.publisher {
            Publisher::First => self.clients.first_mut().context("a crowd of nobody")?.client.say(&asking)?,
            Publisher::Apart(socket) => socket.write_all(&asking).context("the server takes no more")?,
        }
        let mut missing = self.clients.len();
        while missing > 0 {
            demand_progress(started, missing)?;
            sleep(NAP);
            let came = self.take()?;
            missing = missing.checked_sub(came).context("more messages than clients")?;
            done.note(came as u64, started.elapsed());
        }
        self.publisher.hear(&mut self.scratch)
    }

    /// Reads what is there; returns how many messages came.
    fn take(&mut self) -> Result<usize> {
        look_at(&mut self.poll, &mut self.events)?;
        let mut came = 0;
        for event in &self.events {
            let number = event.token().0;
            let Some(Receiver { client, last }) = self.clients.get_mut(number) else { continue };
            let taken = client.read(&mut self.scratch, |message| {
                check(message, last, self.number, &self.due)?;
                came += 1;
                Ok(())
            });
            taken.with_context(|| format!("client {number}"))?;
        }
        Ok(came)
    }
}

impl Play for Receivers {
    /// Messages one after the other.
    fn run_for(&mut self, length: Duration) -> Result<Done> {
        let (started, mut done) = (Instant::now(), Done::default());
        while started.elapsed() < length {
            self.publish(&mut done)?;
        }
        Ok(done)
    }

    fn look(&mut self) -> Result<()> {
        ensure!(self.take()? == 0, "a message came twice");
        self.publisher.hear(&mut self.scratch)
    }
}

impl Publisher {
    /// Reads how requests ended, if that is told: what was refused is missed elsewhere.
    fn hear(&mut self, scratch: &mut [u8]) -> Result<()> {
        let Self::Apart(socket) = self else { return Ok(()) };
        match socket.read(scratch) {
            Ok(0) => bail!("the server closed the publisher's connection"),
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// The text of this number.
fn text(number: u64, payload: usize) -> String {
    format!("{number:x<payload$}")
}

/// Demands that a message is the one that is due, and that it comes for the first time.
fn check(message: &[u8], last: &mut u64, number: u64, due: &[u8]) -> Result<()> {
    if message != due || *last + 1 != number {
        let [message, due] = [message, due].map(String::from_utf8_lossy);
        bail!("{message:?} came after number {last} where {due:?} was due");
    }
    *last = number;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_message_that_is_due_counts_and_only_once() {
        let mut last = 4;
        assert!(check(b"other", &mut last, 5, b"five").is_err());
        assert!(check(b"five", &mut last, 5, b"five").is_ok());
        assert!(check(b"five", &mut last, 5, b"five").is_err(), "twice");
        assert!(check(b"seven", &mut last, 7, b"seven").is_err(), "one was lost");
    }

    #[test]
    fn a_text_has_the_length_that_was_asked_for_and_tells_its_number() {
        assert_eq!(text(7, 16), "7xxxxxxxxxxxxxxx");
        assert_eq!(text(u64::MAX >> 12, 128).len(), 128);
    }
}
