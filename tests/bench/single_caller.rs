//! Client that makes one call of `Echo` after the other.
//!
//! It waits in its read, as a real one does, and compares each answer with the one that is due.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use trunkline_generator::done::Done;
use trunkline_generator::speech::Hub;
use trunkline_generator::{connect, frame};

use super::echo;

/// Client of the hub `/bench` with one call at a time.
#[derive(Debug)]
pub struct SingleCaller {
    socket: TcpStream,
    /// Bytes behind the last answer.
    early: Vec<u8>,
    sequence: u64,
    payload_bytes: usize,
}

impl SingleCaller {
    /// Connects to the server at this address; each call carries a text of so many bytes.
    ///
    /// # Errors
    /// When the server does not accept it.
    pub fn connect(address: SocketAddr, payload_bytes: usize) -> Result<Self> {
        let (socket, early) = connect::to_hub(address, "/bench", "")?;
        Ok(Self { socket, early, sequence: 0, payload_bytes })
    }

    /// Makes one call after the other, with a pause behind each answer. Returns their round trips.
    ///
    /// # Errors
    /// When an answer is wrong or does not come.
    pub fn call_for(&mut self, length: Duration, pause: Duration) -> Result<Done> {
        let (started, mut done) = (Instant::now(), Done::default());
        while started.elapsed() < length {
            self.sequence += 1;
            let call = frame::from_client(&echo::call(0, self.sequence, self.payload_bytes));
            let due = echo::answer(0, self.sequence, self.payload_bytes);
            let asked = Instant::now();
            self.socket.write_all(&call)?;
            self.hear(&due)?;
            done.note(1, asked.elapsed());
            if !pause.is_zero() {
                sleep(pause);
            }
        }
        Ok(done)
    }

    /// Waits for the answer.
    fn hear(&mut self, due: &[u8]) -> Result<()> {
        let early = std::mem::take(&mut self.early);
        let (answer, rest) = connect::next_message(&mut self.socket, early, Hub::Json)?;
        self.early = rest;
        ensure!(answer == due, "{:?} came where an answer was due", String::from_utf8_lossy(&answer));
        Ok(())
    }
}
