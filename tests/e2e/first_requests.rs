//! First requests on a socket: WebSocket connects that arrive whole, in pieces, with data behind them, or for unknown
//! paths.

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trunkline_generator::{frame, upgrade};
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::scenario::run_test;

const HANDSHAKE: &[u8] = b"{\"protocol\":\"json\",\"version\":1}\x1e";

/// Reads up to the end of this text, and returns the received data.
async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Result<String> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        read.push(stream.read_u8().await.with_context(|| format!("after {}", String::from_utf8_lossy(&read)))?);
    }
    Ok(String::from_utf8_lossy(&read).into_owned())
}

/// Reads the response to an accepted upgrade and to the hub handshake.
async fn is_let_in(stream: &mut TcpStream) -> Result<()> {
    let head = read_until(stream, b"\r\n\r\n").await?.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nx-trunkline-node: "), "{head}");
    assert!(head.contains("\r\nsec-websocket-accept: ") && head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    assert!(read_until(stream, b"\x1e").await?.ends_with("{}\x1e"));
    Ok(())
}

#[test]
fn a_connect_is_let_in_however_its_bytes_come() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;
        let head = upgrade::request("localhost", "/bench", "");
        let (handshake, many) = (frame::from_client(HANDSHAKE), "cookie: a=1\r\n".repeat(40));
        let long = head.replace("\r\n\r\n", &format!("\r\nx-long: {}\r\n\r\n", "x".repeat(3000)));
        let crowded = head.replace("\r\n\r\n", &format!("\r\n{many}\r\n"));
        for head in [head.as_str(), &long, &crowded, &head.replace("\r\n\r\n", "\r\norigin: http://localhost\r\n\r\n")]
        {
            for pieces in [1, 2, 5] {
                let mut stream = TcpStream::connect(proxy.address()).await?;
                stream.set_nodelay(true)?;
                for piece in head.as_bytes().chunks(head.len().div_ceil(pieces)) {
                    stream.write_all(piece).await?;
                    tokio::task::yield_now().await;
                }
                stream.write_all(&handshake).await?;
                is_let_in(&mut stream).await?;
            }
            // Some clients send their handshake together with the upgrade.
            let mut stream = TcpStream::connect(proxy.address()).await?;
            stream.write_all(&[head.as_bytes(), &handshake].concat()).await?;
            is_let_in(&mut stream).await?;
        }
        Ok(())
    });
}

#[test]
fn a_refused_connect_leaves_the_socket_to_the_next_request() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;
        let good = upgrade::request("localhost", "/bench", "");
        let [versions, unknown, foreign] = [
            good.replace("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12"),
            good.replace("/bench", "/bench?id=unknown"),
            good.replace("\r\n\r\n", "\r\nOrigin: https://evil.example\r\n\r\n"),
        ];
        for (bad, status) in [(versions, "426"), (unknown, "404"), (foreign, "403")] {
            assert_ne!(bad, good);
            let mut stream = TcpStream::connect(proxy.address()).await?;
            stream.write_all(bad.as_bytes()).await?;
            let head = read_until(&mut stream, b"\r\n\r\n").await?.to_ascii_lowercase();
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{status}: {head}");
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or("0");
            let mut body = vec![0; length.parse()?];
            stream.read_exact(&mut body).await?;
            stream.write_all(&[good.as_bytes(), &frame::from_client(HANDSHAKE)].concat()).await?;
            is_let_in(&mut stream).await?;
        }
        Ok(())
    });
}
