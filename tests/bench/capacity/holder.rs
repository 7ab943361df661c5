//! The clients of one proxy: a process that connects them, keeps them alive, and counts what comes.
//!
//! ```text
//!  "7\n" ──► "ready\n", the broadcast of this number is awaited ──► {"once":15400,"twice":0,"other":0}
//! ```

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{self, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use trunkline_tests::bench::look::{EVENTS, READ_BYTES};
use trunkline_tests::bench::process::{READY, say};
use trunkline_tests::bench::{connect, frame};

use crate::machine;

/// A share of the clients says that it is there at each of these; all have said so after 15 s.
const TURN: Duration = Duration::from_millis(100);
const TURNS: usize = 150;

/// What has not come by then is lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// When all have it, what comes twice has come by then.
pub(crate) const SETTLE: Duration = Duration::from_millis(500);

/// How often it looks for memory that is left.
const LOOK_EVERY: u32 = 500;
const MEBIBYTE: u64 = 1_048_576;
const PAYLOAD_BYTES: usize = 128;

/// What it needs to know.
#[derive(Debug, clap::Args)]
pub(crate) struct HolderArguments {
    /// Where to connect
    #[arg(long)]
    proxy: SocketAddr,
    /// How many
    #[arg(long)]
    clients: u32,
    /// From which address: it has ports of its own
    #[arg(long)]
    source: IpAddr,
    /// How much memory is to stay free, in MiB
    #[arg(long)]
    keep_free: u64,
}

/// What came of a broadcast.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Came {
    /// Clients that have got it.
    pub(crate) once: u64,
    /// How often it came again.
    pub(crate) twice: u64,
    /// Frames that are neither it nor a ping.
    pub(crate) other: u64,
}

impl Came {
    /// Adds what came elsewhere.
    pub(crate) fn add(&mut self, other: Self) {
        self.once += other.once;
        self.twice += other.twice;
        self.other += other.other;
    }
}

/// The call that asks for the broadcast of this number.
pub(crate) fn call(number: u64) -> Vec<u8> {
    invocation("Broadcast", number)
}

fn invocation(target: &str, number: u64) -> Vec<u8> {
    format!("{{\"type\":1,\"target\":\"{target}\",\"arguments\":[\"{number:x<PAYLOAD_BYTES$}\"]}}\x1e").into_bytes()
}

struct Client {
    socket: TcpStream,
    /// The last broadcast that came.
    last: u64,
    /// Bytes of a frame that is not whole yet.
    partial: Vec<u8>,
}

struct Holder {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    keep_alive: Vec<u8>,
    scratch: Vec<u8>,
    turn: usize,
}

/// Connects, and answers for each line of input; ends with it.
pub(crate) fn run(arguments: &HolderArguments) -> Result<()> {
    let mut holder = Holder::connect(arguments)?;
    let (sender, questions) = mpsc::channel();
    std::thread::spawn(move || {
        // Whatever ends it, it is over: the sender goes, too.
        io::stdin().lock().lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    say(READY);
    loop {
        match questions.try_recv() {
            Ok(question) => {
                let number = question.parse()?;
                say(READY);
                let came = holder.await_broadcast(number)?;
                say(&serde_json::to_string(&came)?);
            }
            Err(TryRecvError::Empty) => {
                ensure!(holder.turn(0)? == Came::default(), "something came that was not asked for");
            }
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

impl Holder {
    fn connect(arguments: &HolderArguments) -> Result<Self> {
        let HolderArguments { proxy, clients: count, source, keep_free } = *arguments;
        let poll = Poll::new()?;
        let mut clients = Vec::new();
        for number in 0..count {
            if number % LOOK_EVERY == 0 {
                let free = machine::free_bytes()? / MEBIBYTE;
                ensure!(free >= keep_free, "only {free} MiB of memory are free, and --keep-free wants {keep_free}");
            }
            let connected = open(proxy, source).and_then(|socket| connect::over(socket, proxy, "/bench", ""));
            let (socket, partial) = connected.with_context(|| format!("client {number} from {source}"))?;
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            poll.registry().register(&mut socket, Token(clients.len()), Interest::READABLE)?;
            clients.push(Client { socket, last: 0, partial });
        }
        let (events, scratch) = (Events::with_capacity(EVENTS), vec![0; READ_BYTES]);
        Ok(Self { poll, events, clients, keep_alive: frame::from_client(frame::PING), scratch, turn: 0 })
    }

    fn await_broadcast(&mut self, number: u64) -> Result<Came> {
        let (started, mut came) = (Instant::now(), Came::default());
        let mut settled_at = None;
        while settled_at.is_none_or(|at| Instant::now() < at) && started.elapsed() < PATIENCE {
            came.add(self.turn(number)?);
            if came.once == self.clients.len() as u64 && settled_at.is_none() {
                settled_at = Some(Instant::now() + SETTLE);
            }
        }
        Ok(came)
    }

    /// A share says that it is there; what has come meanwhile is counted.
    fn turn(&mut self, awaited: u64) -> Result<Came> {
        for client in self.clients.iter_mut().skip(self.turn).step_by(TURNS) {
            client.socket.write_all(&self.keep_alive).context("the proxy takes no more")?;
        }
        self.turn = (self.turn + 1) % TURNS;
        let (end, message, mut came) = (Instant::now() + TURN, invocation("Message", awaited), Came::default());
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(came);
            }
            match self.poll.poll(&mut self.events, Some(left)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled.context("epoll")?,
            }
            for event in &self.events {
                let Some(client) = self.clients.get_mut(event.token().0) else { continue };
                client.read(&mut self.scratch, awaited, &message, &mut came)?;
            }
        }
    }
}

impl Client {
    fn read(&mut self, scratch: &mut [u8], awaited: u64, message: &[u8], came: &mut Came) -> Result<()> {
        let count = match self.socket.read(scratch) {
            Ok(0) => bail!("the proxy closed a client"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("a client"),
        };
        self.partial.extend_from_slice(scratch.get(..count).unwrap_or_default());
        let bytes = std::mem::take(&mut self.partial);
        let mut rest = bytes.as_slice();
        while let Some((_, payload, behind)) = frame::split(rest) {
            rest = behind;
            match payload {
                frame::PING => {}
                payload if payload == message && self.last != awaited => {
                    self.last = awaited;
                    came.once += 1;
                }
                payload if payload == message => came.twice += 1,
                _ => came.other += 1,
            }
        }
        self.partial = rest.to_vec();
        Ok(())
    }
}

/// A socket to the proxy that comes from this address.
fn open(proxy: SocketAddr, source: IpAddr) -> Result<std::net::TcpStream> {
    let socket = Socket::new(Domain::for_address(proxy), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&proxy.into()).with_context(|| format!("connecting to {proxy}"))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}
