//! Simultaneous return of 10 000 followers of 100 groups, each with 100 missed messages, to a node with two shards.
//!
//! A client connects, shakes hands, joins its group by a method of the app server, and follows the group. It has
//! returned when it has got all messages in order. Memory is the peak of the node's heap and stacks, sampled from the
//! first connect to one second after the last return. Clients of Centrifugo subscribe with `recover`.

use std::cell::Cell;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trunkline_bench::child::ChildProcess;
use trunkline_bench::peak::Peak;
use trunkline_bench::product::{self, Product, Wanted};
use trunkline_bench::rounds::in_turn;
use trunkline_bench::spread::Spread;
use trunkline_generator::frame_protocol::{FrameProtocol, HANDSHAKE_ANSWER, Heard, Hub};
use trunkline_generator::origin::Origins;
use trunkline_generator::receivers::numbered_text;
use trunkline_generator::residents::Residents;
use trunkline_generator::visitors::Arrivals;
use trunkline_generator::welcome::{Next, Welcome};
use trunkline_generator::{connect, frame, upgrade};
use trunkline_tests::harness::scenario::Fixture;

use crate::deliveries::{HUB, PAYLOAD, RECORDS, call, invocation};
use crate::requester::Requester;
use crate::table::{self, Row};

const CLIENTS: usize = 10_000;
const GROUPS: usize = 100;
const MISSED: u64 = 100;
const MEBIBYTE: f64 = 1_048_576.0;
/// Time for the memory to grow after the last return.
const AFTERWARDS: Duration = Duration::from_secs(1);

const CENTRIFUGO: &str = r#"{"client":{"insecure":true},"http_api":{"insecure":true},"log":{"level":"error"},
    "channel":{"without_namespace":{"history_size":1000,"history_ttl":"1h","force_recovery":true}}}"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Join,
    Follow,
    Subscribe,
    Recover,
}

impl Part {
    const ALL: [Self; 4] = [Self::Join, Self::Follow, Self::Subscribe, Self::Recover];

    fn is_centrifugo(self) -> bool {
        matches!(self, Self::Subscribe | Self::Recover)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Follow => "join and follow",
            Self::Subscribe => "Centrifugo: subscribe",
            Self::Recover => "Centrifugo: subscribe and recover",
        }
    }
}

/// Steps of a client until it has joined and has all messages.
struct Comeback {
    part: Part,
    group: String,
    is_upgraded: bool,
    is_joined: bool,
    /// Number of the next message.
    next: u64,
}

impl Comeback {
    /// First message of the client.
    fn hello(&self) -> Vec<u8> {
        if !self.part.is_centrifugo() {
            return Hub::Json.handshake();
        }
        let (group, recovers) = (&self.group, self.part == Part::Recover);
        let subscribe = format!("{{\"channel\":\"{group}\",\"recover\":{recovers}}}");
        frame::from_client(format!("{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{subscribe}}}").as_bytes())
    }

    fn calls(&self) -> Vec<u8> {
        let mut calls = invocation(1, "Join", &format!("\"{}\"", self.group));
        if self.part == Part::Follow {
            calls += &invocation(4, "Follow", &format!("{{\"group\":\"{}\",\"after\":\"0\"}}", self.group));
        }
        frame::from_client(calls.as_bytes())
    }

    /// Checks the numbers of the messages in a text, and its answers.
    fn take(&mut self, text: &str) -> Result<()> {
        let (joined, before) = match self.part.is_centrifugo() {
            true => ("\"subscribe\":", "\"data\":\""),
            false => ("\"type\":3", "\"arguments\":[\""),
        };
        self.is_joined |= text.contains(joined);
        for message in text.split(before).skip(1) {
            let number = message.split('x').next().and_then(|number| number.parse().ok());
            ensure!(number == Some(self.next), "{message} came where number {} was due", self.next);
            self.next += 1;
        }
        ensure!(!text.contains("\"error\""), "{text} came");
        Ok(())
    }
}

impl Welcome for Comeback {
    fn step(&mut self, heard: &mut Vec<u8>) -> Result<Next> {
        if !self.is_upgraded {
            let Some(end) = upgrade::accepted(heard)? else { return Ok(Next::Wait) };
            heard.drain(..end);
            self.is_upgraded = true;
            return Ok(Next::Say(self.hello()));
        }
        let (length, mut rest, mut next) = (heard.len(), heard.as_slice(), Next::Wait);
        while let Some(frame) = frame::split(rest)? {
            rest = frame.rest;
            match Hub::Json.receive(&frame)? {
                Heard::Message(HANDSHAKE_ANSWER) => next = Next::Say(self.calls()),
                Heard::Message(messages) => self.take(std::str::from_utf8(messages)?)?,
                _ => {}
            }
        }
        let taken = length - rest.len();
        heard.drain(..taken);
        let is_complete = self.is_joined && (matches!(self.part, Part::Join | Part::Subscribe) || self.next > MISSED);
        Ok(if is_complete { Next::In } else { next })
    }
}

struct Returning {
    address: SocketAddr,
    part: Part,
    upgrade: Vec<u8>,
    origins: Origins,
    /// Number of clients so far.
    clients: Cell<usize>,
}

impl Arrivals for Returning {
    type Welcome = Comeback;

    fn open(&mut self, _place: usize) -> Result<TcpStream> {
        self.origins.connect(self.address)
    }

    fn upgrade(&self) -> &[u8] {
        &self.upgrade
    }

    fn welcome(&self) -> Comeback {
        let number = self.clients.replace(self.clients.get() + 1);
        let group = format!("kept-{}", number % GROUPS);
        Comeback { part: self.part, group, is_upgraded: false, is_joined: false, next: 1 }
    }
}

/// Server with the missed messages of all groups.
enum Server {
    Node(Product),
    Centrifugo(ChildProcess, SocketAddr),
}

/// Names of all groups in JSON.
fn groups() -> String {
    (0..GROUPS).map(|group| format!("\"kept-{group}\"")).collect::<Vec<_>>().join(",")
}

impl Server {
    fn node() -> Result<Self> {
        let product = Product::start_with(Wanted { shards: 2, app_more: RECORDS, ..Wanted::default() })?;
        let (mut socket, mut early) = connect::to_hub(product.address(), HUB, "")?;
        for number in 1..=MISSED {
            let arguments = format!("[{}],\"{}\"", groups(), numbered_text(number, PAYLOAD));
            early = call(&mut socket, early, 1, "SendToGroups", &arguments)?;
        }
        Ok(Self::Node(product))
    }

    fn centrifugo(program: &Path, fixture: &Fixture) -> Result<Self> {
        let (address, file) = (product::address()?, fixture.folder().join("centrifugo.json"));
        fs::write(&file, CENTRIFUGO)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).args(["--http_server.address", &address.ip().to_string()]);
        command.args(["--http_server.port", &address.port().to_string()]);
        let mut process = ChildProcess::start("Centrifugo", &mut command)?;
        process.wait_until(|| TcpStream::connect(address).is_ok())?;
        let mut requester = Requester::connect(address, "")?;
        for number in 1..=MISSED {
            let text = numbered_text(number, PAYLOAD);
            requester.post("/api/broadcast", &format!("{{\"channels\":[{}],\"data\":\"{text}\"}}", groups()))?;
        }
        Ok(Self::Centrifugo(process, address))
    }

    /// Seconds until all clients have everything, and the peak memory in MiB.
    fn receive_all(&self, part: Part) -> Result<(f64, f64)> {
        let (address, pid, target) = match self {
            Self::Node(product) => (product.address(), product.proxy_pid(), HUB),
            Self::Centrifugo(process, address) => (*address, process.id(), "/connection/websocket"),
        };
        let upgrade = upgrade::request(&address.to_string(), target, "").into_bytes();
        let returning = Returning { address, part, upgrade, origins: Origins::default(), clients: Cell::new(0) };
        let mut crowd = Residents::new(CLIENTS, CLIENTS, Hub::Json, returning)?;
        let (peak, started) = (Peak::watch(vec![pid]), Instant::now());
        crowd.fill(CLIENTS)?;
        let seconds = started.elapsed().as_secs_f64();
        // sleep: the peak may come after the last return
        sleep(AFTERWARDS);
        Ok((seconds, peak.end()? as f64 / MEBIBYTE))
    }
}

pub(crate) fn measure(rounds: u32, centrifugo: Option<&Path>) -> Result<()> {
    let fixture = Fixture::new()?;
    let mut seconds = Part::ALL.map(|part| Row::new(part.name()));
    let mut mebibytes = Part::ALL.map(|part| Row::new(part.name()));
    for round in 1..=rounds {
        for part in in_turn(Part::ALL, round) {
            let server = match centrifugo.filter(|program| part.is_centrifugo() && program.is_file()) {
                Some(program) => Server::centrifugo(program, &fixture)?,
                None if part.is_centrifugo() => continue,
                None => Server::node()?,
            };
            let (time, memory) = server.receive_all(part).with_context(|| part.name())?;
            seconds.get_mut(part as usize).context("a row")?.figures.push(time);
            mebibytes.get_mut(part as usize).context("a row")?.figures.push(memory);
        }
    }
    fs::remove_dir_all(fixture.folder())?;
    let more = |row, base| row - base;
    table::print("seconds until all have everything", &seconds, "minus join", more)?;
    table::print("peak memory of the server, MiB", &mebibytes, "minus join", more)?;
    let ([_, time, ..], [base, memory, ..]) = (&seconds, &mebibytes);
    table::judge("all have everything within 10 s", Spread::of(time.figures.iter().copied())?, |it| it <= 10.0);
    table::judge("followers need at most 64 MiB more", memory.against(base, more)?, |it| it <= 64.0);
    Ok(())
}
