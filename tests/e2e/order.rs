//! Numbered messages: per connection in order, without loss or duplicates.

use anyhow::Result;
use serde_json::json;
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet, Proxy};
use trunkline_tests::harness::scenario::{is_full, run_heavy_test};
use trunkline_tests::harness::token;

/// Number of messages of each connection; ten times as many in the long version.
const MESSAGES: u64 = 100_000;
/// Number of messages for slow libraries.
const MESSAGES_OF_OTHERS: u64 = 10_000;
const MIXED: u64 = 2_000;
const TICKS: u64 = 2_000;

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

#[test]
fn ticks_of_the_app_server_reach_every_client_in_order() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxies = fleet.two_proxies(&app).await?;
        let agents = Agents::new(fixture);
        let clients = open_all(&agents, &proxies, &Kind::ALL).await?;
        clients[0].invoke("StartTicks", json!([1, 64])).await?;
        for client in &clients {
            let ticks = client.sequence("Tick", TICKS).await?;
            assert_eq!(ticks.broken, None, "{:?}", client.kind());
        }
        clients[0].invoke("StopTicks", json!([])).await?;
        Ok(())
    });
}

#[test]
fn sends_of_all_kinds_keep_the_order_in_which_they_were_made() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let proxies = fleet.two_proxies(&app).await?;
        let agents = Agents::new(fixture);
        let alice = token::of_user(ACCESS_KEY, "alice")?;
        let mut clients = Vec::new();
        for kind in Kind::ALL {
            for proxy in &proxies {
                let builder = agents.client(kind, &proxy.url("/sends")).access_token(&alice);
                let client = builder.count(&["ToMe", "ToEveryone"]).open().await?;
                client.invoke("Join", json!(["mixed"])).await?;
                clients.push(client);
            }
        }
        let ids = clients.iter().map(Client::connection_id).collect::<Result<Vec<_>>>()?;
        clients[0].invoke("MixedToEveryone", json!([ids, MIXED])).await?;
        for client in &clients {
            // The answer follows all of these sends and, before them, the sends to everyone.
            client.invoke("MixedToMe", json!([MIXED])).await?;
            for target in ["ToEveryone", "ToMe"] {
                let sequence = client.sequence(target, 0).await?;
                let expected = (MIXED, Some(0), None);
                assert_eq!((sequence.received, sequence.first, sequence.broken), expected, "{:?}", client.kind());
            }
        }
        Ok(())
    });
}
