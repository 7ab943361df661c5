//! Compression with real clients: browsers' and Node's `ws`, Python, Java and Go, each with what it offers.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::scenario::run_test;

/// Flags of a node that compresses each message that gets smaller.
const COMPRESSED: [&str; 3] = ["--compress", "--compress-min-bytes", "1"];

/// Kinds that offer compression by themselves, and one that does not.
const KINDS: [Kind; 4] = [Kind::JsJson, Kind::JsMessagePack, Kind::PySignalRJson, Kind::SignalRCoreJson];

const MESSAGES: u64 = 50;

#[test]
fn real_clients_with_and_without_compression_exchange_the_same_messages() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let (plain, packed) = (fleet.proxy(&app).await?, fleet.proxy_with(&[&app], &COMPRESSED).await?);
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for kind in KINDS {
            for proxy in [&plain, &packed] {
                let builder = agents.client(kind, &proxy.url("/sends")).subscribe(&["Received"]);
                clients.push(builder.open().await.with_context(|| format!("{kind:?}"))?);
            }
        }
        for number in 0..MESSAGES {
            let text = format!("{number} {}", "all of it ".repeat(usize::try_from(number * 7)?));
            let from = usize::try_from(number)? % clients.len();
            clients[from].invoke("ToAll", json!([text])).await?;
            for client in &mut clients {
                assert_eq!(client.expect("Received").await?, [Value::from(text.as_str())], "{:?}", client.kind());
            }
        }
        let ratio = ratio(&packed.metrics().await?);
        assert!(ratio < 0.5, "{ratio} of the plain bytes");
        assert!(self::ratio(&plain.metrics().await?).is_nan(), "the other node compresses nothing");
        Ok(())
    });
}

/// Sent bytes per plain byte of the clients with compression.
fn ratio(metrics: &Metrics) -> f64 {
    let bytes = |stage| metrics.sum("trunkline_compression_bytes_total", &[("stage", stage)]);
    bytes("sent") / bytes("plain")
}
