//! Clients of one proxy: a process that connects them, keeps them alive, and counts messages.
//!
//! ```text
//!  "7\n" ──► "ready\n", the broadcast of this number is awaited ──► {"once":15400,"twice":0,"other":0}
//! ```

use std::io::{self, BufRead};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, TryRecvError};
use std::time::{Duration, Instant};
use std::{array, thread};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use trunkline_bench::child::READY;
use trunkline_generator::client::Client;
use trunkline_generator::connect;
use trunkline_generator::crowd::Crowd;
use trunkline_generator::frame_protocol::Hub;
use trunkline_generator::idlers::{KEEP_ALIVE_TURN, KeepAlives};
use trunkline_generator::receivers::numbered_text;
use trunkline_tests::harness::command::print_line;

use crate::machine;

const PATIENCE: Duration = Duration::from_secs(60);
/// Wait for duplicates after all clients have received it. The next broadcast is a fence; the last one has none.
pub(crate) const SETTLE: Duration = Duration::from_millis(500);

/// Number of connects between checks of free memory.
const LOOK_EVERY: u32 = 500;
/// First client port per source address.
const FIRST_PORT: u16 = 11_000;
const CONNECTING_THREADS: usize = 32;
const MEBIBYTE: u64 = 1_048_576;
const PAYLOAD_BYTES: usize = 128;

/// Arguments of the clients.
#[derive(Debug, clap::Args)]
pub(crate) struct HolderArguments {
    /// Address of the proxy
    #[arg(long)]
    proxy: SocketAddr,
    /// Number of clients to connect
    #[arg(long)]
    clients: u32,
    /// Source address, with its own ports
    #[arg(long)]
    source: IpAddr,
    /// Memory that has to stay free, in MiB
    #[arg(long)]
    keep_free: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Came {
    pub(crate) once: u64,
    pub(crate) twice: u64,
    /// Frames other than the broadcast or a ping.
    pub(crate) other: u64,
}

impl Came {
    pub(crate) fn add(&mut self, other: Self) {
        self.once += other.once;
        self.twice += other.twice;
        self.other += other.other;
    }
}

/// Call that requests the broadcast with this number.
pub(crate) fn call(number: u64) -> Vec<u8> {
    invocation("Broadcast", number)
}

fn invocation(target: &str, number: u64) -> Vec<u8> {
    let text = numbered_text(number, PAYLOAD_BYTES);
    format!("{{\"type\":1,\"target\":\"{target}\",\"arguments\":[\"{text}\"]}}\x1e").into_bytes()
}

struct Held {
    client: Client<Hub>,
    /// Number of the last received broadcast.
    last: u64,
}

struct Holder {
    crowd: Crowd<Held>,
    keep_alives: KeepAlives,
}

/// Connects, and answers each input line. Ends with its input.
pub(crate) fn run(arguments: &HolderArguments) -> Result<()> {
    let mut holder = match Holder::connect(arguments) {
        Ok(holder) => holder,
        Err(error) => {
            // Sent instead of the ready line, so that the parent process can report the error.
            print_line(&format!("{error:#}"));
            return Ok(());
        }
    };
    let (sender, questions) = mpsc::channel();
    thread::spawn(move || {
        // Ends with any error or end of input, which drops the sender.
        io::stdin().lock().lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    print_line(READY);
    loop {
        match questions.try_recv() {
            Ok(question) => {
                let number = question.parse()?;
                print_line(READY);
                let came = holder.await_broadcast(number)?;
                print_line(&serde_json::to_string(&came)?);
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
        let numbers = AtomicU32::new(0);
        let mut connected = Vec::new();
        thread::scope(|scope| -> Result<()> {
            let threads: [_; CONNECTING_THREADS] =
                array::from_fn(|_| scope.spawn(|| connect_some(arguments, &numbers)));
            for thread in threads {
                connected.extend(thread.join().map_err(|_| anyhow!("a thread that connects has panicked"))??);
            }
            Ok(())
        })?;
        let (count, mut connected) = (connected.len(), connected.into_iter());
        let next =
            |_| connected.next().map(|(socket, early)| (socket, Hub::Json, early)).context("a client is missing");
        let crowd = Client::gather(count, next, |client| Held { client, last: 0 })?;
        Ok(Self { crowd, keep_alives: KeepAlives::default() })
    }

    fn await_broadcast(&mut self, number: u64) -> Result<Came> {
        let (started, mut came) = (Instant::now(), Came::default());
        let mut settled_at = None;
        while settled_at.is_none_or(|at| Instant::now() < at) && started.elapsed() < PATIENCE {
            came.add(self.turn(number)?);
            if came.once == self.crowd.clients.len() as u64 && settled_at.is_none() {
                settled_at = Some(Instant::now() + SETTLE);
            }
        }
        Ok(came)
    }

    /// Sends keep-alives for a group of clients, and counts messages received meanwhile.
    fn turn(&mut self, awaited: u64) -> Result<Came> {
        self.keep_alives.send(self.crowd.clients.iter_mut().map(|held| &mut held.client))?;
        let (end, message) = (Instant::now() + KEEP_ALIVE_TURN, invocation("Message", awaited));
        let mut came = Came::default();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(came);
            }
            self.crowd.each_ready_within(left, |held, scratch| held.read(scratch, awaited, &message, &mut came))?;
        }
    }
}

impl Held {
    fn read(&mut self, scratch: &mut [u8], awaited: u64, message: &[u8], came: &mut Came) -> Result<()> {
        let Self { client, last } = self;
        client.read(scratch, |payload| {
            match payload == message {
                true if *last != awaited => {
                    *last = awaited;
                    came.once += 1;
                }
                true => came.twice += 1,
                false => came.other += 1,
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// Connects clients sequentially until all threads together have enough.
fn connect_some(arguments: &HolderArguments, numbers: &AtomicU32) -> Result<Vec<(TcpStream, Vec<u8>)>> {
    let HolderArguments { proxy, clients, source, keep_free } = *arguments;
    let mut connected = Vec::new();
    loop {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        if number >= clients {
            return Ok(connected);
        }
        if number.is_multiple_of(LOOK_EVERY) {
            let free = machine::free_bytes()? / MEBIBYTE;
            ensure!(free >= keep_free, "only {free} MiB of memory are free, and --keep-free wants {keep_free}");
        }
        // The system's search for free ports took most of the machine's time.
        let from = SocketAddr::new(source, u16::try_from(number)?.saturating_add(FIRST_PORT));
        let client = open(proxy, from).and_then(|socket| connect::over(socket, proxy, "/bench", "", Hub::Json));
        connected.push(client.with_context(|| format!("from {from}"))?);
    }
}

fn open(proxy: SocketAddr, from: SocketAddr) -> Result<TcpStream> {
    let socket = connect::open_from(from, proxy);
    let socket = socket.with_context(|| format!("connecting to {proxy}"))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}
