//! Real app servers that stop, die or lose their server connections: no client is closed without need, and numbered
//! messages arrive once and in order.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::time::timeout;
use trunkline_tests::harness::client::{Client, Kind};
use trunkline_tests::harness::dotnet::{AspNetApp, DotNet, run_heavy_dotnet_test};
use trunkline_tests::harness::fleet::{Proxy, stop};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::relay::{Fate, Relay};
use trunkline_tests::harness::scenario::{Fixture, until};

use crate::aspnet::CONNECTIONS;
use crate::dial_in::DialIn;
use crate::guest::{Guest, Host, Library};

const JSON: Library = Library::Js(Kind::JsJson);

/// Numbered messages per test.
const MESSAGES: u64 = 400;

/// Two apps behind a node, counting guests at both, and a speaker at the second, which stays.
struct DepartureFixture<'a> {
    dial_in: DialIn,
    host: Host<'a>,
    leaving: AspNetApp,
    staying: AspNetApp,
    speaker: Guest,
    /// Guests of the departing and of the staying app.
    counters: Vec<Client>,
}

impl<'a> DepartureFixture<'a> {
    async fn open(fixture: &'a Fixture, dotnet: &'a DotNet, shutdown: &str) -> Result<Self> {
        let (dial_in, host) = (DialIn::open(fixture).await?, Host::new(fixture, dotnet));
        let mut leaving = host.app(&dial_in, "leaving", &[("--shutdown", shutdown)]).await?;
        dial_in.linked(CONNECTIONS).await?;
        let mut counters = Vec::new();
        for number in 0..6 {
            let kind = Kind::JS[number % 2];
            counters.push(host.invite_counter(kind, &leaving, &format!("user-{number}")).await?);
        }
        leaving.process.wait_for_lines("connected ", counters.len()).await?;
        let staying = host.app(&dial_in, "staying", &[]).await?;
        dial_in.linked(2 * CONNECTIONS).await?;
        let speaker = speaker(&host, &staying).await?;
        Ok(Self { dial_in, host, leaving, staying, speaker, counters })
    }

    /// Sends numbered messages during `happens`, and checks that each guest receives each number once and in order.
    async fn speaks_while(&mut self, happens: impl AsyncFnOnce(&mut AspNetApp, &DialIn) -> Result<()>) -> Result<()> {
        let (Guest::Js(speaker), leaving, dial_in) = (&self.speaker, &mut self.leaving, &self.dial_in) else {
            anyhow::bail!("the speaker is a JavaScript client");
        };
        let halves = [(0, MESSAGES / 2), (MESSAGES / 2, MESSAGES / 2)];
        speaker.flood("Broadcast", halves[0].0, halves[0].1).await?;
        let ((), ()) =
            tokio::try_join!(happens(leaving, dial_in), speaker.flood("Broadcast", halves[1].0, halves[1].1))?;
        for counter in &self.counters {
            let seen = counter.sequence("Message", MESSAGES).await?;
            ensure!(seen.received == MESSAGES && seen.broken.is_none(), "{seen:?}");
        }
        Ok(())
    }

    async fn all_stay(&mut self) -> Result<()> {
        for counter in &self.counters {
            let who = until(async || Ok(counter.call("WhoAmI", json!([])).await?.ok())).await?;
            ensure!(who["instance"] == "staying", "{who}");
            ensure!(who["connectionId"] == counter.connection_id()?, "{who}");
        }
        for counter in &mut self.counters {
            // The first event must be this close: no client was closed earlier.
            counter.close().await?;
        }
        ensure!(closed_by_us(&self.dial_in.node).await? == 0.0);
        Ok(())
    }
}

async fn speaker(host: &Host<'_>, app: &AspNetApp) -> Result<Guest> {
    for _ in 0..20 {
        let guest = host.invite(JSON, app, "speaker").await?;
        if guest.instance().await? == "staying" {
            return Ok(guest);
        }
    }
    anyhow::bail!("twenty guests and none at the second app server")
}

/// Number of clients that the node closed by its own decision.
async fn closed_by_us(node: &Proxy) -> Result<f64> {
    let metrics = node.metrics().await?;
    let all = metrics.sum("trunkline_client_connections_closed_total", &[]);
    Ok(all - metrics.sum("trunkline_client_connections_closed_total", &[("cause", "client_closed")]))
}

#[test]
fn an_app_server_that_stops_and_migrates_its_clients_loses_none_and_no_message() {
    run_heavy_dotnet_test(async |fixture, dotnet| {
        let mut parting = DepartureFixture::open(fixture, dotnet, "migrate").await?;
        parting.speaks_while(async |leaving, _| stop(&mut leaving.process, Signal::Terminate).await).await?;
        parting.all_stay().await
    });
}

#[test]
fn an_app_server_that_waits_ends_when_its_clients_have_gone_and_gets_no_new_one() {
    run_heavy_dotnet_test(async |fixture, dotnet| {
        let mut parting = DepartureFixture::open(fixture, dotnet, "wait").await?;
        parting.leaving.process.signal(Signal::Terminate).await?;
        // Wait until the node has noticed: several new guests in a row reach the other app.
        for number in 0..4 {
            let guest = parting.host.invite(JSON, &parting.staying, &format!("late-{number}")).await?;
            let _instance = guest.instance().await?;
        }
        for counter in &parting.counters {
            let who = counter.invoke("WhoAmI", json!([])).await?;
            ensure!(who["instance"] == "leaving", "{who}");
        }
        for counter in &mut parting.counters {
            counter.close().await?;
        }
        let status = parting.leaving.process.ended().await?;
        ensure!(status.success(), "{status}");
        Ok(())
    });
}

#[test]
fn a_killed_app_server_loses_no_client_and_no_message_of_others() {
    run_heavy_dotnet_test(async |fixture, dotnet| {
        let mut parting = DepartureFixture::open(fixture, dotnet, "off").await?;
        parting.speaks_while(async |leaving, _| leaving.process.kill().await).await?;
        parting.all_stay().await
    });
}

#[test]
fn a_call_under_way_is_answered_with_the_reason_when_its_app_server_is_killed() {
    run_heavy_dotnet_test(async |fixture, dotnet| {
        let mut parting = DepartureFixture::open(fixture, dotnet, "off").await?;
        let counter = &parting.counters[0];
        let leaving = &mut parting.leaving;
        let killed = async {
            // When this later call is answered, the earlier call on the connection has arrived.
            counter.invoke("Echo", json!(["fence"])).await?;
            leaving.process.kill().await
        };
        let (answer, killed) = tokio::join!(counter.call("Slow", json!([60_000])), killed);
        killed?;
        let text = answer?.err().context("an error")?;
        ensure!(!text.is_empty() && !text.contains("connection being closed"), "{text}");
        parting.all_stay().await
    });
}

/// Server connections to cut together.
const CUTS: usize = 4;

/// Less than the 30 s that the app takes to detect a loss, far more than an answer takes.
const ANSWERED_WITHIN: Duration = Duration::from_secs(25);

/// Number of lost server connections in a node's log.
fn closed_links(dial_in: &DialIn) -> usize {
    dial_in.node.process.log().matches("link lost").count()
}

#[test]
fn server_connections_that_only_the_node_has_lost_cost_no_client_and_no_answer() {
    run_heavy_dotnet_test(async |fixture, dotnet| {
        let (dial_in, host) = (DialIn::open(fixture).await?, Host::new(fixture, dotnet));
        let relay = Relay::start_for(b"GET /server/", dial_in.address()).await?;
        let app = host.app_at(&relay.address(), "one", &[]).await?;
        dial_in.linked(CONNECTIONS).await?;
        let mut guests = Vec::new();
        for number in 0..10 {
            guests.push(host.invite(JSON, &app, &format!("user-{number}")).await?);
        }
        // Each hub keeps some. The app does not redial: it takes 30 s to detect a loss.
        relay.decide(Fate::CutAtServer, CUTS);
        until(async || Ok((closed_links(&dial_in) >= CUTS).then_some(()))).await?;
        for guest in &guests {
            let answered = timeout(ANSWERED_WITHIN, guest.invoke("Echo", json!(["still here"]))).await;
            ensure!(answered.context("no answer")?? == json!("still here"));
        }
        ensure!(app.printed("disconnected") == 0, "{}", app.process.log());
        ensure!(closed_by_us(&dial_in.node).await? == 0.0);
        Ok(())
    });
}

#[test]
fn a_node_that_starts_again_is_an_endpoint_again_and_clients_come_back_by_themselves() {
    run_heavy_dotnet_test(async |fixture, dotnet| {
        let mut dial_ins = [DialIn::open(fixture).await?, DialIn::open_as(fixture, "dial-in-2").await?];
        let host = Host::new(fixture, dotnet);
        let app = host.app_of(&dial_ins, "one", &[]).await?;
        for dial_in in &dial_ins {
            dial_in.linked(CONNECTIONS).await?;
        }
        let mut clients = Vec::new();
        for number in 0..8 {
            let url = app.url(&format!("/bench?user=user-{number}"));
            let delays = [0, 100, 500, 1000, 2000, 4000, 8000];
            let builder = host.agents().client(Kind::JS[number % 2], &url).subscribe(&["Message"]);
            clients.push(builder.reconnect_after_ms(&delays).open().await?);
        }
        let at = async |dial_in: &DialIn| {
            Ok::<_, anyhow::Error>(dial_in.node.metrics().await?.sum("trunkline_client_connections", &[]))
        };
        let lost = at(&dial_ins[0]).await?;
        dial_ins[0].node.process.kill().await?;
        // Clients of the dead node reconnect to the other node, whose own clients notice nothing.
        until(async || Ok((at(&dial_ins[1]).await? >= clients.len() as f64).then_some(()))).await?;
        dial_ins[0].node.start_again(fixture).await?;
        dial_ins[0].linked(CONNECTIONS).await?;
        clients[0].send("Broadcast", json!(["all"])).await?;
        let mut reconnected = 0.0;
        for client in &mut clients {
            // A client that lost its connection reports this first.
            match client.next().await {
                Ok(message) => ensure!(message.arguments == [json!("all")], "{message:?}"),
                Err(_) => reconnected += 1.0,
            }
        }
        ensure!(reconnected == lost, "{reconnected} of {lost} that were at the dead node said that they were lost");
        Ok(())
    });
}
