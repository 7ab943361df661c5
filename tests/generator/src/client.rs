//! Nonblocking client: a socket, its speech, and the frame that is incomplete.

use std::io::Write;
use std::net::TcpStream;

use anyhow::{Context, Result};

use crate::crowd::{Crowd, read_ready};
use crate::frame::{self, Frames};
use crate::speech::{Heard, Speech};

/// A connection that is open.
#[derive(Debug)]
pub struct Client<S> {
    socket: mio::net::TcpStream,
    speech: S,
    frames: Frames,
}

impl<S: Speech> Client<S> {
    /// Takes over a nonblocking socket; `early` came behind its welcome.
    #[must_use]
    pub fn new(socket: mio::net::TcpStream, speech: S, early: Vec<u8>) -> Self {
        Self { socket, speech, frames: Frames::new(early) }
    }

    /// Makes a crowd of clients; `connect` opens the connection of each number, and returns the bytes that came early.
    ///
    /// # Errors
    /// When one can't connect.
    pub fn gather<C>(
        count: usize,
        mut connect: impl FnMut(usize) -> Result<(TcpStream, S, Vec<u8>)>,
        mut client: impl FnMut(Self) -> C,
    ) -> Result<Crowd<C>> {
        let connect = |number| connect(number).map(|(socket, speech, early)| (socket, (speech, early)));
        Crowd::gather(count, connect, |socket, (speech, early)| client(Self::new(socket, speech, early)))
    }

    /// The speech of this client.
    pub fn speech(&self) -> S {
        self.speech
    }

    /// The socket of this client.
    pub fn socket(&mut self) -> &mut mio::net::TcpStream {
        &mut self.socket
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the socket does not take all of them: messages are small, so the server has stopped reading.
    pub fn say(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.write_all(bytes).context("the server takes no more")
    }

    /// Reads what is there, and hands each message on. Returns the number of keep-alives.
    ///
    /// # Errors
    /// When the connection is closed or fails, or the first of `each`.
    pub fn read(&mut self, scratch: &mut [u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let Self { socket, speech, frames } = self;
        let (mut keep_alives, mut question) = (0, None);
        read_ready(socket, scratch, |bytes| {
            frames.take(bytes, |frame| match speech.hear(frame)? {
                Heard::Message(message) => each(message),
                Heard::KeepAlive => {
                    keep_alives += 1;
                    Ok(())
                }
                Heard::Question(answer) => {
                    question = Some(answer);
                    Ok(())
                }
            })
        })?;
        if let Some(answer) = question {
            self.say(&frame::from_client(answer))?;
        }
        Ok(keep_alives)
    }
}
