//! Clients that receive bursts of broadcasts.
//!
//! Each message is compared byte by byte with the expected one. The run stops at the first difference.

use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::client::{Client, Opened};
use crate::crowd::{Crowd, nap_until_none_is_missing};
use crate::done::Done;
use crate::frame_protocol::FrameProtocol;
use crate::workload::Workload;

/// Broadcasts that are requested together.
#[derive(Debug, Default)]
pub struct Burst {
    /// Bytes of the request.
    pub asking: Vec<u8>,
    /// Expected messages in order.
    pub messages: Vec<Vec<u8>>,
    /// Expected messages for clients with a binary protocol.
    pub binary_messages: Vec<Vec<u8>>,
}

/// Source of broadcasts, with its policy.
pub trait Publisher {
    /// Creates the burst that starts with this message number.
    fn burst(&mut self, first: u64) -> Burst;

    /// Requests a burst. Returns the start time for its latencies.
    fn ask(&mut self, asking: &[u8]) -> Result<Instant>;

    /// Reads the server's responses about a received burst.
    fn receive(&mut self) -> Result<()> {
        Ok(())
    }

    /// Checks that excluded clients received nothing.
    fn inspect(&mut self) -> Result<()> {
        self.receive()
    }

    /// Minimum time between two bursts.
    fn interval(&self) -> Duration {
        Duration::ZERO
    }
}

/// All clients and their publisher.
#[derive(Debug)]
pub struct Receivers<S, P> {
    crowd: Crowd<Receiver<S>>,
    publisher: P,
    /// Number of the first message in the current or last burst.
    first: u64,
    burst: Burst,
}

#[derive(Debug)]
struct Receiver<S> {
    client: Client<S>,
    /// Number of the last received message.
    last: u64,
}

impl<S: FrameProtocol, P: Publisher> Receivers<S, P> {
    /// Connects the clients, see [`Client::gather`], then creates `publisher`.
    pub fn gather<T: Into<Opened>>(
        count: usize,
        connect: impl FnMut(usize) -> Result<(TcpStream, S, T)>,
        publisher: impl FnOnce() -> Result<P>,
    ) -> Result<Self> {
        let crowd = Client::gather(count, connect, |client| Receiver { client, last: 0 })?;
        Ok(Self { crowd, publisher: publisher()?, first: 1, burst: Burst::default() })
    }

    /// Requests one burst and waits until every client has received it completely.
    fn publish(&mut self, done: &mut Done) -> Result<()> {
        self.first += self.burst.messages.len() as u64;
        self.burst = self.publisher.burst(self.first);
        let started = self.publisher.ask(&self.burst.asking)?;
        let missing = self.crowd.clients.len() * self.burst.messages.len();
        nap_until_none_is_missing(started, missing, || {
            let came = take(&mut self.crowd, self.first, &self.burst)?;
            done.note(came as u64, started.elapsed());
            Ok(came)
        })?;
        self.publisher.receive()
    }
}

/// Reads available data and returns the number of messages.
fn take<S: FrameProtocol>(crowd: &mut Crowd<Receiver<S>>, first: u64, burst: &Burst) -> Result<usize> {
    let mut came = 0;
    crowd.each_ready(|Receiver { client, last }, scratch| {
        let messages = if client.frame_protocol().is_binary() { &burst.binary_messages } else { &burst.messages };
        client.read(scratch, |message| {
            check(message, last, first, messages)?;
            came += 1;
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(came)
}

impl<S: FrameProtocol, P: Publisher> Workload for Receivers<S, P> {
    /// Sends bursts in sequence.
    fn run_for(&mut self, length: Duration) -> Result<Done> {
        let (started, mut done) = (Instant::now(), Done::default());
        while started.elapsed() < length {
            let due = Instant::now() + self.publisher.interval();
            self.publish(&mut done)?;
            sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(done)
    }

    fn inspect(&mut self) -> Result<()> {
        ensure!(take(&mut self.crowd, self.first, &self.burst)? == 0, "a message came twice");
        self.publisher.inspect()
    }
}

/// Text of this length that starts with a number.
#[must_use]
pub fn numbered_text(number: u64, length: usize) -> String {
    let mut text = number.to_string();
    text.extend(std::iter::repeat_n('x', length.saturating_sub(text.len())));
    text
}

/// Checks that a message is the expected one for a client.
fn check(message: &[u8], last: &mut u64, first: u64, messages: &[Vec<u8>]) -> Result<()> {
    let due = (*last + 1).checked_sub(first).and_then(|place| messages.get(usize::try_from(place).ok()?));
    if Some(message) != due.map(Vec::as_slice) {
        let (is, due) = (String::from_utf8_lossy(message), due.map(|due| String::from_utf8_lossy(due)));
        bail!("{is:?} came after number {last} where {due:?} was due");
    }
    *last += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks messages of a client that has received 4, with 5 and 6 in flight.
    fn outcome(messages: &[&[u8]]) -> Result<u64> {
        let (due, mut last) = ([b"five".to_vec(), b"six".to_vec()], 4);
        messages.iter().try_for_each(|message| check(message, &mut last, 5, &due))?;
        Ok(last)
    }

    #[test]
    fn only_the_message_that_is_due_counts_and_only_once() {
        assert_eq!(outcome(&[b"five", b"six"]).unwrap(), 6);
        assert!(outcome(&[b"five", b"five"]).is_err());
        assert!(outcome(&[b"six"]).is_err());
        assert!(outcome(&[b"five", b"six", b"seven"]).is_err());
    }

    #[test]
    fn a_lost_broadcast_is_noticed_at_the_next() {
        assert!(check(b"five", &mut 3, 5, &[b"five".to_vec()]).is_err());
    }

    #[test]
    fn a_text_has_the_length_that_was_asked_for_and_begins_with_its_number() {
        assert_eq!(numbered_text(7, 16), "7xxxxxxxxxxxxxxx");
        for length in [16, 128, 16_384, 1_048_576] {
            assert_eq!(numbered_text(u64::MAX >> 12, length).len(), length);
        }
    }
}
