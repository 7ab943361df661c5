//! The floor of calls, connects and idle clients: one thread, one epoll instance, a read and a write for each answer,
//! and nothing else.
//!
//! It does not look at what it is asked: so many bytes are one question, and the answer is always the same.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use socket2::{Domain, Type};
use trunkline_generator::frame;
use trunkline_generator::idlers::{KEEP_ALIVE_SHARES, KEEP_ALIVE_TURN};
use trunkline_generator::speech::PING;
use trunkline_tests::bench::child::{READY, say};

use crate::work::{self, Exchange, Work};
use crate::writer::{EVENTS, READ_BYTES, WriterArguments};

/// The system takes less if it allows no more.
const BACKLOG: i32 = 65_535;

const LISTENER: Token = Token(usize::MAX);
const OVER: Token = Token(usize::MAX - 1);

/// The questions of a connection in turn; the last one comes again and again.
struct Script(Vec<Exchange>);

struct Asker {
    socket: TcpStream,
    /// Bytes of the question that is under way.
    heard: usize,
    /// Index of that question.
    turn: usize,
}

/// Serves until its input ends: whoever has started it is gone then.
pub(crate) fn run(arguments: &WriterArguments) -> Result<()> {
    let script = Script(match arguments.work {
        Work::Connect | Work::Storm => work::connect().into(),
        Work::Idle => vec![work::keep_alive()],
        Work::Broadcast | Work::Echo => vec![work::echo(arguments.payload)],
    });
    let mut keep_alives = (arguments.work == Work::Idle).then(KeepAlives::default);
    let mut poll = Poll::new()?;
    let mut listener = listen(arguments.listen).with_context(|| format!("listen on {}", arguments.listen))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut askers: Slab<Asker> = Slab::new();
    let mut scratch = vec![0; READ_BYTES];
    // Held here, too: a waker that goes takes its event with it.
    let waker = Arc::new(Waker::new(poll.registry(), OVER)?);
    std::thread::spawn({
        let waker = Arc::clone(&waker);
        move || {
            // Whatever ends it, it is over.
            drop(io::copy(&mut io::stdin(), &mut io::sink()));
            waker.wake()
        }
    });
    say(READY);
    let mut events = Events::with_capacity(EVENTS);
    loop {
        let wait = keep_alives.as_mut().map(|keep_alives| keep_alives.send(&mut askers)).transpose()?;
        match poll.poll(&mut events, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            if event.token() == OVER {
                return Ok(());
            }
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut askers)?;
            } else if let Some(asker) = askers.get_mut(event.token().0)
                && asker.serve(&script, &mut scratch).is_err()
            {
                askers.remove(event.token().0);
            }
        }
    }
}

/// Listens with room for a crowd that comes all at once: a client that finds none tries again after a second.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn accept(listener: &TcpListener, poll: &Poll, askers: &mut Slab<Asker>) -> Result<()> {
    loop {
        let mut socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("accept"),
        };
        socket.set_nodelay(true)?;
        let entry = askers.vacant_entry();
        poll.registry().register(&mut socket, Token(entry.key()), Interest::READABLE)?;
        entry.insert(Asker { socket, heard: 0, turn: 0 });
    }
}

/// Turns in which clients get keep-alives.
struct KeepAlives {
    frame: Vec<u8>,
    next: Instant,
    share: u32,
}

impl Default for KeepAlives {
    fn default() -> Self {
        Self { frame: frame::from_server(PING), next: Instant::now(), share: 0 }
    }
}

impl KeepAlives {
    /// Tells those whose turn it is; returns how long it is until the next turn.
    fn send(&mut self, askers: &mut Slab<Asker>) -> io::Result<Duration> {
        let now = Instant::now();
        while self.next <= now {
            for (place, asker) in askers.iter_mut() {
                if u32::try_from(place).unwrap_or(0) % KEEP_ALIVE_SHARES == self.share {
                    asker.socket.write_all(&self.frame)?;
                }
            }
            self.share = (self.share + 1) % KEEP_ALIVE_SHARES;
            self.next += KEEP_ALIVE_TURN;
        }
        Ok(self.next - now)
    }
}

impl Asker {
    /// Answers what is there. An error is the end of the connection.
    fn serve(&mut self, script: &Script, scratch: &mut [u8]) -> io::Result<()> {
        loop {
            let count = match self.socket.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.heard += count;
            while let Some(exchange) = script.0.get(self.turn)
                && self.heard >= exchange.asked.len()
            {
                self.heard -= exchange.asked.len();
                self.turn = (self.turn + 1).min(script.0.len() - 1);
                // An answer is small: a socket that does not take it whole is of nobody who reads.
                if !exchange.answered.is_empty() {
                    self.socket.write_all(&exchange.answered)?;
                }
            }
            // Less than there was room for: there is no more, and one system call is saved.
            if count < scratch.len() {
                return Ok(());
            }
        }
    }
}
