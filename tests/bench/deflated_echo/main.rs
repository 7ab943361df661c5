//! Compressed echoes per CPU second of a running server: `deflated_echo DIALECT HOST:PORT/PATH PIDS [plain]`.
//!
//! Each client sends a status event, compressed once, and the next one after its answer. Answers are counted and not
//! decompressed, so that the generator is no bottleneck. `tests/bench/deflated` starts the servers.

#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use flate2::{Compress, Compression, FlushCompress};
use trunkline_generator::frame::from_client;
use trunkline_tests::harness::command::print_line;

/// Bit of a compressed message in the first byte of its frame.
const COMPRESSED: u8 = 0x40;

const LEVEL: u32 = 6;

const CLIENTS: usize = 64;
const WARM_UP: Duration = Duration::from_secs(2);
const WINDOW: Duration = Duration::from_secs(5);

/// Answers are longer than pings and greetings.
const ANSWER_MIN_BYTES: usize = 100;

/// Event of 426 bytes, as an app would send it.
const EVENT: &str = r#"{"machineId":"press-0120","site":"Malmö","line":11,"state":"starting","previousState":"stopped","changedAt":"2026-11-22T04:42:23.738Z","temperature":42.13,"pressure":2.523,"unitsProduced":533160,"note":"Planned service at the next change of shift","readings":[{"sensor":"s1","value":115.13,"ok":true},{"sensor":"s2","value":99.66,"ok":true},{"sensor":"s3","value":38.7,"ok":true},{"sensor":"s4","value":80.25,"ok":false}]}"#;

/// Socket of a client, with what was read and not yet used.
struct Peer {
    socket: TcpStream,
    unread: Vec<u8>,
}

impl Peer {
    fn read(&mut self) -> Result<u64> {
        let mut buffer = [0; 8192];
        let length = self.socket.read(&mut buffer)?;
        ensure!(length > 0, "the server has closed");
        self.unread.extend(buffer.get(..length).unwrap_or_default());
        Ok(length as u64)
    }

    /// Reads up to the next frame of at least this size; returns the number of bytes read.
    fn take(&mut self, min_bytes: usize) -> Result<u64> {
        let mut read = 0;
        loop {
            let (head, payload) = match *self.unread.as_slice() {
                [first, ..] if first & 15 == 8 => bail!("closed: {}", String::from_utf8_lossy(&self.unread)),
                [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
                [_, length @ ..126, ..] => (2, usize::from(length)),
                _ => (usize::MAX, 0),
            };
            if self.unread.len() < head.saturating_add(payload) {
                read += self.read()?;
                continue;
            }
            self.unread.drain(..head + payload);
            if payload >= min_bytes {
                return Ok(read);
            }
        }
    }
}

/// Frame of a client, compressed by itself or plain.
fn frame_of(text: &str, is_compressed: bool) -> Result<Vec<u8>> {
    if !is_compressed {
        return Ok(from_client(text.as_bytes()));
    }
    let mut packed = Vec::with_capacity(2 * text.len());
    Compress::new(Compression::new(LEVEL), false).compress_vec(text.as_bytes(), &mut packed, FlushCompress::Sync)?;
    // Messages are sent without the end of a flush (RFC 7692, 7.2.1).
    packed.truncate(packed.len() - 4);
    let mut frame = from_client(&packed);
    if let Some(first) = frame.first_mut() {
        *first |= COMPRESSED;
    }
    Ok(frame)
}

fn connect(address: &str, path: &str, is_compressed: bool) -> Result<Peer> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover";
    let offer = if is_compressed { offer } else { "X-Offer: none" };
    write!(
        socket,
        "GET /{path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n\r\n"
    )?;
    let mut peer = Peer { socket, unread: Vec::new() };
    let end = loop {
        if let Some(end) = peer.unread.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        peer.read()?;
    };
    let head = String::from_utf8(peer.unread.drain(..end).collect())?;
    ensure!(head.contains(" 101 ") && head.contains("permessage-deflate") == is_compressed, "{head}");
    Ok(peer)
}

/// User and system time of these processes, in seconds.
fn cpu_seconds(pids: &str) -> Result<f64> {
    let mut ticks = 0.0;
    for pid in pids.split(',') {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        for field in fields.get(11..13).context("a shorter stat")? {
            ticks += field.parse::<f64>()?;
        }
    }
    Ok(ticks / 100.0)
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (dialect, url, pids, is_compressed) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [dialect, url, pids] => (dialect.to_owned(), url.to_owned(), pids, true),
        [dialect, url, pids, "plain"] => (dialect.to_owned(), url.to_owned(), pids, false),
        _ => bail!("usage: deflated_echo signalr|text|centrifuge HOST:PORT/PATH PID,PID… [plain]"),
    };
    let (greeting, call) = match &*dialect {
        "signalr" => (
            "{\"protocol\":\"json\",\"version\":1}\u{1e}",
            format!("{{\"type\":1,\"invocationId\":\"1\",\"target\":\"Echo\",\"arguments\":[{EVENT}]}}\u{1e}"),
        ),
        "centrifuge" => (r#"{"id":1,"connect":{}}"#, format!(r#"{{"id":2,"rpc":{{"method":"e","data":{EVENT}}}}}"#)),
        _ => ("", format!("e{EVENT}")),
    };
    let totals = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    for _ in 0..CLIENTS {
        let (url, frame, totals) = (url.clone(), frame_of(&call, is_compressed)?, totals.clone());
        thread::spawn(move || -> Result<()> {
            let (address, path) = url.split_once('/').context("no path")?;
            let mut peer = connect(address, path, is_compressed)?;
            if !greeting.is_empty() {
                peer.socket.write_all(&frame_of(greeting, false)?)?;
                peer.take(0)?;
            }
            loop {
                peer.socket.write_all(&frame)?;
                totals.1.fetch_add(peer.take(ANSWER_MIN_BYTES)?, Ordering::Relaxed);
                totals.0.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let now = || {
        Ok::<_, anyhow::Error>((totals.0.load(Ordering::Relaxed), totals.1.load(Ordering::Relaxed), cpu_seconds(pids)?))
    };
    thread::sleep(WARM_UP);
    let begun = now()?;
    thread::sleep(WINDOW);
    let ended = now()?;
    let (echoes, bytes, seconds) = ((ended.0 - begun.0) as f64, (ended.1 - begun.1) as f64, ended.2 - begun.2);
    ensure!(echoes > 0.0, "no echo");
    print_line(&format!("{dialect}: {:.0} echoes per CPU second, {:.0} bytes each", echoes / seconds, bytes / echoes));
    Ok(())
}
