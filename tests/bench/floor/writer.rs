//! Floor of broadcasts: one thread, one epoll instance, one write per receiver, and nothing else.
//!
//! The first connection controls it: data received on it, with a length prefix of four bytes, is written unchanged to
//! all others. It ends with that connection. Each connection receives a greeting byte when it is registered.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use trunkline_bench::child::READY;
use trunkline_tests::harness::command::print_line;

use crate::work::Work;

pub(crate) const GREETING: u8 = b'!';

const LISTENER: Token = Token(0);
const COMMANDER: Token = Token(1);
/// Token of the first receiver; others follow.
const FIRST_RECEIVER: usize = 2;

/// Events per system call, as in tokio.
pub(crate) const EVENTS: usize = 1024;
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// Arguments of the floor.
#[derive(Debug, clap::Args)]
pub(crate) struct WriterArguments {
    /// Address to listen on
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Work of its clients
    #[arg(long)]
    pub(crate) work: Work,
    /// Size of the text in bytes
    #[arg(long)]
    pub(crate) payload: usize,
}

struct Receiver {
    socket: TcpStream,
    /// Frames that its socket has not accepted completely, with the number of written bytes; empty unless frames are
    /// large.
    waiting: VecDeque<(Rc<[u8]>, usize)>,
}

struct Writer {
    poll: Poll,
    listener: TcpListener,
    commander: Option<TcpStream>,
    receivers: Vec<Receiver>,
    commands: Vec<u8>,
    scratch: Vec<u8>,
}

/// Runs the floor until the controlling connection ends.
pub(crate) fn run(arguments: &WriterArguments) -> Result<()> {
    let poll = Poll::new()?;
    let mut listener =
        TcpListener::bind(arguments.listen).with_context(|| format!("listen on {}", arguments.listen))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut writer = Writer {
        poll,
        listener,
        commander: None,
        receivers: Vec::new(),
        commands: Vec::new(),
        scratch: vec![0; READ_BYTES],
    };
    print_line(READY);
    let mut events = Events::with_capacity(EVENTS);
    loop {
        match writer.poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                LISTENER => writer.accept()?,
                COMMANDER if !writer.obey()? => return Ok(()),
                COMMANDER => {}
                // Receivers send nothing, and disconnect together with the controlling connection.
                Token(number) => {
                    if let Some(receiver) = writer.receivers.get_mut(number - FIRST_RECEIVER) {
                        receiver.flush()?;
                    }
                }
            }
        }
    }
}

impl Writer {
    fn accept(&mut self) -> Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accept"),
            };
            socket.set_nodelay(true)?;
            let is_commander = self.commander.is_none();
            let token = if is_commander { COMMANDER } else { Token(FIRST_RECEIVER + self.receivers.len()) };
            // Like a server that waits for client messages, and for room in full sockets.
            self.poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
            if socket.write(&[GREETING])? != 1 {
                bail!("a fresh connection takes no byte");
            }
            if is_commander {
                self.commander = Some(socket);
            } else {
                self.receivers.push(Receiver { socket, waiting: VecDeque::new() });
            }
        }
    }

    /// Executes received commands. Returns `false` at the end.
    fn obey(&mut self) -> Result<bool> {
        let Some(commander) = &mut self.commander else { return Ok(true) };
        loop {
            match commander.read(&mut self.scratch) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.commands.extend_from_slice(self.scratch.get(..count).unwrap_or_default());
                    // A partly filled buffer means that no data remains, which saves a system call.
                    if count < self.scratch.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Ok(false),
            }
        }
        let mut commands = self.commands.as_slice();
        while let Some((frame, rest)) = split(commands) {
            let mut shared = None;
            self.receivers.iter_mut().try_for_each(|receiver| receiver.send(frame, &mut shared))?;
            commands = rest;
        }
        let done = self.commands.len() - commands.len();
        self.commands.drain(..done);
        Ok(true)
    }
}

fn split(commands: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = commands.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

impl Receiver {
    /// Writes a frame. The rest is queued in a copy shared by all receivers.
    fn send(&mut self, frame: &[u8], shared: &mut Option<Rc<[u8]>>) -> Result<()> {
        let written = if self.waiting.is_empty() { write_some(&mut self.socket, frame)? } else { 0 };
        if written < frame.len() {
            self.waiting.push_back((Rc::clone(shared.get_or_insert_with(|| frame.into())), written));
        }
        Ok(())
    }

    /// Writes queued frames, as far as the socket accepts.
    fn flush(&mut self) -> Result<()> {
        while let Some((frame, written)) = self.waiting.front_mut() {
            *written += write_some(&mut self.socket, frame.get(*written..).unwrap_or_default())?;
            if *written < frame.len() {
                return Ok(());
            }
            self.waiting.pop_front();
        }
        Ok(())
    }
}

fn write_some(socket: &mut TcpStream, bytes: &[u8]) -> Result<usize> {
    match socket.write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written.context("a receiver takes nothing"),
    }
}

/// Command that writes these bytes to all receivers.
pub(crate) fn command(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), frame].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_command_is_applied() {
        let commands = [command(b"ab"), command(b"c")].concat();
        let (first, rest) = split(&commands).unwrap();
        assert_eq!((first, split(rest)), (b"ab".as_slice(), Some((b"c".as_slice(), [].as_slice()))));
        assert_eq!(split(&commands[..5]), None);
    }
}
