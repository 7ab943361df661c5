//! Entry points of messages: the app server, by a client's call, or a node, by an announcement.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use trunkline_generator::callers::Call;
use trunkline_generator::receivers::{Burst, Publisher, numbered_text};
use trunkline_generator::{connect, frame};
use trunkline_protocol::dial_in::{ClientTicket, sign_client_token};
use trunkline_protocol::key::AccessKey;
use trunkline_tests::harness::fleet::ACCESS_KEY;

/// Path of the hub; its name is the path without the slash.
pub(crate) const HUB: &str = "/bench";
/// Group of all clients, for sends to a group.
pub(crate) const GROUP: &str = "ten";
pub(crate) const ADMIN_TOKEN: &str = "the-admin-token-of-the-benchmark";

/// Validity of a client token in seconds, longer than any run.
const TOKEN_LIFETIME_S: u64 = 24 * 3600;

const ANSWER_MAX_BYTES: usize = 4096;

pub(crate) fn dial_in_target() -> Result<String> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let (key, hub) = (AccessKey::new(ACCESS_KEY)?, HUB.trim_start_matches('/'));
    let audience = format!("http://127.0.0.1/client/?hub={hub}");
    let token = sign_client_token(&key, &audience, &ClientTicket::default(), now_s, now_s + TOKEN_LIFETIME_S);
    Ok(format!("/client/?hub={hub}&access_token={token}"))
}

pub(crate) fn echo(payload: usize) -> Call {
    let text = "x".repeat(payload);
    let asked = format!("{{\"type\":1,\"invocationId\":\"1\",\"target\":\"Echo\",\"arguments\":[\"{text}\"]}}\x1e");
    let answered = format!("{{\"type\":3,\"invocationId\":\"1\",\"result\":\"{text}\"}}\x1e").into_bytes();
    Call { asked: frame::from_client(asked.as_bytes()), answered }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The app server, which sends to each node itself.
    App,
    /// The first node, which relays to the others.
    Node,
}

/// Publisher of numbered messages at the current entry point.
pub(crate) struct EntryPublisher {
    /// Current entry point, set by the rounds.
    pub(crate) entry: Rc<Cell<Entry>>,
    /// Another handle of the first client's socket.
    pub(crate) caller: TcpStream,
    pub(crate) announcer: Announcer,
    pub(crate) is_to_group: bool,
    pub(crate) payload: usize,
    pub(crate) burst: u64,
}

impl EntryPublisher {
    fn call(&self, number: u64) -> Vec<u8> {
        let text = numbered_text(number, self.payload);
        let call = if self.is_to_group {
            format!("{{\"type\":1,\"target\":\"SendToGroup\",\"arguments\":[\"{GROUP}\",\"{text}\"]}}\x1e")
        } else {
            format!("{{\"type\":1,\"target\":\"Broadcast\",\"arguments\":[\"{text}\"]}}\x1e")
        };
        frame::from_client(call.as_bytes())
    }

    fn announcement(&self, number: u64) -> Vec<u8> {
        let text = numbered_text(number, self.payload);
        let group = if self.is_to_group { format!(",\"group\":\"{GROUP}\"") } else { String::new() };
        let hub = HUB.trim_start_matches('/');
        self.announcer
            .request(&format!("{{\"hub\":\"{hub}\",\"target\":\"Message\",\"arguments\":[\"{text}\"]{group}}}"))
    }
}

impl Publisher for EntryPublisher {
    fn burst(&mut self, first: u64) -> Burst {
        let numbers = first..first + self.burst;
        let message = |number| {
            let text = numbered_text(number, self.payload);
            format!("{{\"type\":1,\"target\":\"Message\",\"arguments\":[\"{text}\"]}}\x1e").into_bytes()
        };
        let asking = match self.entry.get() {
            Entry::App => numbers.clone().flat_map(|number| self.call(number)).collect(),
            Entry::Node => numbers.clone().flat_map(|number| self.announcement(number)).collect(),
        };
        Burst { asking, messages: numbers.map(message).collect(), binary_messages: Vec::new() }
    }

    fn ask(&mut self, asking: &[u8]) -> Result<Instant> {
        let to = if self.entry.get() == Entry::App { &mut self.caller } else { &mut self.announcer.socket };
        to.write_all(asking).context("the server takes no more")?;
        Ok(Instant::now())
    }

    fn receive(&mut self) -> Result<()> {
        if self.entry.get() == Entry::Node {
            for _ in 0..self.burst {
                self.announcer.answer()?;
            }
        }
        Ok(())
    }

    fn inspect(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Persistent connection to an admin port, for sequential announcements.
#[derive(Debug)]
pub(crate) struct Announcer {
    socket: TcpStream,
    admin: SocketAddr,
    /// Bytes after the last answer.
    early: Vec<u8>,
}

impl Announcer {
    pub(crate) fn connect(admin: SocketAddr) -> Result<Self> {
        Ok(Self { socket: connect::open(admin)?, admin, early: Vec::new() })
    }

    pub(crate) fn port(&self) -> Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    fn request(&self, body: &str) -> Vec<u8> {
        let (admin, length) = (self.admin, body.len());
        let head = format!(
            "POST /api/announce HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        [head.as_bytes(), body.as_bytes()].concat()
    }

    /// Waits for the answer to an announcement, which must have reached all nodes.
    fn answer(&mut self) -> Result<()> {
        loop {
            let text = String::from_utf8_lossy(&self.early);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                ensure!(head.starts_with("HTTP/1.1 200"), "{text}");
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
                });
                let length = length.with_context(|| format!("no length: {text}"))?;
                if let Some(body) = body.get(..length) {
                    ensure!(body.contains("\"missing\":[]"), "{body}");
                    self.early.drain(..head.len() + 4 + length);
                    return Ok(());
                }
            }
            ensure!(self.early.len() < ANSWER_MAX_BYTES, "the answer has no end");
            let mut scratch = [0; 1024];
            let count = self.socket.read(&mut scratch).context("no whole answer came")?;
            ensure!(count > 0, "the node closed instead of answering");
            self.early.extend_from_slice(scratch.get(..count).unwrap_or_default());
        }
    }
}
