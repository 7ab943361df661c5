//! Numbered messages: per connection in order, without loss or duplicates.

use anyhow::Result;
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{App, Fleet, Proxy};
use trunkline_tests::harness::scenario::{is_full, run_heavy_test};

/// Number of messages of each connection; ten times as many in the long version.
const MESSAGES: u64 = 100_000;
/// Number of messages for slow libraries.
const MESSAGES_OF_OTHERS: u64 = 10_000;

async fn open_all(agents: &Agents<'_>, proxies: &[Proxy; 2], kinds: &[Kind]) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for proxy in proxies {
        for kind in kinds {
            clients.push(agents.client(*kind, &proxy.url("/bench")).count(&["Echoed", "Tick"]).open().await?);
        }
    }
    Ok(clients)
}

/// Floods the hub, waits for all echoes, and checks for duplicates.
pub(crate) async fn flood_and_check(client: &Client, count: u64) -> Result<()> {
    let (sent, echoed) = tokio::join!(client.flood("EchoBack", 1, count), client.sequence("Echoed", count));
    sent?;
    echoed?;
    // Everything sent before this answer has arrived.
    client.invoke("Echo", json!([0])).await?;
    let echoed = client.sequence("Echoed", count).await?;
    assert_eq!(echoed.broken, None, "{:?}", client.kind());
    assert_eq!((echoed.received, echoed.first), (count, Some(1)), "{:?}", client.kind());
    Ok(())
}

#[test]
fn a_hundred_thousand_messages_each_way_come_in_order_none_lost_none_twice() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxies = fleet.two_proxies(&app).await?;
        let agents = Agents::new(fixture);
        let clients = open_all(&agents, &proxies, &[Kind::JsJson, Kind::JsMessagePack]).await?;
        let each = if is_full() { 10 * MESSAGES } else { MESSAGES };
        let floods = clients.iter().map(|client| flood_and_check(client, each));
        futures_util::future::try_join_all(floods).await?;
        Ok(())
    });
}

#[test]
fn other_libraries_see_the_same_order() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxies = fleet.two_proxies(&app).await?;
        let agents = Agents::new(fixture);
        let kinds = [Kind::PySignalRJson, Kind::PySignalRMessagePack];
        let clients = open_all(&agents, &proxies, &kinds).await?;
        let floods = clients.iter().map(|client| flood_and_check(client, MESSAGES_OF_OTHERS));
        futures_util::future::try_join_all(floods).await?;
        Ok(())
    });
}
