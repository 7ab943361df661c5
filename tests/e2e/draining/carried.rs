//! Event streams and polls while a node drains: its own, and those relayed from or to another node.

use std::path::Path;

use anyhow::{Context, Result, bail};
use http::StatusCode;
use serde_json::{Value, json};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, POOL_SIZE, Proxy};
use trunkline_tests::harness::http_client::post;
use trunkline_tests::harness::http_transport::{CarriedClient, EventStream};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::{JSON_HANDSHAKE, RawClient};
use trunkline_tests::harness::scenario::{Fixture, run_test, until};
use trunkline_tests::harness::sockets::free_address;

use super::come_again;

/// Host name of the leaving node.
const NAME: &str = "leaver.test";
const HUB: &str = "/moves";

/// A draining node, a remaining one, and their app server.
struct Pair {
    app: AppServer,
    leaver: Proxy,
    stayer: Proxy,
}

impl Pair {
    /// Starts both nodes. The remaining node uses `hosts` as its `/etc/hosts`.
    async fn start(fixture: &Fixture, hosts: &Path) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Moves).await?;
        let [address, admin] = [free_address()?, free_address()?];
        let port = address.rsplit_once(':').context("a port")?.1;
        let (advertise, peer) = (format!("http://{NAME}:{port}"), format!("http://{admin}"));
        let more = ["--node-name", "stayer", "--peers", &peer];
        let stayer = fleet.proxy_at_name(hosts, app.address(), &more).await?;
        let peer = format!("http://{}", stayer.admin());
        let more = ["--node-name", "leaver", "--peers", &peer, "--advertise", &advertise];
        let mut leaver = fleet.proxy_of(&address, &admin, &[app.address()], &more)?;
        leaver.ready().await?;
        for node in [&stayer, &leaver] {
            node.linked(POOL_SIZE).await?;
            until(async || {
                let ready = node.metrics().await?.sum("trunkline_fleet_nodes", &[("state", "ready")]);
                Ok((ready == 2.0).then_some(()))
            })
            .await?;
        }
        Ok(Self { app, leaver, stayer })
    }

    /// Stops the node, and waits until it is draining.
    async fn begin_to_leave(&mut self) -> Result<()> {
        self.leaver.process.signal(Signal::Terminate).await?;
        self.leaver.readiness(StatusCode::SERVICE_UNAVAILABLE).await?;
        Ok(())
    }

    /// Releases all held calls.
    async fn release(&self) -> Result<()> {
        post(self.app.address(), "/release").await?;
        Ok(())
    }

    /// Waits until the node has ended without clients that did not leave.
    async fn has_left(&mut self) -> Result<()> {
        let status = self.leaver.process.ended().await?;
        assert!(status.success(), "{status}");
        let log = self.leaver.process.log();
        assert!(!log.contains("did not leave"), "{log}");
        Ok(())
    }
}

/// Writes the host names in the remaining node's file.
fn list(hosts: &Path, names: &str) -> Result<()> {
    // In place, because the file is mounted into the node's namespace.
    Ok(std::fs::write(hosts, format!("127.0.0.1 localhost\n{names}"))?)
}

/// Client with an event stream at one node and requests to another.
async fn stream(owner: &Proxy, by: &Proxy) -> Result<(CarriedClient, EventStream)> {
    let client = CarriedClient::negotiate(owner.address(), HUB).await?.at(by.address());
    let mut events = client.events().await?;
    call_of(&client, JSON_HANDSHAKE).await?;
    events.until("{}\u{1e}").await?;
    Ok((client, events))
}

async fn call_of(client: &CarriedClient, message: &str) -> Result<()> {
    let answer = client.send(message).await?;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    Ok(())
}

/// Call of a method that takes and returns a tag, which is also the invocation id.
fn call(method: &str, tag: &str) -> String {
    let call = json!({ "type": 1, "invocationId": tag, "target": method, "arguments": [tag] });
    format!("{call}\u{1e}")
}

fn answer(tag: &str) -> Value {
    json!({ "type": 3, "invocationId": tag, "result": tag })
}

/// Hub messages without keep-alives.
fn records(text: &str) -> Result<Vec<Value>> {
    let all: Vec<Value> = text.split_terminator('\u{1e}').map(serde_json::from_str).collect::<Result<_, _>>()?;
    Ok(all.into_iter().filter(|record| record["type"] != 6).collect())
}

/// All messages of a stream until its end.
async fn streamed(events: EventStream) -> Result<Vec<Value>> {
    records(&events.rest().await?.lines().filter_map(|line| line.strip_prefix("data: ")).collect::<String>())
}

/// All messages of polls, until the poll that reports the end of the connection.
async fn polled(client: &CarriedClient) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    loop {
        let answer = client.poll().await?;
        match answer.status {
            StatusCode::OK => all.extend(records(&answer.body)?),
            StatusCode::NO_CONTENT => return Ok(all),
            _ => bail!("{answer:?} after {all:?}"),
        }
    }
}

#[test]
fn a_node_that_leaves_is_reached_without_its_name_and_lets_its_clients_finish_their_calls() {
    run_test(async |fixture| {
        let hosts = fixture.folder().join("hosts");
        list(&hosts, &format!("127.0.0.1 {NAME}\n"))?;
        let mut nodes = Pair::start(fixture, &hosts).await?;
        let quiet = RawClient::join(nodes.leaver.address(), HUB).await?;
        let mut socket = RawClient::join(nodes.leaver.address(), HUB).await?;
        let (streamer, events) = stream(&nodes.leaver, &nodes.leaver).await?;
        let poller = CarriedClient::join(nodes.leaver.address(), HUB, JSON_HANDSHAKE).await?;
        socket.send_text(call("Pass", "held")).await?;
        for client in [&streamer, &poller] {
            call_of(client, &call("Pass", "held")).await?;
        }
        nodes.app.process.wait_for_lines("ran ", 3).await?;

        // Like Swarm, removes the name when the node is asked to stop.
        list(&hosts, "")?;
        nodes.begin_to_leave().await?;
        // First requests that the other node relays.
        let [streamer, poller] = [streamer, poller].map(|client| client.at(nodes.stayer.address()));
        for client in [&streamer, &poller] {
            call_of(client, &call("Run", "late")).await?;
        }
        assert_eq!(quiet.ending().await?.messages()?, [come_again()]);
        nodes.release().await?;
        for expected in [answer("held"), come_again()] {
            assert_eq!(socket.next_record().await?, expected);
        }
        let expected = [answer("held"), answer("late"), come_again()];
        assert_eq!(polled(&poller).await?, expected);
        assert_eq!(streamed(events).await?, expected);
        nodes.has_left().await
    });
}

#[test]
fn what_a_node_that_leaves_carries_for_another_ends_without_a_loss_and_does_not_hold_it() {
    run_test(async |fixture| {
        let hosts = fixture.folder().join("hosts");
        list(&hosts, &format!("127.0.0.1 {NAME}\n"))?;
        let mut nodes = Pair::start(fixture, &hosts).await?;
        let (_, quiet) = stream(&nodes.stayer, &nodes.leaver).await?;
        let (streamer, events) = stream(&nodes.stayer, &nodes.leaver).await?;
        let poller = CarriedClient::join(nodes.stayer.address(), HUB, JSON_HANDSHAKE).await?;
        call_of(&streamer, &call("Pass", "held")).await?;
        nodes.app.process.wait_for_lines("ran ", 1).await?;

        let carried = poller.at(nodes.leaver.address());
        let waiting = tokio::spawn(async move { carried.poll().await });
        nodes.begin_to_leave().await?;
        let answered = waiting.await??;
        assert_eq!((answered.status, answered.body.as_str()), (StatusCode::OK, ""), "its client polls again");
        assert_eq!(streamed(quiet).await?, [come_again()]);
        nodes.release().await?;
        assert_eq!(streamed(events).await?, [answer("held"), come_again()]);
        nodes.has_left().await?;
        call_of(&poller, &call("Run", "later")).await?;
        assert_eq!(records(&poller.poll().await?.body)?, [answer("later")]);
        Ok(())
    });
}
