//! Attacks by outsiders, each with a resource described in SECURITY.md.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde::Serialize;
use trunkline_generator::connect;
use trunkline_generator::frame::{self, Opcode};

use super::busy_clients::BusyClients;
use super::busy_links::BusyLinks;

/// Bytes of an unfinished message, below the hub's limit of 32 KiB.
const UNFINISHED_BYTES: usize = 30 * 1024;

/// Bytes of a large header, below the limit of a request head.
const HEADER_BYTES: usize = 16 * 1024;

/// Pairs of a query, the maximum for a hub.
const PAIRS: usize = 256;

/// Pause between two requests of a continuous attack.
const PAUSE: Duration = Duration::from_millis(1);

/// Attack by outsiders, by the exhausted resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Attack {
    UnfinishedMessages,
    LargeHeads,
    /// Requests to a hub with the maximum number of query pairs, a thousand per second.
    Queries,
    StoppedUploads,
    /// Links of another app that send at full speed.
    BusyLinks,
    /// Clients of another app that send at full speed.
    BusyClients,
}

pub(crate) struct RunningAttack {
    sockets: Vec<TcpStream>,
    links: Option<BusyLinks>,
    clients: Option<BusyClients>,
    speaker: Option<(Arc<AtomicBool>, JoinHandle<Result<()>>)>,
}

impl Attack {
    pub(crate) const ALL: [Self; 6] = [
        Self::UnfinishedMessages,
        Self::LargeHeads,
        Self::Queries,
        Self::StoppedUploads,
        Self::BusyLinks,
        Self::BusyClients,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::UnfinishedMessages => "unfinished messages",
            Self::LargeHeads => "large heads",
            Self::Queries => "queries",
            Self::StoppedUploads => "stopped uploads",
            Self::BusyLinks => "busy links",
            Self::BusyClients => "busy clients",
        }
    }

    pub(crate) fn begin(self, proxy: SocketAddr, sockets: u32) -> Result<RunningAttack> {
        let open = |socket: fn(SocketAddr) -> Result<TcpStream>| -> Result<Vec<_>> {
            (0..sockets).map(|_| socket(proxy)).collect()
        };
        let (sockets, speaker) = match self {
            Self::UnfinishedMessages => (open(unfinished_message)?, None),
            Self::LargeHeads => (open(large_head)?, None),
            Self::StoppedUploads => (open(stopped_upload)?, None),
            Self::BusyLinks | Self::BusyClients => (Vec::new(), None),
            Self::Queries => {
                let is_over = Arc::new(AtomicBool::new(false));
                let (socket, told) = (connect::open(proxy)?, is_over.clone());
                (Vec::new(), Some((is_over, thread::spawn(move || query(socket, &told)))))
            }
        };
        let links = (self == Self::BusyLinks).then(|| BusyLinks::begin(proxy)).transpose()?;
        let clients = (self == Self::BusyClients).then(|| BusyClients::begin(proxy)).transpose()?;
        Ok(RunningAttack { sockets, links, clients, speaker })
    }
}

impl RunningAttack {
    /// Ends the attack. Fails if the proxy did not react as expected.
    pub(crate) fn end(self) -> Result<()> {
        drop(self.sockets);
        self.links.map_or(Ok(()), BusyLinks::end)?;
        self.clients.map_or(Ok(()), BusyClients::end)?;
        let Some((is_over, speaker)) = self.speaker else { return Ok(()) };
        is_over.store(true, Ordering::Relaxed);
        speaker.join().map_err(|_| anyhow!("the attack has panicked"))?
    }
}

fn unfinished_message(proxy: SocketAddr) -> Result<TcpStream> {
    let (mut socket, _) = connect::to_hub(proxy, "/bench", "")?;
    let begun = format!("{{\"type\":1,\"target\":\"Echo\",\"arguments\":[\"{}", "a".repeat(UNFINISHED_BYTES));
    let mut message = Vec::new();
    frame::put(Opcode::Text, begun.as_bytes(), &mut message);
    socket.write_all(&message)?;
    Ok(socket)
}

fn large_head(proxy: SocketAddr) -> Result<TcpStream> {
    // A different header for each client, because equal headers are stored once.
    let number = connect::open(proxy)?.local_addr()?.port();
    let (socket, _) = connect::to_hub(proxy, "/bench", &format!("X-Large: {number}{}\r\n", "a".repeat(HEADER_BYTES)))?;
    Ok(socket)
}

fn stopped_upload(proxy: SocketAddr) -> Result<TcpStream> {
    let mut socket = connect::open(proxy)?;
    socket.write_all(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegun")?;
    Ok(socket)
}

/// Sends requests with a long query in a loop, over one connection.
fn query(mut socket: TcpStream, is_over: &AtomicBool) -> Result<()> {
    let request =
        format!("POST /bench?{}id=x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "a=1&".repeat(PAIRS - 1));
    let mut answer = [0; 4096];
    while !is_over.load(Ordering::Relaxed) {
        socket.write_all(request.as_bytes())?;
        if socket.read(&mut answer)? == 0 {
            return Err(anyhow!("the proxy has closed the connection of the attack"));
        }
        thread::sleep(PAUSE); // sleep: the pace of the attack
    }
    Ok(())
}
