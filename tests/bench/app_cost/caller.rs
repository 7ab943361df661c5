//! Client with pending calls, which compares each answer with the expected one.

use std::io::{self, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use trunkline_generator::client::Client;
use trunkline_generator::crowd::Crowd;
use trunkline_generator::frame;
use trunkline_generator::frame_protocol::Hub;

use trunkline_bench::echo;

const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const FULL_NAP: Duration = Duration::from_micros(50);

const SEPARATOR: u8 = 0x1e;

#[derive(Debug)]
pub(crate) struct Caller {
    client: Client<Hub>,
    calls: Calls,
}

#[derive(Debug)]
struct Calls {
    client: usize,
    payload: usize,
    asked: u64,
    answered: u64,
}

impl Caller {
    /// Connects `count` clients. `connect` opens one and returns bytes that were read early.
    pub(crate) fn gather(
        count: usize,
        payload: usize,
        mut connect: impl FnMut() -> Result<(TcpStream, Vec<u8>)>,
    ) -> Result<Crowd<Self>> {
        let connect = |_| connect().map(|(socket, early)| (socket, Hub::Json, early));
        let mut number = 0..;
        Client::gather(count, connect, |client| Self { client, calls: Calls::new(number.next().unwrap_or(0), payload) })
    }

    pub(crate) fn ask(&mut self, calls: u64) -> Result<()> {
        let mut bytes = Vec::new();
        for _ in 0..calls {
            bytes.extend_from_slice(&frame::from_client(&self.calls.next()));
        }
        let started = Instant::now();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match self.client.socket().write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ensure!(started.elapsed() < WRITE_TIMEOUT, "the server takes no more");
                    sleep(FULL_NAP);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(crate) fn read(&mut self, scratch: &mut [u8]) -> Result<u64> {
        let Self { client, calls } = self;
        let before = calls.answered;
        client.read(scratch, |message| calls.check(message))?;
        Ok(calls.answered - before)
    }
}

impl Calls {
    fn new(client: usize, payload: usize) -> Self {
        Self { client, payload, asked: 0, answered: 0 }
    }

    fn next(&mut self) -> Vec<u8> {
        self.asked += 1;
        echo::call(self.client, self.asked, self.payload)
    }

    /// Checks that a frame contains the expected answers; there may be several.
    fn check(&mut self, message: &[u8]) -> Result<()> {
        message.split_inclusive(|byte| *byte == SEPARATOR).try_for_each(|answer| self.check_one(answer))
    }

    fn check_one(&mut self, answer: &[u8]) -> Result<()> {
        ensure!(self.answered < self.asked, "{:?} came, and no call was left", String::from_utf8_lossy(answer));
        let due = echo::answer(self.client, self.answered + 1, self.payload);
        if answer != due {
            let (is, due) = (String::from_utf8_lossy(answer), String::from_utf8_lossy(&due));
            bail!("{is:?} came where {due:?} was due");
        }
        self.answered += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks these messages with two calls pending.
    fn outcome(messages: &[&[u8]]) -> Result<u64> {
        let mut calls = Calls::new(7, 24);
        drop((calls.next(), calls.next()));
        messages.iter().try_for_each(|message| calls.check(message))?;
        Ok(calls.answered)
    }

    #[test]
    fn each_call_is_answered_once_with_its_own_argument() {
        let due = [echo::answer(7, 1, 24), echo::answer(7, 2, 24)];
        assert_eq!(outcome(&[&due[0], &due[1]]).unwrap(), 2);
        assert_eq!(outcome(&[&due.concat()]).unwrap(), 2, "two records in a frame");
        for wrong in [&[&due[0], &due[0]], &[&due[1], &due[0]], &[&due[0], &echo::answer(8, 2, 24)]] {
            assert!(outcome(&[wrong[0], wrong[1]]).is_err());
        }
        assert!(outcome(&[&due.concat(), &echo::answer(7, 3, 24)]).is_err(), "nobody asked for a third");
    }
}
