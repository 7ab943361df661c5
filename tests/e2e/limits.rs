//! Limits of the client port: a client over a limit gets an answer that names the limit, and is counted, without effect
//! on others.

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::http_client::{Answer, ask, post};
use trunkline_tests::harness::raw::{RawClient, Refusal};
use trunkline_tests::harness::scenario::{Fixture, run_test, until};

const NEGOTIATE: &str = "/bench/negotiate?negotiateVersion=1";

/// Headers of a trusted balancer, so that one test can act as several clients.
const ANN: (&str, &str) = ("x-forwarded-for", "203.0.113.1");
const BEN: (&str, &str) = ("x-forwarded-for", "203.0.113.2");

/// A proxy with a limit, and a client on it that must not be affected.
struct LimitScene {
    _app: AppServer,
    proxy: Proxy,
    healthy: RawClient,
}

impl LimitScene {
    async fn open(fixture: &Fixture, flags: &[&str]) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], flags).await?;
        let healthy = RawClient::join(proxy.address(), "/bench").await?;
        Ok(Self { _app: app, proxy, healthy })
    }

    async fn reached(&self, limit: &str) -> Result<f64> {
        Ok(self.proxy.metrics().await?.sum("trunkline_limits_reached_total", &[("limit", limit)]))
    }

    async fn connect(&self, from: (&'static str, &str)) -> Result<Result<RawClient, Refusal>> {
        RawClient::try_open_with(self.proxy.address(), "/bench", &[from]).await
    }

    async fn negotiate(&self, from: (&'static str, &str)) -> Result<Answer> {
        ask(self.proxy.address(), Method::POST, NEGOTIATE, &[from]).await
    }

    async fn assert_undisturbed(&mut self) -> Result<()> {
        assert_eq!(self.healthy.call("Echo", json!(["still here"])).await?["result"], "still here");
        Ok(())
    }
}

fn assert_names(refusal: &Refusal, status: u16, flag: &str) {
    assert_eq!(refusal.status, status, "{refusal:?}");
    assert!(refusal.body.contains(flag), "{refusal:?}");
    let retry_after = refusal.headers["retry-after"].to_str().unwrap();
    assert!(retry_after.parse::<u32>().unwrap() >= 1, "{refusal:?}");
}

#[test]
fn a_node_bounds_its_sockets_and_closed_ones_make_room() {
    run_test(async |fixture| {
        let mut scene = LimitScene::open(fixture, &["--connections-max", "4"]).await?;
        let address = scene.proxy.address().to_owned();
        let clients = try_join_all((0..3).map(|_| RawClient::join(&address, "/bench"))).await?;
        let refused = scene.connect(BEN).await?.err().context("let in")?;
        assert_names(&refused, 503, "--connections-max");
        assert_eq!(scene.reached("connections").await?, 1.0);
        for client in clients {
            client.close().await?;
        }
        until(async || Ok(scene.connect(BEN).await?.ok())).await?;
        scene.assert_undisturbed().await
    });
}

#[test]
fn an_address_has_so_many_connections_and_others_have_theirs() {
    run_test(async |fixture| {
        let flags = ["--connections-per-address-max", "2", "--trust", "127.0.0.1"];
        let mut scene = LimitScene::open(fixture, &flags).await?;
        let one = scene.connect(ANN).await?.ok().context("refused")?;
        let _two = scene.connect(ANN).await?.ok().context("refused")?;
        assert_names(&scene.connect(ANN).await?.err().context("let in")?, 429, "--connections-per-address-max");
        assert_eq!(scene.reached("connections_per_address").await?, 1.0);
        assert!(scene.connect(BEN).await?.is_ok());
        // Addresses that a client adds to the left of its own are ignored.
        let spoofed = ("x-forwarded-for", "198.51.100.7, 203.0.113.1");
        assert_eq!(scene.connect(spoofed).await?.err().context("let in")?.status, 429);
        one.close().await?;
        until(async || Ok(scene.connect(ANN).await?.ok())).await?;
        scene.assert_undisturbed().await
    });
}

#[test]
fn a_burst_of_connects_waits_or_is_told_to_come_again() {
    run_test(async |fixture| {
        // Two connects pass immediately, one more waits for half a second, and further ones are refused.
        let mut scene = LimitScene::open(fixture, &["--connects-per-second", "2", "--connect-wait-ms", "700"]).await?;
        let answers = try_join_all((0..20).map(|_| post(scene.proxy.address(), NEGOTIATE))).await?;
        let served = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
        assert!((1..20).contains(&served), "{served}");
        let refused = answers.iter().find(|answer| answer.status != StatusCode::OK).context("nobody")?;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.body.contains("--connects-per-second") && refused.header("retry-after").is_some());
        assert!(scene.reached("connects").await? >= (20 - served) as f64);
        scene.assert_undisturbed().await
    });
}

#[test]
fn who_negotiates_and_never_connects_is_stopped() {
    run_test(async |fixture| {
        let flags = ["--pending-per-address-max", "3", "--trust", "127.0.0.1"];
        let mut scene = LimitScene::open(fixture, &flags).await?;
        let mut tokens = Vec::new();
        for _ in 0..3 {
            let negotiated = scene.negotiate(ANN).await?;
            tokens.push(negotiated.json()?["connectionToken"].as_str().context("no token")?.to_owned());
        }
        let refused = scene.negotiate(ANN).await?;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.body.contains("--pending-per-address-max") && refused.header("retry-after").is_some());
        assert_eq!(scene.reached("pending_per_address").await?, 1.0);
        assert_eq!(scene.negotiate(BEN).await?.status, StatusCode::OK);
        let connect = format!("/bench?id={}", tokens[0]);
        let _connected = RawClient::try_open_with(scene.proxy.address(), &connect, &[ANN]).await?.ok();
        assert_eq!(scene.negotiate(ANN).await?.status, StatusCode::OK);
        assert_eq!(scene.negotiate(ANN).await?.status, StatusCode::TOO_MANY_REQUESTS);
        scene.assert_undisturbed().await
    });
}

#[test]
fn a_client_over_its_messages_or_bytes_is_read_more_slowly_and_loses_nothing() {
    run_test(async |fixture| {
        for (flags, limit, padding) in
            [(["--messages-per-second", "100"], "messages", 1), (["--bytes-per-second", "20000"], "bytes", 1000)]
        {
            let mut scene = LimitScene::open(fixture, &flags).await?;
            let mut flooding = RawClient::join(scene.proxy.address(), "/bench").await?;
            let calls: String = (0..130).map(|number| call(number, padding)).collect();
            // In several frames, so that some remain to be read later.
            for piece in calls.as_bytes().chunks(700) {
                flooding.send_binary(piece.to_vec()).await?;
            }
            for number in 0..130 {
                assert_eq!(flooding.next_record().await?["invocationId"], json!(number.to_string()), "{limit}");
            }
            assert!(scene.reached(limit).await? >= 1.0, "{limit}");
            scene.assert_undisturbed().await?;
        }
        Ok(())
    });
}

fn call(number: usize, padding: usize) -> String {
    let argument = Value::from("x".repeat(padding));
    let call = json!({ "type": 1, "invocationId": number.to_string(), "target": "Echo", "arguments": [argument] });
    format!("{call}\u{1e}")
}
