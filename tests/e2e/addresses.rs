//! Client addresses from load balancers, by the PROXY protocol, and over IPv6.

use anyhow::Result;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trunkline_tests::harness::fleet::{App, Fleet, Proxy};
use trunkline_tests::harness::raw::{RawClient, answer_to_garbage};
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tls::Authority;

const HEADERS: &str = "trunkline_proxy_headers_total";
const VERSION_1: &[u8] = b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n";
const VERSION_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\x12\x67\0\x50";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Client address that the hub sees over a connection with this first data.
async fn seen_after(proxy: &Proxy, header: &[u8]) -> Result<Value> {
    let mut stream = TcpStream::connect(proxy.address()).await?;
    stream.write_all(header).await?;
    let mut client = RawClient::join_over(stream, proxy.address(), "/bench").await?;
    Ok(client.call("WhoAmI", json!([])).await?["result"]["remoteAddress"].take())
}

async fn count(proxy: &Proxy, outcome: &str) -> Result<f64> {
    Ok(proxy.metrics().await?.sum(HEADERS, &[("outcome", outcome)]))
}

#[test]
fn a_trusted_load_balancer_tells_the_clients_address_and_has_to() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let authority = Authority::new(fixture, "own")?;
        let identity = authority.sign("proxy", &["localhost"])?;
        let (certificate, key) = identity.arguments()?;
        let secure = free_address()?;
        let arguments = ["--tls-listen", &secure, "--tls-cert", certificate, "--tls-key", key];
        let more = ["--proxy-protocol", "--trust", "127.0.0.0/8", "--proxy-protocol-timeout", "1"];
        let proxy = fleet.proxy_with(&[&app], &[&arguments[..], &more].concat()).await?;
        assert_eq!(seen_after(&proxy, VERSION_1).await?, "[2001:db8::7]:4711");
        assert_eq!(seen_after(&proxy, VERSION_2).await?, "192.0.2.7:4711");
        assert!(seen_after(&proxy, LOCAL).await?.as_str().unwrap().starts_with("127.0.0.1:"));

        // The PROXY header precedes the TLS handshake.
        let mut stream = TcpStream::connect(&secure).await?;
        stream.write_all(VERSION_2).await?;
        let stream = authority.connect_over(stream, "http/1.1").await?;
        let mut client = RawClient::join_over(stream, &secure, "/bench").await?;
        assert_eq!(client.call("WhoAmI", json!([])).await?["result"]["remoteAddress"], "192.0.2.7:4711");
        assert_eq!(count(&proxy, "ok").await?, 4.0);

        let request = b"GET /bench HTTP/1.1\r\nHost: x\r\n\r\n";
        assert!(answer_to_garbage(proxy.address(), request).await?.is_empty());
        assert_eq!(count(&proxy, "invalid").await?, 1.0);
        let mut silent = TcpStream::connect(proxy.address()).await?;
        silent.write_all(b"PROXY ").await?;
        assert_eq!(silent.read(&mut [0]).await?, 0);
        assert_eq!(count(&proxy, "timeout").await?, 1.0);
        Ok(())
    });
}

#[test]
fn only_trusted_balancers_can_set_an_address() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], &["--proxy-protocol", "--trust", "192.0.2.0/24"]).await?;
        for header in [VERSION_1, VERSION_2] {
            let spoofed = [header, b"GET /bench HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
            let answer = answer_to_garbage(proxy.address(), &spoofed).await?;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
        }
        assert!(seen_after(&proxy, b"").await?.as_str().unwrap().starts_with("127.0.0.1:"));
        assert_eq!(count(&proxy, "ok").await?, 0.0);
        Ok(())
    });
}

#[test]
fn all_addresses_may_be_of_ipv6_and_one_listener_serves_both_families() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let here = || free_address().map(|address| address.replace("127.0.0.1", "[::1]"));
        let mut app = fleet.app_at(App::Bench, &here()?, &[])?;
        app.listening().await?;
        let listen = here()?;
        let everywhere = listen.replace("[::1]", "[::]");
        let arguments = ["--advertise", &listen];
        let mut proxy = fleet.proxy_of(&everywhere, &here()?, &[app.address()], &arguments)?;
        proxy.ready().await?;
        for (address, family) in [(listen.clone(), "[::1]:"), (listen.replace("[::1]", "127.0.0.1"), "127.0.0.1:")] {
            let mut client = RawClient::join(&address, "/bench").await?;
            let me = client.call("WhoAmI", json!([])).await?["result"].take();
            assert!(me["remoteAddress"].as_str().unwrap().starts_with(family), "{me}");
        }
        Ok(())
    });
}
