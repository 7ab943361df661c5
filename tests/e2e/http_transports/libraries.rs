//! Client libraries over Server-Sent Events and long polling.

use serde_json::json;
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, Fleet, stop};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::{is_full, pairs, run_heavy_test, run_test};
use trunkline_tests::harness::test_servers::{Setting, TestServers};

pub(crate) const CARRIED: [Transport; 2] = [Transport::ServerSentEvents, Transport::LongPolling];

pub(crate) const WAYS: [(Kind, Transport); 3] = [
    (Kind::JsJson, Transport::ServerSentEvents),
    (Kind::JsJson, Transport::LongPolling),
    (Kind::JsMessagePack, Transport::LongPolling),
];

const MESSAGES: u64 = 1_000;
const MESSAGES_FULL: u64 = 10_000;
/// Messages in one batch of the app server, far more than one response holds.
const TICKS: u64 = 500;

#[test]
fn numbered_messages_come_in_order_each_way_none_lost_none_twice() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        let count = if is_full() { MESSAGES_FULL } else { MESSAGES };
        for (setting, ways) in pairs(&Setting::ALL, &WAYS) {
            let test_servers = TestServers::start(&fleet, App::Bench, setting).await?;
            for (index, (kind, transport)) in ways.into_iter().enumerate() {
                let builder = agents.client(kind, &test_servers.url(index, "/bench")).transport(transport);
                let client = builder.count(&["Echoed", "Tick"]).open().await?;
                crate::order::flood_and_check(&client, count).await?;
                client.invoke("StartTicks", json!([1, 4096])).await?;
                let ticks = client.sequence("Tick", TICKS).await?;
                assert_eq!(ticks.broken, None, "{kind:?} over {transport:?}");
                client.invoke("StopTicks", json!([])).await?;
            }
        }
        Ok(())
    });
}

#[test]
fn the_python_client_calls_over_both() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        for (setting, ways) in pairs(&Setting::ALL, &CARRIED) {
            let test_servers = TestServers::start(&fleet, App::Bench, setting).await?;
            for (index, transport) in ways.into_iter().enumerate() {
                let builder = agents.client(Kind::SignalRCoreJson, &test_servers.url(index, "/bench"));
                let client = builder.transport(transport).open().await?;
                for number in 0..10 {
                    assert_eq!(client.invoke("Echo", json!([number])).await?, number, "{transport:?}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn official_clients_notice_that_their_node_stops() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let mut proxy = fleet.proxy(&app).await?;
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for transport in CARRIED {
            let client = agents.client(Kind::JsJson, &proxy.url("/bench")).transport(transport).open().await?;
            client.invoke("Echo", json!([1])).await?;
            clients.push(client);
        }
        stop(&mut proxy.process, Signal::Terminate).await?;
        for client in &mut clients {
            client.closed().await?;
        }
        Ok(())
    });
}
