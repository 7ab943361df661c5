//! Compression with real clients, each with what it offers, at a node with it beside a node without.

use anyhow::Context;
use serde_json::{Value, json};
use trunkline_tests::harness::browser::{Browser, OFFICIAL_SCRIPT};
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::scenario::{run_heavy_test, run_test};

/// Flags of a node that compresses each message that gets smaller.
const COMPRESSED: [&str; 3] = ["--compress", "--compress-min-bytes", "1"];

const MESSAGES: u64 = 50;

/// Lets clients of each kind, at both nodes, send the same messages to all.
fn exchange(kinds: &[Kind]) {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let (plain, packed) = (fleet.proxy(&app).await?, fleet.proxy_with(&[&app], &COMPRESSED).await?);
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for kind in kinds {
            for proxy in [&plain, &packed] {
                let builder = agents.client(*kind, &proxy.url("/sends")).subscribe(&["Received"]);
                clients.push(builder.open().await.with_context(|| format!("{kind:?}"))?);
            }
        }
        for number in 0..MESSAGES {
            let text = format!("{number} {}", "all of it ".repeat(usize::try_from(number * 60)?));
            let from = usize::try_from(number)? % clients.len();
            clients[from].invoke("ToAll", json!([text])).await?;
            for client in &mut clients {
                assert_eq!(client.expect("Received").await?, [Value::from(text.as_str())], "{:?}", client.kind());
            }
        }
        let ratio = ratio(&packed.metrics().await?);
        assert!(ratio < 0.1, "{ratio} of the plain bytes");
        assert!(self::ratio(&plain.metrics().await?).is_nan(), "the other node compresses nothing");
        Ok(())
    });
}

/// Sent bytes per plain byte of the clients with compression.
fn ratio(metrics: &Metrics) -> f64 {
    let bytes = |stage| metrics.sum("trunkline_compression_bytes_total", &[("stage", stage)]);
    bytes("sent") / bytes("plain")
}

#[test]
fn javascript_clients_with_and_without_compression_exchange_the_same_messages() {
    exchange(&Kind::JS);
}

/// One library offers compression, the other one does not.
#[test]
fn python_clients_with_and_without_compression_exchange_the_same_messages() {
    exchange(&[Kind::PySignalRJson, Kind::SignalRCoreJson]);
}

#[test]
fn java_and_go_clients_with_and_without_compression_exchange_the_same_messages() {
    exchange(&[Kind::JavaJson, Kind::GoJson, Kind::GoMessagePack]);
}

#[test]
fn pages_in_a_browser_with_and_without_compression_see_each_others_messages() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::in_development(fixture);
        let app = fleet.app_with(App::Chat, &["--client-script", OFFICIAL_SCRIPT]).await?;
        let proxies = [fleet.proxy(&app).await?, fleet.proxy_with(&[&app], &COMPRESSED).await?];
        let browser = Browser::start(fixture)?;
        let mut pages = Vec::new();
        for (proxy, user) in proxies.iter().zip(["anna", "ben"]) {
            let url = format!("http://{}/?transport=WebSockets&proxy={}", app.address(), proxy.url(""));
            let page = browser.open(user, &url).await?;
            page.see("state", "Connected").await?;
            page.fill("user", user).await?;
            pages.push(page);
        }
        for (number, page) in pages.iter().enumerate() {
            let text = format!("{number}{}", " all of it".repeat(40));
            page.fill("message", &text).await?;
            page.click("send").await?;
            for page in &pages {
                page.see("messages", &text).await?;
            }
        }
        let ratio = ratio(&proxies[1].metrics().await?);
        assert!(ratio < 0.5, "{ratio} of the plain bytes");
        browser.end().await
    });
}
