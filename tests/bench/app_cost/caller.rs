//! One client: it has calls on the way, and compares each answer with the one that is due.

use std::io::{self, Read, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use mio::net::TcpStream;
use trunkline_tests::bench::frame;

use crate::echo;

/// A server that takes nothing by then is stuck.
const PATIENCE: Duration = Duration::from_secs(10);
const FULL_NAP: Duration = Duration::from_micros(50);

const SEPARATOR: u8 = 0x1e;

/// One client.
pub(crate) struct Caller {
    number: usize,
    payload: usize,
    socket: TcpStream,
    /// Bytes of a frame that is not whole yet.
    partial: Vec<u8>,
    asked: u64,
    answered: u64,
}

impl Caller {
    /// Of a socket that does not block; `partial` came behind the handshake's answer.
    pub(crate) fn new(number: usize, payload: usize, socket: TcpStream, partial: Vec<u8>) -> Self {
        Self { number, payload, socket, partial, asked: 0, answered: 0 }
    }

    /// Sends so many more calls, each in a frame of its own, all in one write.
    pub(crate) fn ask(&mut self, calls: u64) -> Result<()> {
        let mut bytes = Vec::new();
        for _ in 0..calls {
            self.asked += 1;
            bytes.extend_from_slice(&frame::from_client(&echo::call(self.number, self.asked, self.payload)));
        }
        let started = Instant::now();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ensure!(started.elapsed() < PATIENCE, "the server takes no more");
                    sleep(FULL_NAP);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what is there; returns how many calls were answered.
    pub(crate) fn read(&mut self, scratch: &mut [u8]) -> Result<u64> {
        let before = self.answered;
        loop {
            match self.socket.read(scratch) {
                Ok(0) => bail!("the server closed it"),
                Ok(count) => {
                    self.take(scratch.get(..count).unwrap_or_default())?;
                    // Less than there was room for: there is no more, and the next bytes are a new event.
                    if count < scratch.len() {
                        return Ok(self.answered - before);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(self.answered - before),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let mut rest = all.as_slice();
        while let Some((first, payload, behind)) = frame::split(rest) {
            ensure!(first == frame::TEXT, "a frame {first:#x} came where text was due");
            payload.split_inclusive(|byte| *byte == SEPARATOR).try_for_each(|record| self.check(record))?;
            rest = behind;
        }
        let done = all.len() - rest.len();
        all.drain(..done);
        self.partial = all;
        Ok(())
    }

    fn check(&mut self, record: &[u8]) -> Result<()> {
        if record == frame::PING {
            return Ok(());
        }
        ensure!(self.answered < self.asked, "{:?} came, and no call was left", String::from_utf8_lossy(record));
        let due = echo::answer(self.number, self.answered + 1, self.payload);
        if record != due {
            let (is, due) = (String::from_utf8_lossy(record), String::from_utf8_lossy(&due));
            bail!("{is:?} came where {due:?} was due");
        }
        self.answered += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A client whose server answers with these frames.
    fn outcome(frames: &[&[u8]]) -> Result<u64> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut caller = Caller::new(7, 24, TcpStream::from_std(socket), Vec::new());
        caller.ask(2).unwrap();
        for bytes in frames.iter().flat_map(|payload| frame::from_server(payload)) {
            caller.take(&[bytes])?;
        }
        Ok(caller.answered)
    }

    #[test]
    fn each_call_is_answered_once_with_its_own_argument() {
        let due = [echo::answer(7, 1, 24), echo::answer(7, 2, 24)];
        assert_eq!(outcome(&[&due[0], frame::PING, &due[1]]).unwrap(), 2);
        assert_eq!(outcome(&[&due.concat()]).unwrap(), 2, "two records in a frame");
        for wrong in [&[&due[0], &due[0]], &[&due[1], &due[0]], &[&due[0], &echo::answer(8, 2, 24)]] {
            assert!(outcome(&[wrong[0], wrong[1]]).is_err());
        }
        assert!(outcome(&[&due.concat(), &echo::answer(7, 3, 24)]).is_err(), "nobody asked for a third");
    }
}
