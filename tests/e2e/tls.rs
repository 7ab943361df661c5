//! TLS at the proxy's listener, with certificates that change at run time, and to app servers, in both directions.

use std::fs;

use anyhow::{Result, ensure};
use http::{Request, StatusCode, Version, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Bytes;
use trunkline_tests::harness::browser::Browser;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, Proxy, failure_of};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{Fixture, run_heavy_test, run_test, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tls::{Authority, Identity, TlsEnd, text};

const HANDSHAKES: &str = "trunkline_tls_handshakes_total";

/// Proxy with TLS, and its address.
struct Secured {
    authority: Authority,
    identity: Identity,
    proxy: Proxy,
    address: String,
}

async fn secured(fixture: &Fixture, fleet: &Fleet<'_>, app: &AppServer, more: &[&str]) -> Result<Secured> {
    let authority = Authority::new(fixture, "own")?;
    let identity = authority.sign("proxy", &["localhost", "127.0.0.1"])?;
    let address = free_address()?;
    let (certificate, key) = identity.arguments()?;
    let mut arguments = vec!["--tls-listen", &address, "--tls-cert", certificate, "--tls-key", key];
    arguments.extend(more);
    let proxy = fleet.proxy_with(&[app], &arguments).await?;
    Ok(Secured { authority, identity, proxy, address })
}

impl Secured {
    async fn handshakes(&self, outcome: &str) -> Result<f64> {
        Ok(self.proxy.metrics().await?.sum(HANDSHAKES, &[("outcome", outcome)]))
    }

    async fn counted(&self, outcome: &str) -> Result<()> {
        until(async || Ok((self.handshakes(outcome).await? > 0.0).then_some(()))).await
    }

    /// Certificate that a new connection receives.
    async fn shown(&self) -> Result<Vec<u8>> {
        let stream = self.authority.connect(&self.address, "http/1.1").await?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(certificates.first().map(|certificate| certificate.to_vec()).unwrap_or_default())
    }
}

#[test]
fn official_clients_connect_with_tls_and_lose_nothing_in_either_direction() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let secured = secured(fixture, &fleet, &app, &[]).await?;
        let url = format!("https://{}/bench", secured.address);
        let agents = Agents::trusting(fixture, &secured.authority.file);
        let large = "x".repeat(30_000);
        for kind in Kind::JS {
            let mut client = agents.client(kind, &url).subscribe(&["Echoed"]).count(&["Message"]).open().await?;
            assert_eq!(client.invoke("Echo", json!(["over TLS"])).await?, "over TLS", "{kind:?}");
            client.invoke("EchoBack", json!([large])).await?;
            assert_eq!(client.expect("Echoed").await?, [large.as_str()], "{kind:?}");
            client.flood("Broadcast", 0, 2_000).await?;
            let sequence = client.sequence("Message", 2_000).await?;
            assert_eq!((sequence.received, sequence.broken), (2_000, None), "{kind:?}");
            client.close().await?;
        }
        let closed = async || {
            let metrics = secured.proxy.metrics().await?;
            let by_client = metrics.sum("trunkline_client_connections_closed_total", &[("cause", "client_closed")]);
            Ok((by_client >= 2.0).then_some(()))
        };
        until(closed).await
    });
}

#[test]
fn a_page_in_a_browser_connects_with_tls() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::in_development(fixture);
        let app = fleet.app(App::Chat).await?;
        let secured = secured(fixture, &fleet, &app, &[]).await?;
        let browser = Browser::start(fixture)?;
        let page =
            browser.open("anna", &format!("http://{}/?proxy=https://{}", app.address(), secured.address)).await?;
        page.see("state", "Connected").await?;
        page.fill("user", "anna").await?;
        page.fill("message", "sealed").await?;
        page.click("send").await?;
        page.see("messages", "sealed").await?;
        // Negotiation used HTTP/2 and the WebSocket HTTP/1.1, so there were two connections.
        assert!(secured.handshakes("ok").await? >= 2.0);
        browser.end().await
    });
}

#[test]
fn requests_go_by_http2_where_the_client_speaks_it() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let secured = secured(fixture, &fleet, &app, &[]).await?;
        let stream = secured.authority.connect(&secured.address, "h2").await?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let origin = format!("https://{}", secured.address);
        let ask = async |method: &str, path: &str| {
            let request = Request::builder().method(method).version(Version::HTTP_2);
            let request = request.uri(format!("{origin}{path}")).header(header::ORIGIN, &origin);
            let answer = sender.clone().send_request(request.body(Empty::<Bytes>::new())?).await?;
            let (parts, body) = answer.into_parts();
            anyhow::Ok((parts, body.collect().await?.to_bytes()))
        };
        for _ in 0..300 {
            let (parts, body) = ask("POST", "/bench/negotiate?negotiateVersion=1").await?;
            assert_eq!((parts.status, parts.version), (StatusCode::OK, Version::HTTP_2));
            assert!(serde_json::from_slice::<serde_json::Value>(&body)?["connectionToken"].is_string());
            // A page from the proxy's own address: HTTP/2 requests have no `Host` header.
            assert_eq!(parts.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], origin);
        }
        assert_eq!(ask("GET", "/nowhere").await?.0.status, StatusCode::NOT_FOUND);
        assert_eq!(secured.handshakes("ok").await?, 1.0);
        Ok(())
    });
}

#[test]
fn new_certificates_are_served_without_disturbing_clients_and_broken_ones_never() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let mut secured = secured(fixture, &fleet, &app, &[]).await?;
        let stream = secured.authority.connect(&secured.address, "http/1.1").await?;
        let mut client = RawClient::join_over(stream, &secured.address, "/bench").await?;
        let first = secured.shown().await?;

        secured.authority.sign("proxy", &["localhost"])?;
        secured.proxy.process.signal(Signal::Hangup).await?;
        until(async || Ok((secured.shown().await? != first).then_some(()))).await?;
        let second = secured.shown().await?;
        assert_eq!(client.call("Echo", json!([1])).await?["result"], 1);
        let file = secured.identity.certificate.display().to_string();
        let labels = [("file", file.as_str()), ("role", "listener")];
        let ends_s = secured.proxy.metrics().await?.sum("trunkline_certificate_ends_seconds", &labels);
        ensure!(ends_s > 1.7e9, "the end is in the future: {ends_s}");

        // The files are also checked periodically, without a signal.
        fs::write(&secured.identity.certificate, "nonsense")?;
        secured.proxy.process.wait_for_log("changed files can't be loaded").await?;
        assert_eq!(secured.shown().await?, second);
        assert_eq!(client.call("Echo", json!([2])).await?["result"], 2);
        let reads = secured.proxy.metrics().await?;
        let reads =
            ["ok", "invalid"].map(|outcome| reads.sum("trunkline_certificate_reads_total", &[("outcome", outcome)]));
        assert_eq!(reads, [1.0, 1.0]);
        Ok(())
    });
}

#[test]
fn handshakes_that_fail_are_counted_by_cause_and_disturb_no_client() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let secured = secured(fixture, &fleet, &app, &["--tls-handshake-timeout", "1"]).await?;
        let stream = secured.authority.connect(&secured.address, "http/1.1").await?;
        let mut client = RawClient::join_over(stream, &secured.address, "/bench").await?;

        let mut plain = TcpStream::connect(&secured.address).await?;
        plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
        secured.counted("invalid").await?;
        drop(TcpStream::connect(&secured.address).await?);
        secured.counted("closed").await?;
        let stranger = Authority::new(fixture, "stranger")?;
        assert!(stranger.connect(&secured.address, "http/1.1").await.is_err());
        secured.counted("alert").await?;
        let mut silent = TcpStream::connect(&secured.address).await?;
        assert_eq!(silent.read(&mut [0]).await?, 0, "who never shakes hands is not waited for");
        secured.counted("timeout").await?;

        assert_eq!(secured.handshakes("ok").await?, 1.0);
        assert_eq!(client.call("Echo", json!([1])).await?["result"], 1);
        assert!(!secured.proxy.process.log().contains("WARN"), "{}", secured.proxy.process.log());
        Ok(())
    });
}

#[test]
fn a_closing_client_gets_the_answer_and_the_end_of_tls() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let secured = secured(fixture, &fleet, &app, &[]).await?;
        for _ in 0..20 {
            let stream = secured.authority.connect(&secured.address, "http/1.1").await?;
            let client = RawClient::join_over(stream, &secured.address, "/bench").await?;
            // Without the TLS close, the last read would fail, and there would be no code.
            assert_eq!(client.close().await?.code, Some(1000));
        }
        Ok(())
    });
}

#[test]
fn links_go_by_tls_with_certificates_on_both_sides() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let authority = Authority::new(fixture, "fleet")?;
        let end = TlsEnd::for_clients_of(&authority, &authority.sign("app", &["127.0.0.1"])?, app.address()).await?;
        let upstream = format!("https://{}", end.address());
        let own = authority.sign("proxy", &["proxy"])?;
        let (certificate, key) = own.arguments()?;
        let arguments =
            ["--upstream-ca", text(&authority.file)?, "--upstream-cert", certificate, "--upstream-key", key];
        let (address, admin) = (free_address()?, free_address()?);
        let mut proxy = fleet.proxy_of(&address, &admin, &[&upstream], &arguments)?;
        proxy.ready().await?;
        let mut client = RawClient::join(proxy.address(), "/bench").await?;
        let large = "x".repeat(30_000);
        for _ in 0..50 {
            assert_eq!(client.call("Echo", json!([large])).await?["result"], large.as_str());
        }

        // Without a client certificate, and with an authority that did not sign the app server's certificate.
        let stranger = Authority::new(fixture, "stranger")?;
        for (trusted, expected) in [(&authority, "CertificateRequired"), (&stranger, "UnknownIssuer")] {
            let arguments = ["--upstream-ca", text(&trusted.file)?];
            let (address, admin) = (free_address()?, free_address()?);
            let mut refused = fleet.proxy_of(&address, &admin, &[&upstream], &arguments)?;
            let line = refused.process.wait_for_log("waiting for the app server").await?;
            assert!(line.contains(expected) && line.contains(&upstream), "{line}");
            let answer = refused.readiness(StatusCode::SERVICE_UNAVAILABLE).await?;
            assert!(answer.body.contains(&upstream), "{}", answer.body);
        }
        Ok(())
    });
}

#[test]
fn a_certificate_without_its_key_is_an_error_that_names_both() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let authority = Authority::new(fixture, "own")?;
        let (one, two) = (authority.sign("one", &["localhost"])?, authority.sign("two", &["localhost"])?);
        let address = free_address()?;
        let files = [
            (one.certificate.as_path(), two.key.as_path()),
            (&one.key, &one.key),
            (&one.certificate, &one.certificate),
        ];
        for (certificate, key) in files {
            let arguments = ["--tls-listen", &address, "--tls-cert", text(certificate)?, "--tls-key", text(key)?];
            let (listen, admin) = (free_address()?, free_address()?);
            let mut proxy = fleet.proxy_of(&listen, &admin, &["http://127.0.0.1:9"], &arguments)?;
            let log = failure_of(&mut proxy.process).await?;
            assert!(log.contains("error: ") && log.contains(text(certificate)?), "{log}");
        }
        Ok(())
    });
}
