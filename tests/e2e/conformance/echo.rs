//! The cases against a real proxy, with an app server that echoes all messages of a raw endpoint.
//!
//! As in the list, two results are open: whether a broken connection still delivers earlier echoes, and whether an echo
//! is faster than the close after its message.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use trunkline_proxy::websocket::{CLOSE_NORMAL, CLOSE_NOT_UTF8, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_LARGE};
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::raw::upgraded_socket;
use trunkline_tests::harness::scenario::{is_full, run_test};
use trunkline_tests::harness::test_servers::{Setting, TestServers};

use super::cases;
use super::conformance_case::{ConformanceCase, Expect};

/// Number of concurrent cases.
const TOGETHER: usize = 8;

/// Size limit of cases in the short version; the large ones only take time.
const SHORT_BYTES: usize = 2 * 1024 * 1024;

/// Cases of sixteen megabytes, which exceed the endpoint's limit of eight megabytes.
const TOO_LARGE: [&str; 2] = ["9.1.6", "9.2.6"];

const CLOSE: u8 = 0x8;
const PONG: u8 = 0xa;

/// Close frame with code 1000 and a mask of zeros.
const FAREWELL: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];

/// Bytes that the server has sent so far.
#[derive(Debug, Default)]
struct EchoSeen {
    data: Vec<u8>,
    pongs: Vec<Vec<u8>>,
    code: Option<u16>,
}

struct Frames {
    socket: OwnedReadHalf,
    bytes: Vec<u8>,
}

impl Frames {
    /// Opcode and payload of the server's next frame; `None` at the end.
    async fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some((opcode, start, end)) = header(&self.bytes).filter(|(_, _, end)| *end <= self.bytes.len()) {
                let payload = self.bytes.get(start..end).unwrap_or_default().to_vec();
                self.bytes.drain(..end);
                return Ok(Some((opcode, payload)));
            }
            // A reset only means that the server closed while the client was sending.
            if self.socket.read_buf(&mut self.bytes).await.unwrap_or(0) == 0 {
                ensure!(self.bytes.is_empty(), "the last frame broke off");
                return Ok(None);
            }
        }
    }
}

/// Opcode, and start and end of the payload.
fn header(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, length) = (*bytes.first()?, *bytes.get(1)?);
    let (start, length) = match length {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    Some((first & 0xf, start, start + length))
}

impl EchoSeen {
    async fn read_until(&mut self, frames: &mut Frames, is_enough: impl Fn(&EchoSeen) -> bool) -> Result<()> {
        while !is_enough(self) {
            match frames.next().await? {
                Some((CLOSE, payload)) => {
                    let code = payload.get(..2).and_then(|code| code.try_into().ok());
                    self.code = code.map(u16::from_be_bytes);
                    return Ok(());
                }
                Some((PONG, payload)) => self.pongs.push(payload),
                Some((0..=2, payload)) => self.data.extend(payload),
                Some((other, _)) => bail!("a frame of kind {other}"),
                None => return Ok(()),
            }
        }
        Ok(())
    }
}

async fn send(socket: &mut OwnedWriteHalf, bytes: &[u8], chop: usize) {
    for piece in bytes.chunks(chop.max(1)) {
        // After a protocol error the server may close before it has read everything.
        if socket.write_all(piece).await.is_err() {
            return;
        }
    }
}

async fn run_case(socket: TcpStream, case: &ConformanceCase) -> Result<()> {
    socket.set_nodelay(true)?;
    let (read, mut write) = socket.into_split();
    let (mut frames, mut seen) = (Frames { socket: read, bytes: Vec::new() }, EchoSeen::default());
    let never = |_: &EchoSeen| false;
    let (expected, code) = match &case.expect {
        _ if TOO_LARGE.contains(&case.id.as_str()) => (&[][..], CLOSE_TOO_LARGE),
        Expect::Served(data, pings) => {
            let all = |seen: &EchoSeen| seen.data.len() >= data.len() && seen.pongs.len() >= pings.len();
            let ((), read) = tokio::join!(send(&mut write, &case.sent, case.chop), seen.read_until(&mut frames, all));
            read?;
            let (came, due) = (seen.data.len(), data.len());
            ensure!(
                &seen.data == data && &seen.pongs == pings,
                "{came} bytes came back where {due} were due: {:?}",
                seen.code
            );
            write.write_all(&FAREWELL).await?;
            seen.read_until(&mut frames, never).await?;
            ensure!(seen.code == Some(CLOSE_NORMAL), "closed with {:?}", seen.code);
            return Ok(());
        }
        Expect::Closed(data, _) => (&data[..], CLOSE_NORMAL),
        Expect::Broken(data, _) => (&data[..], CLOSE_PROTOCOL_ERROR),
        Expect::NotUtf8(_) => (&[][..], CLOSE_NOT_UTF8),
    };
    let ((), read) = tokio::join!(send(&mut write, &case.sent, case.chop), seen.read_until(&mut frames, never));
    read?;
    ensure!(seen.code == Some(code), "closed with {:?} where {code} was due", seen.code);
    ensure!(expected.starts_with(&seen.data), "something else came back");
    Ok(())
}

#[test]
fn every_case_comes_out_as_listed_through_two_proxies() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let test_servers = TestServers::start(&fleet, App::Functional, Setting::TwoProxies).await?;
        let all: Vec<ConformanceCase> =
            cases::all().into_iter().filter(|case| is_full() || case.sent.len() <= SHORT_BYTES).collect();
        let (test_servers, all) = (&test_servers, &all);
        let played = stream::iter(all.iter().enumerate()).map(async |(index, case)| {
            let socket = upgraded_socket(test_servers.address(index), "/echo").await?;
            run_case(socket, case).await.with_context(|| format!("case {}", case.id))?;
            anyhow::Ok(case.id.as_str())
        });
        let played: BTreeSet<&str> = played.buffer_unordered(TOGETHER).try_collect().await?;
        assert_eq!(played.len(), all.len());
        assert!(played.len() >= 250, "{}", played.len());
        Ok(())
    });
}
