//! Client that makes sequential `Echo` calls.
//!
//! It blocks in reads, like a real client, and compares each answer with the expected one.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use trunkline_generator::done::Done;
use trunkline_generator::frame_protocol::Hub;
use trunkline_generator::{connect, frame};

use super::echo;

/// Client of the hub `/bench` with one pending call.
#[derive(Debug)]
pub struct SingleCaller {
    socket: TcpStream,
    /// Bytes after the last answer.
    early: Vec<u8>,
    sequence: u64,
    payload_bytes: usize,
}

impl SingleCaller {
    /// Connects to the server at this address. Each call contains a text of `payload_bytes` bytes.
    pub fn connect(address: SocketAddr, payload_bytes: usize) -> Result<Self> {
        let (socket, early) = connect::to_hub(address, "/bench", "")?;
        Ok(Self { socket, early, sequence: 0, payload_bytes })
    }

    /// Makes sequential calls with a pause after each answer. Returns their round trips.
    pub fn call_for(&mut self, length: Duration, pause: Duration) -> Result<Done> {
        let (started, mut done) = (Instant::now(), Done::default());
        while started.elapsed() < length {
            self.sequence += 1;
            let call = frame::from_client(&echo::call(0, self.sequence, self.payload_bytes));
            let due = echo::answer(0, self.sequence, self.payload_bytes);
            let asked = Instant::now();
            self.socket.write_all(&call)?;
            self.receive(&due)?;
            done.note(1, asked.elapsed());
            if !pause.is_zero() {
                sleep(pause);
            }
        }
        Ok(done)
    }

    fn receive(&mut self, due: &[u8]) -> Result<()> {
        let early = std::mem::take(&mut self.early);
        let (answer, rest) = connect::next_message(&mut self.socket, early, Hub::Json)?;
        self.early = rest;
        ensure!(answer == due, "{:?} came where an answer was due", String::from_utf8_lossy(&answer));
        Ok(())
    }
}
