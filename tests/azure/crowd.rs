//! Two thousand idle clients on ten server connections.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use trunkline_tests::harness::client::Kind;
use trunkline_tests::harness::dotnet::run_heavy_dotnet_test;
use trunkline_tests::harness::raw::{JSON_HANDSHAKE, RawClient};
use trunkline_tests::harness::scenario::is_full;

use crate::aspnet::CONNECTIONS;
use crate::dial_in::{DialIn, client_token};
use crate::guest::{Host, Library};
use crate::scene::HUB;

const CLIENTS: usize = 2_000;

/// Longer than the SDK's app server waits for a client's ping (30 s), and much longer than its keep-alive interval.
const IDLE: Duration = Duration::from_secs(45);

async fn open(dial_in: &DialIn, number: usize) -> Result<RawClient> {
    let token = client_token(HUB, &json!({ "nameid": format!("idle-{number}") }))?;
    let path = format!("/client/?hub={HUB}&user=idle-{number}&access_token={token}");
    let mut client = RawClient::open(dial_in.address(), &path).await?;
    client.send_text(JSON_HANDSHAKE).await?;
    Ok(client)
}

#[test]
fn two_thousand_idle_clients_at_ten_server_connections_stay_and_are_all_reached() {
    run_heavy_dotnet_test(async |fixture, dotnet| {
        let (dial_in, host) = (DialIn::open(fixture).await?, Host::new(fixture, dotnet));
        let mut apps = [host.app(&dial_in, "one", &[]).await?, host.app(&dial_in, "two", &[]).await?];
        // Ten for the clients' hub, ten for the other.
        dial_in.linked(2 * CONNECTIONS).await?;
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            clients.push(open(&dial_in, number).await?);
        }
        for client in &mut clients {
            let welcome = client.next_record().await?;
            ensure!(welcome == json!({}), "{welcome}");
        }
        if is_full() {
            // sleep: idleness is under test
            tokio::time::sleep(IDLE).await;
        }
        let guest = host.invite(Library::Js(Kind::JsJson), &apps[0], "speaker").await?;
        guest.invoke("Broadcast", json!(["to all"])).await?;
        guest.invoke("SendToUser", json!(["idle-7", "to one"])).await?;
        guest.invoke("Broadcast", json!(["fence"])).await?;
        for (number, client) in clients.iter_mut().enumerate() {
            let due: &[&str] = if number == 7 { &["to all", "to one", "fence"] } else { &["to all", "fence"] };
            for due in due {
                let record = client.next_record().await.with_context(|| format!("client {number}"))?;
                ensure!(record["arguments"][0] == *due, "client {number} got {record} where {due} was due");
            }
        }
        drop(clients);
        let opened: usize = apps.iter().map(|app| app.printed("connected")).sum();
        ensure!(opened == CLIENTS + 1, "the hubs were told of {opened} clients");
        // The hub sees each end exactly once.
        let counts = apps.each_ref().map(|app| app.printed("connected"));
        for (app, count) in apps.iter_mut().zip(counts) {
            app.process.wait_for_lines("disconnected ", count - 1).await?;
        }
        Ok(())
    });
}
