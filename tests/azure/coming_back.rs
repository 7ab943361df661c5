//! Stateful reconnect with dial-in: clients of unmodified ASP.NET Core apps after broken sockets.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use trunkline_tests::harness::client::{Client, Kind};
use trunkline_tests::harness::dotnet::run_heavy_dotnet_test;
use trunkline_tests::harness::fleet::stop;
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::relay::{Fate, Relay};
use trunkline_tests::harness::scenario::is_full;

use crate::dial_in::DialIn;
use crate::fleets::Address;
use crate::guest::Host;

/// How often all client sockets are cut.
const CUTS: u64 = 20;

/// Messages from each client to the hub, and back, around a cut.
const MESSAGES: u64 = 30;

const LOST_CARRIED: &str = "link lost relayed=true";

async fn converse(client: &Client, from: u64, count: u64) -> Result<()> {
    client.flood("EchoBack", from, count).await?;
    let echoed = client.sequence("Echoed", from + count - 1).await?;
    ensure!(echoed.broken.is_none(), "{:?}: {echoed:?}", client.kind());
    Ok(())
}

#[test]
fn an_unmodified_app_and_its_clients_notice_nothing_of_broken_sockets() {
    run_heavy_dotnet_test(async |fixture, dotnet| {
        let (dial_in, host) = (DialIn::open(fixture).await?, Host::new(fixture, dotnet));
        // The app dials through the relay too, but its connections are not cut.
        let relay = Relay::start_for(b"GET /client", dial_in.address()).await?;
        let app = host.app_at(&relay.address(), "one", &[("--stateful", "true")]).await?;
        let mut clients = Vec::new();
        for kind in Kind::JS {
            let url = app.url("/bench?user=ann");
            clients.push(host.agents().client(kind, &url).stateful().count(&["Echoed"]).open().await?);
        }
        let url = app.url("/bench?user=ben");
        let mut of_net = dotnet.client(fixture, &url).stateful().subscribe(&["Message"]).open().await?;
        of_net.invoke("Join", json!(["red"])).await?;
        for cut in 0..CUTS {
            let talking = clients.iter().map(|client| converse(client, cut * MESSAGES + 1, MESSAGES));
            let (talked, ()) = tokio::join!(try_join_all(talking), async {
                relay.decide(if cut % 2 == 0 { Fate::CutInPiece } else { Fate::Cut }, usize::MAX);
            });
            talked?;
            // The .NET client tries to reconnect only once, so it must be connected before the next cut.
            of_net.invoke("Echo", json!([0])).await?;
        }
        for client in &clients {
            client.is_undisturbed().await?;
            client.invoke("Echo", json!([0])).await?;
            let echoed = client.sequence("Echoed", CUTS * MESSAGES).await?;
            assert_eq!((echoed.received, echoed.broken), (CUTS * MESSAGES, None), "{:?}", client.kind());
        }
        // The client is still in its group, under its id.
        clients[0].invoke("SendToGroup", json!(["red", "still there"])).await?;
        assert_eq!(of_net.expect("Message").await?, [json!("still there")]);
        let metrics = Metrics::of(dial_in.node.admin()).await?;
        ensure!(metrics.sum("trunkline_connections_resumed_total", &[]) >= CUTS as f64);
        assert_eq!(metrics.sum("trunkline_client_connections_closed_total", &[]), 0.0);
        assert_eq!(app.printed("disconnected"), 0, "{}", app.process.log());
        Ok(())
    });
}

#[test]
fn a_rolling_restart_of_all_nodes_goes_unnoticed_by_an_unmodified_app_and_its_clients() {
    run_heavy_dotnet_test(async |fixture, dotnet| {
        let (mut address, host) = (Address::open(fixture).await?, Host::new(fixture, dotnet));
        let app = host.app_at(address.balancer.address(), "one", &[("--stateful", "true")]).await?;
        address.linked(1).await?;
        let mut clients = Vec::new();
        for _ in 0..if is_full() { 50 } else { 5 } {
            for kind in Kind::JS {
                let url = app.url("/bench?user=ann");
                clients.push(host.agents().client(kind, &url).stateful().count(&["Echoed"]).open().await?);
            }
        }
        // Server connections carried by another node end with that node, and the SDK reports this to its app.
        let mut has_lost_carried = false;
        for place in 0..address.dial_ins.len() {
            let node = &mut address.dial_ins[place].node;
            let talking = clients.iter().map(|client| converse(client, place as u64 * MESSAGES + 1, MESSAGES));
            let (talked, stopped) = tokio::join!(try_join_all(talking), stop(&mut node.process, Signal::Terminate));
            talked?;
            stopped?;
            has_lost_carried |=
                address.dial_ins.iter().any(|dial_in| dial_in.node.process.log().contains(LOST_CARRIED));
            address.dial_ins[place].node.start_again(fixture).await?;
            address.linked(1).await?;
        }
        for client in &clients {
            client.is_undisturbed().await?;
        }
        ensure!(app.printed("disconnected") == 0 || has_lost_carried, "{}", app.process.log());
        Ok(())
    });
}

#[test]
fn an_app_whose_hub_does_not_allow_it_has_ordinary_clients() {
    run_heavy_dotnet_test(async |fixture, dotnet| {
        let (dial_in, host) = (DialIn::open(fixture).await?, Host::new(fixture, dotnet));
        let relay = Relay::start_for(b"GET /client", dial_in.address()).await?;
        let mut app = host.app_at(&relay.address(), "one", &[]).await?;
        let url = app.url("/bench?user=ann");
        let client = host.agents().client(Kind::JsJson, &url).stateful().reconnect_after_ms(&[0]).open();
        let mut client = client.await?;
        relay.decide(Fate::Cut, usize::MAX);
        client.reconnected().await?;
        app.process.wait_for_lines("disconnected ", 1).await
    });
}
