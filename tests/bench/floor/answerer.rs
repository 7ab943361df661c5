//! Floor of calls, connects and idle clients: one thread and one epoll instance, with one read and one write per
//! answer.
//!
//! It ignores the content of requests: a fixed number of bytes is a request, and the answer is constant.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use socket2::{Domain, Type};
use trunkline_bench::child::READY;
use trunkline_generator::frame;
use trunkline_generator::frame_protocol::PING;
use trunkline_generator::idlers::{KEEP_ALIVE_SHARES, KEEP_ALIVE_TURN};
use trunkline_tests::harness::command::print_line;

use crate::work::{self, Exchange, Work};
use crate::writer::{EVENTS, READ_BYTES, WriterArguments};

/// The system reduces this to its limit.
const BACKLOG: i32 = 65_535;

const LISTENER: Token = Token(usize::MAX);
const OVER: Token = Token(usize::MAX - 1);

/// Requests of a connection in sequence; the last one repeats.
struct Script(Vec<Exchange>);

struct Requester {
    socket: TcpStream,
    /// Received bytes of the current request.
    heard: usize,
    /// Index of the current request.
    turn: usize,
}

/// Serves until its input ends, when its parent process is gone.
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
    let mut askers: Slab<Requester> = Slab::new();
    let mut scratch = vec![0; READ_BYTES];
    // Also held here: dropping a waker removes its event.
    let waker = Arc::new(Waker::new(poll.registry(), OVER)?);
    std::thread::spawn({
        let waker = Arc::clone(&waker);
        move || {
            // Ends with any error or end of input.
            drop(io::copy(&mut io::stdin(), &mut io::sink()));
            waker.wake()
        }
    });
    print_line(READY);
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

/// Listens with room for many simultaneous connects: a rejected client would retry only after a second.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn accept(listener: &TcpListener, poll: &Poll, askers: &mut Slab<Requester>) -> Result<()> {
    loop {
        let mut socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("accept"),
        };
        socket.set_nodelay(true)?;
        let entry = askers.vacant_entry();
        poll.registry().register(&mut socket, Token(entry.key()), Interest::READABLE)?;
        entry.insert(Requester { socket, heard: 0, turn: 0 });
    }
}

/// Groups of clients for keep-alives.
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
    /// Sends keep-alives to due clients. Returns the time until the next group.
    fn send(&mut self, askers: &mut Slab<Requester>) -> io::Result<Duration> {
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

impl Requester {
    /// Answers available requests. An error ends the connection.
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
                // Answers are small: a socket that does not accept one completely has no reader.
                if !exchange.answered.is_empty() {
                    self.socket.write_all(&exchange.answered)?;
                }
            }
            // A partly filled buffer means that no data remains, which saves a system call.
            if count < scratch.len() {
                return Ok(());
            }
        }
    }
}
