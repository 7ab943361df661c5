//! Transfers to one client that are larger than any queue: the app server waits for the client, so everything arrives.

use anyhow::Context;
use serde_json::{Value, json};
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::browser::Browser;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::scenario::{one_of, run_heavy_test, run_test};
use trunkline_tests::harness::test_servers::{Setting, TestServers};

/// Items, and characters of each: 11 MB, which fit neither into a client's outbox nor into its window.
const ITEMS: u64 = 700;
const LENGTH: usize = 16_000;

fn transports(kind: Kind) -> &'static [Transport] {
    use Transport::{LongPolling, ServerSentEvents, WebSockets};
    match kind {
        Kind::JsJson | Kind::NetJson => &[WebSockets, ServerSentEvents, LongPolling],
        Kind::JavaJson | Kind::NetMessagePack => &[WebSockets, LongPolling],
        // The Go library loses parts of long events, so its event streams carry only small messages.
        _ => &[WebSockets],
    }
}

/// Numbers of items `[number, text]`, if each text is whole.
fn numbers(items: &[Value]) -> Vec<u64> {
    let whole = items.iter().filter(|item| item[1].as_str().is_some_and(|text| text.len() == LENGTH));
    whole.filter_map(|item| item[0].as_u64()).collect()
}

#[test]
fn a_download_by_stream_and_by_awaited_sends_arrives_whole() {
    run_test(async |fixture| {
        let (fleet, agents) = (Fleet::new(fixture), Agents::new(fixture));
        let test_servers = TestServers::start(&fleet, App::Calls, Setting::TwoProxies).await?;
        for kind in Kind::JS.into_iter().chain(Kind::others()) {
            for transport in one_of(transports(kind)) {
                let builder = agents.client(kind, &test_servers.url(0, "/calls")).transport(transport);
                let mut client = builder.subscribe(&["Announced"]).open().await?;
                let expected: Vec<u64> = (1..=ITEMS).collect();
                let streamed = client.stream("CountPadded", json!([ITEMS, LENGTH])).await?;
                assert_eq!(streamed.error, None, "{kind:?} {transport:?}");
                assert_eq!(numbers(&streamed.items), expected, "{kind:?} {transport:?}");
                client.invoke("SendPadded", json!([ITEMS, LENGTH])).await?;
                let mut sent = Vec::new();
                for _ in 0..ITEMS {
                    let message = client.expect("Announced").await;
                    sent.extend(message.with_context(|| format!("{kind:?} {transport:?}"))?);
                }
                let mut sent = numbers(&sent);
                if matches!(kind, Kind::GoJson | Kind::GoMessagePack) {
                    // The library handles each message in a separate goroutine.
                    sent.sort_unstable();
                }
                assert_eq!(sent, expected, "{kind:?} {transport:?}");
                client.close().await?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_download_in_a_browser_arrives_whole_and_in_order() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let test_servers = TestServers::start(&fleet, App::Calls, Setting::TwoProxies).await?;
        let browser = Browser::start(fixture)?;
        let url = test_servers.url(0, "/calls");
        // A GET without a connection is answered by a text: a page of the hub's origin.
        let page = browser.open_with_client("downloads", &url).await?;
        let expected = json!((1..=ITEMS).collect::<Vec<_>>());
        for transport in Transport::ALL {
            let [streamed, sent] = page.download(&url, transport, (ITEMS, LENGTH)).await?;
            assert_eq!(streamed, expected, "{transport:?}");
            assert_eq!(sent, expected, "{transport:?}");
        }
        browser.end().await
    });
}
