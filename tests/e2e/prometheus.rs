//! A real Prometheus scrapes two nodes and an app server. Its values must equal the clients' own counts.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::http_client::get;
use trunkline_tests::harness::prometheus::{Prometheus, check};
use trunkline_tests::harness::raw::{RECORD_SEPARATOR, RawClient};
use trunkline_tests::harness::scenario::{Fixture, profile_folder, run_test};

const CALLS: usize = 50;

const BROADCASTS: usize = 20;

/// Clients of the load tester at each node.
const LOAD_CLIENTS: u64 = 10;

/// Messages sent and received by a client, by its own count.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Seen {
    messages: usize,
    bytes: usize,
}

impl Seen {
    fn add(&mut self, text: &str) {
        self.messages += text.matches(RECORD_SEPARATOR).count();
        self.bytes += text.len();
    }

    fn and(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, bytes: self.bytes + other.bytes }
    }
}

/// A client that counts.
struct Counting {
    client: RawClient,
    sent: Seen,
    received: Seen,
}

impl Counting {
    async fn join(address: &str) -> Result<Self> {
        let client = RawClient::join(address, "/bench").await?;
        Ok(Self { client, sent: Seen::default(), received: Seen::default() })
    }

    async fn send(&mut self, message: &Value) -> Result<()> {
        let text = format!("{message}{RECORD_SEPARATOR}");
        self.sent.add(&text);
        self.client.send_text(text).await
    }

    /// Waits for this many messages; pings of the proxy don't count.
    async fn receive(&mut self, messages: usize) -> Result<()> {
        let until = self.received.messages + messages;
        while self.received.messages < until {
            let text = self.client.next_message().await?.into_text()?;
            if text.as_str() != format!("{{\"type\":6}}{RECORD_SEPARATOR}") {
                self.received.add(&text);
            }
        }
        ensure!(self.received.messages == until, "{} messages instead of {until}", self.received.messages);
        Ok(())
    }
}

#[test]
fn what_prometheus_sees_is_what_clients_have_sent_and_received() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let [one, other] = fleet.two_proxies(&app).await?;
        let targets = [("one", one.admin()), ("other", other.admin()), ("app", app.address())];
        let prometheus = Prometheus::start(fixture, &targets).await?;
        let mut clients = Vec::new();
        for proxy in [&one, &one, &other] {
            clients.push(Counting::join(proxy.address()).await?);
        }
        for client in &mut clients {
            for number in 0..CALLS {
                let text = "é".repeat(number * 7);
                let id = number.to_string();
                client.send(&json!({"type": 1, "invocationId": id, "target": "Echo", "arguments": [text]})).await?;
                client.receive(1).await?;
            }
        }
        for number in 0..BROADCASTS {
            clients[0].send(&json!({"type": 1, "target": "Broadcast", "arguments": [number]})).await?;
            for client in &mut clients {
                client.receive(1).await?;
            }
        }
        clients[1].send(&json!({"type": 1, "invocationId": "x", "target": "Nowhere", "arguments": []})).await?;
        clients[1].receive(1).await?;
        let sent = clients.iter().fold(Seen::default(), |all, client| all.and(client.sent));
        let received = clients.iter().fold(Seen::default(), |all, client| all.and(client.received));
        for (expression, value) in [
            ("sum(trunkline_client_messages_total)", sent.messages),
            ("sum(trunkline_client_bytes_total{direction='up'})", sent.bytes),
            ("sum(trunkline_deliveries_total)", received.messages),
            ("sum(trunkline_client_bytes_total{direction='down'})", received.bytes),
            ("sum(trunkline_client_connections{hub='bench',transport='WebSockets',protocol='json'})", clients.len()),
            ("trunkline_client_connections{job='other',transport='WebSockets',protocol='json'}", 1),
            ("sum(trunkline_handshake_duration_seconds_count{stage='client'})", clients.len()),
            ("sum(trunkline_handshake_duration_seconds_count{stage='app'})", clients.len()),
            ("sum(trunkline_app_connections)", clients.len()),
            ("sum(trunkline_app_invocations_total{method='Echo',outcome='ok'})", clients.len() * CALLS),
            ("sum(trunkline_app_invocation_duration_seconds_count{method='Echo'})", clients.len() * CALLS),
            ("sum(trunkline_app_invocations_total{method='unknown',outcome='unbound'})", 1),
            // A broadcast is one frame per node, and reaches all clients.
            ("sum(trunkline_sends_total{kind='all'})", 2 * BROADCASTS),
            ("sum(trunkline_send_receivers_sum)", clients.len() * BROADCASTS),
        ] {
            prometheus.shows(expression, value as f64).await?;
        }
        // Both ends of the links count equal bytes.
        for (direction, app_frames) in
            [("up", "trunkline_app_frames_up_total"), ("down", "trunkline_app_frames_down_total")]
        {
            let labels = format!("{{direction='{direction}',kind='message'}}");
            let bytes = format!("sum(trunkline_app_link_bytes_total{{direction='{direction}'}})");
            let differences = format!(
                "abs(sum(trunkline_link_frames_total{labels}) - sum({app_frames})) + \
                 abs(sum(trunkline_link_bytes_total{labels}) - {bytes})"
            );
            prometheus.shows(&differences, 0.0).await?;
        }
        for (name, least) in [("trunkline_link_round_trip_seconds_count", 10), ("process_open_fds", 10)] {
            let seen = prometheus.query(&format!("sum({name}{{job=~'one|other'}}) >= {least}")).await?;
            assert!(seen.is_some(), "{name}");
        }
        Ok(())
    });
}

#[test]
fn the_load_tester_and_prometheus_agree() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let [one, other] = fleet.two_proxies(&app).await?;
        let targets = [("one", one.admin()), ("other", other.admin()), ("app", app.address())];
        let prometheus = Prometheus::start(fixture, &targets).await?;
        let clients = 2 * LOAD_CLIENTS;
        let servers = format!("-s {} -s {} -c {LOAD_CLIENTS} -r 2 -i 50 -u 0.3 -d 0.1", one.address(), other.address());
        let counts = load(fixture, &format!("broadcast {servers}")).await?;
        prometheus.shows("sum(trunkline_client_messages_total)", counts.sent as f64).await?;
        prometheus.shows("sum(trunkline_deliveries_total)", counts.received as f64).await?;
        // Each client answers each ping of the app, and makes three calls.
        let echoes = load(fixture, &format!("echo {servers}")).await?;
        let (up, down) = (echoes.sent / 2 + 3 * clients, echoes.received / 2 + 3 * clients);
        prometheus.shows("sum(trunkline_client_messages_total)", (counts.sent + up) as f64).await?;
        prometheus.shows("sum(trunkline_deliveries_total)", (counts.received + down) as f64).await?;
        prometheus.shows("sum(trunkline_client_connections_opened_total)", (2 * clients) as f64).await?;
        let closed = "sum(trunkline_client_connections_closed_total{cause='client_closed'})";
        prometheus.shows(closed, (2 * clients) as f64).await?;
        prometheus.shows("sum(trunkline_client_connections_closed_total)", (2 * clients) as f64).await?;
        prometheus
            .shows("sum(trunkline_app_connections_closed_total{cause='client_closed'})", (2 * clients) as f64)
            .await
    });
}

#[test]
fn promtool_finds_no_fault_with_nodes_and_app_servers() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;
        let mut client = RawClient::join(proxy.address(), "/bench").await?;
        client.call("Echo", json!([1])).await?;
        client.close().await?;
        // A refused request, so that these metrics have samples too.
        assert_eq!(get(proxy.address(), "/bench?id=x").await?.status, 404);
        for address in [proxy.admin(), app.address()] {
            let answer = get(address, "/metrics").await?;
            assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
            check(&answer.body).await.with_context(|| format!("metrics of {address}"))?;
        }
        assert!(check("bad_counter 1\n").await.is_err(), "promtool sees what is bad");
        Ok(())
    });
}

/// Counts of the load tester.
struct Counts {
    sent: u64,
    received: u64,
}

async fn load(fixture: &Fixture, arguments: &str) -> Result<Counts> {
    let json = fixture.log_path("report").with_extension("json");
    let mut command = Command::new(profile_folder()?.join("trunkline-load"));
    command.args(arguments.split_whitespace()).arg("--json").arg(&json);
    let output = command.kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let report: Value = serde_json::from_slice(&std::fs::read(&json)?)?;
    let count = |name: &str| report["counts"][name].as_u64().with_context(|| format!("no {name} in the report"));
    Ok(Counts { sent: count("sent")?, received: count("received")? })
}
