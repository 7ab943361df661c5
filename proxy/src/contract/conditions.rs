//! Conditions: each fault is reported by the log, `/readyz` and metrics while it lasts, and not after.

use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use serde_json::json;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::{HubManifest, Transport};

use super::app::data_for;
use super::client::Client;
use super::fixture::{Fixture, KEY, paused, settings};
use super::fleet_nodes::{self, FleetNode};
use super::http::{HttpConnection, request_with};
use super::inbound_links::{DialInLink, ONE, dial_in_nodes};
use super::webhook_server::WebhookServer;
use super::webhooks;
use crate::edge::admin::families;
use crate::edge::observer::{Observer, Readiness, UpstreamProblem, UpstreamProblems};
use crate::engine::shard::{ShardSender, Shared};
use crate::features::webhook::Webhooks;
use crate::fleet::{Fleet, NodeStores};
use crate::ground::condition::{ConditionKind, Finding, NoticeKind};
use crate::ground::config::{GivenKeys, SecretSources, Settings};
use crate::ground::metrics::ClientProtocol;
use crate::ground::net::connector::MemoryNetwork;
use crate::node::condition_watch::ConditionWatch;
use crate::node::{hub_sweep, key_reload};

/// Time after the start of a node in which missing app servers are normal.
const START_S: u64 = 61;

/// Evaluation of the conditions of a node, with its channels.
struct Watched {
    readiness: Readiness,
    fleet: Fleet,
    webhooks: Arc<Webhooks>,
    watch: ConditionWatch,
    problems: Arc<UpstreamProblems>,
    /// Changes of conditions, as the log shows them.
    log: Vec<(NoticeKind, ConditionKind)>,
}

fn fleet_of(shared: &Arc<Shared>) -> Fleet {
    Fleet::new(shared.clone(), NodeStores::with_keys_alone(&shared.settings), ([127, 0, 0, 1], 8090).into())
}

impl Watched {
    fn new(fixture: &Fixture) -> Self {
        Self::with(fixture, fixture.fleet())
    }

    /// Watches a node that has started long ago.
    async fn after_start(fixture: &Fixture) -> Self {
        let mut watched = Self::new(fixture);
        watched.pass(START_S).await;
        watched
    }

    fn with(fixture: &Fixture, fleet: Fleet) -> Self {
        Self::of(&fixture.shared, fixture.webhooks.clone(), fleet)
    }

    fn of(shared: &Arc<Shared>, webhooks: Arc<Webhooks>, fleet: Fleet) -> Self {
        let problems = Arc::<UpstreamProblems>::default();
        let watch = ConditionWatch::new(shared.clone(), fleet.clone(), webhooks.clone(), problems.clone());
        let readiness = Readiness::new(shared.clone(), problems.clone());
        Self { readiness, fleet, webhooks, watch, problems, log: Vec::new() }
    }

    /// Evaluates once a second for this time.
    async fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            // sleep: time is paused, and passing it is what these tests are about.
            sleep(Duration::from_secs(1)).await;
            let notices = self.watch.evaluate().await;
            self.log.extend(notices.iter().map(|notice| (notice.kind, notice.condition.kind)));
        }
    }

    /// Value of a metric of a condition or hub.
    fn metric(&self, name: &str, label: &str) -> Option<u64> {
        let families = families(&self.readiness, &self.fleet, &self.webhooks, &Default::default());
        let family = families.iter().find(|family| family.name() == name)?;
        let is_labelled =
            |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|pair| pair.value() == label);
        family.get_metric().iter().find(is_labelled)?.get_gauge().get_value().to_string().parse().ok()
    }

    /// Line of `/readyz` about a condition, if active. All channels agree.
    fn line(&self, kind: ConditionKind) -> Option<String> {
        let name = kind.entry().name;
        let lines = self.readiness.warnings();
        let line = lines.iter().find(|line| line.starts_with(name)).cloned();
        assert_eq!(self.metric("trunkline_condition", name), Some(u64::from(line.is_some())), "{lines:?}");
        let last = self.log.iter().rfind(|(_, logged)| *logged == kind).map(|(notice, _)| *notice);
        assert_eq!(matches!(last, Some(NoticeKind::Began | NoticeKind::Lasts)), line.is_some(), "{:?}", self.log);
        line
    }

    /// Passes this time, and returns the line about a condition, which has begun by then.
    async fn begun(&mut self, kind: ConditionKind, within_s: u64) -> String {
        self.pass(within_s).await;
        self.line(kind).unwrap_or_else(|| panic!("{kind:?} has not begun: {:?}", self.readiness.conditions()))
    }

    /// Passes some seconds, after which a condition has ended.
    async fn ended(&mut self, kind: ConditionKind) {
        self.pass(5).await;
        assert_eq!(self.line(kind), None);
        assert_eq!(self.log.last(), Some(&(NoticeKind::Ended, kind)));
    }
}

#[tokio::test(crate = "paused")]
async fn a_hub_whose_last_app_server_crashes_is_reported_with_its_waiting_clients_until_another_one_comes() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let mut watched = Watched::after_start(&fixture).await;
    let _client = link.client().await;
    assert_eq!(watched.log, []);
    link.retire().await;
    let line = watched.begun(ConditionKind::HubWithoutAppServer, 5).await;
    assert!(line.contains("chat") && line.contains("waiting clients: 1, closed in 5"), "{line}");
    assert_eq!(watched.metric("trunkline_hub_served", "chat"), Some(0));
    let _again = fixture.server("app-2").await;
    watched.ended(ConditionKind::HubWithoutAppServer).await;
}

#[tokio::test(crate = "paused")]
async fn a_node_that_has_just_started_reports_the_loss_of_a_hub_that_it_served_and_misses_no_other() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let _unlinked = fixture.app("other", vec![HubManifest::new("auction", "/auction")]);
    let mut watched = Watched::new(&fixture);
    watched.pass(1).await;
    let _client = link.client().await;
    link.retire().await;
    let line = watched.begun(ConditionKind::HubWithoutAppServer, 5).await;
    assert!(line.contains("chat"), "{line}");
    watched.pass(30).await;
    assert_eq!(watched.log, [(NoticeKind::Began, ConditionKind::HubWithoutAppServer)]);
}

#[tokio::test(crate = "paused")]
async fn a_hub_that_had_clients_keeps_its_condition_and_series_after_its_removal() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    spawn_local(hub_sweep::run(fixture.shared.clone(), fixture.webhooks.clone()));
    let _other = fixture.server_with("other", HubManifest::new("auction", "/auction")).await;
    let mut watched = Watched::after_start(&fixture).await;
    let _client = link.client().await;
    watched.pass(1).await;
    link.retire().await;
    watched.pass(180).await;
    assert!(fixture.shared.hubs.find("/chat").is_none(), "the hub is removed");
    assert!(watched.line(ConditionKind::HubWithoutAppServer).unwrap().contains("no client waits"));
    assert_eq!(watched.metric("trunkline_hub_served", "chat"), Some(0));
    assert_eq!(watched.metric("trunkline_client_connections", "chat"), Some(0));
}

#[tokio::test(crate = "paused")]
async fn a_starting_node_and_a_short_lived_hub_without_clients_are_no_condition() {
    let fixture = Fixture::start();
    let mut watched = Watched::after_start(&fixture).await;
    let mut app = fixture.server_with("app-1", HubManifest::new("preview", "/preview")).await;
    watched.pass(20).await;
    app.retire().await;
    watched.pass(20).await;
    assert_eq!(watched.log, []);
}

#[tokio::test(crate = "paused")]
async fn an_app_server_that_does_not_respond_is_reported_after_ten_seconds() {
    let (fixture, link) = Fixture::start().with_chat().await;
    let mut watched = Watched::after_start(&fixture).await;
    assert_eq!(watched.log, []);
    link.set_reading(false);
    watched.pass(8).await;
    assert_eq!(watched.log, []);
    let line = watched.begun(ConditionKind::AppServerSilent, 3).await;
    assert!(line.contains("app-1") && line.contains("hubs: chat"), "{line}");
    link.set_reading(true);
    watched.ended(ConditionKind::AppServerSilent).await;
}

#[tokio::test(crate = "paused")]
async fn lost_links_are_one_condition_of_their_app_server() {
    let settings = Settings { pool_size: 3, ..settings() };
    let fixture = Fixture::with(settings, 1);
    let mut app = fixture.app("app-1", vec![HubManifest::new("chat", "/chat")]);
    let (_one, two, three) = (app.link().await, app.link().await, app.link().await);
    let mut watched = Watched::after_start(&fixture).await;
    two.cut();
    three.cut();
    let line = watched.begun(ConditionKind::AppServerLinksLost, 7).await;
    assert!(line.contains("app-1") && line.contains("1 of 3 links are open"), "{line}");
    assert_eq!(watched.metric("trunkline_condition_subjects", "app-server-links-lost"), Some(1));
    let _links = (app.link_anew().await, app.link().await);
    watched.ended(ConditionKind::AppServerLinksLost).await;
}

#[tokio::test(crate = "paused")]
async fn a_refused_key_and_a_silent_app_server_are_distinguished() {
    let (fixture, _link) = Fixture::start().with_chat().await;
    let mut watched = Watched::after_start(&fixture).await;
    let problem = |text: &str, kind| Some(UpstreamProblem { text: text.into(), kind });
    watched.problems.set("http://a:5000", problem("refuses our access key", ConditionKind::AppServerRefusesKey));
    watched.problems.set("http://b:5000", problem("connection refused", ConditionKind::AppServerUnreachable));
    let line = watched.begun(ConditionKind::AppServerRefusesKey, 4).await;
    assert!(line.contains("http://a:5000") && line.contains("--access-key"), "{line}");
    assert_eq!(watched.line(ConditionKind::AppServerUnreachable), None, "it may be restarting");
    let line = watched.begun(ConditionKind::AppServerUnreachable, 30).await;
    assert!(line.contains("http://b:5000: "), "{line}");
    watched.problems.set("http://a:5000", None);
    watched.ended(ConditionKind::AppServerRefusesKey).await;
}

/// Status of an app server's upgrade with a token of no key.
async fn dial_in_with_wrong_token(fixture: &Fixture, hub: &str) -> StatusCode {
    let headers = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("authorization", "Bearer of.no.key"),
    ];
    let upgrade = request_with("GET", &format!("/server/?hub={hub}"), &headers);
    HttpConnection::open(fixture).await.exchange(upgrade).await.0
}

#[tokio::test(crate = "paused")]
async fn a_refused_app_server_that_dials_in_is_reported_with_hub_and_address() {
    let (fixture, _link) = Fixture::with(Settings { accepts_dial_in: true, ..settings() }, 1).with_chat().await;
    let mut watched = Watched::new(&fixture);
    let status = dial_in_with_wrong_token(&fixture, "chat").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let line = watched.begun(ConditionKind::AppServerRefused, 1).await;
    assert!(line.contains(": chat: ") && line.contains("from 192.0.2.1, status 401"), "{line}");
    assert_eq!(line.matches("AccessKey").count(), 1, "{line}");
    watched.pass(90).await;
    watched.ended(ConditionKind::AppServerRefused).await;
}

#[tokio::test(crate = "paused")]
async fn refused_app_servers_of_an_unknown_hub_are_reported_with_its_name_and_count_as_no_clients() {
    let fixture = Fixture::set(|settings| settings.accepts_dial_in = true);
    let mut watched = Watched::new(&fixture);
    for _ in 0..20 {
        assert_eq!(dial_in_with_wrong_token(&fixture, "strange").await, StatusCode::UNAUTHORIZED);
        watched.pass(1).await;
    }
    assert_eq!(watched.line(ConditionKind::ClientsRefused), None);
    let line = watched.line(ConditionKind::AppServerRefused).unwrap();
    assert!(line.contains(": (unknown hub): ") && line.contains("hub \"strange\""), "{line}");
    let conditions = &fixture.shared.reports.conditions;
    let is_listed = || conditions.list().iter().any(|it| it.kind == ConditionKind::AppServerRefused);
    conditions.clear_refused_app("other");
    watched.pass(60).await;
    assert!(is_listed(), "an app server of another hub was accepted");
    conditions.clear_refused_app("Strange");
    watched.ended(ConditionKind::AppServerRefused).await;
}

#[tokio::test(crate = "paused")]
async fn a_refused_app_server_is_reported_until_one_of_its_hub_is_accepted() {
    let (_network, nodes) = dial_in_nodes(1).await;
    let mut watched = Watched::with(&nodes[0].fixture, nodes[0].fleet.clone());
    DialInLink::dial_by("another key, long enough", &nodes[0], "app", (ONE, None)).await.map(drop).unwrap_err();
    watched.begun(ConditionKind::AppServerRefused, 2).await;
    let _link = DialInLink::open(&nodes[0], "app", ONE).await;
    watched.ended(ConditionKind::AppServerRefused).await;
}

#[tokio::test(crate = "paused")]
async fn an_app_server_that_dials_in_to_the_hub_of_a_webhook_is_reported() {
    let network = MemoryNetwork::default();
    let webhooks = webhooks::webhooks(&["bench=http://app.example:5000/{event}"]);
    let settings = Settings { accepts_dial_in: true, webhooks, ..fleet_nodes::peers(&[1]) };
    let node = fleet_nodes::FleetNode::start(&network, 1, settings).await;
    let mut watched = Watched::with(&node.fixture, node.fleet.clone());
    DialInLink::dial_by(KEY, &node, "app", (ONE, None)).await.map(drop).unwrap_err();
    let line = watched.begun(ConditionKind::AppServerRefused, 2).await;
    assert!(line.contains("bench: ") && line.contains("app from 192.0.2.1: "), "{line}");
    assert!(line.contains("--upstream-webhook"), "{line}");
}

#[tokio::test(crate = "paused")]
async fn a_node_with_another_clock_is_reported_by_the_node_that_refuses_it() {
    super::fleet_nodes::by_network();
    let (_network, nodes) = fleet_nodes::nodes(2).await;
    let mut watched = Watched::with(&nodes[0].fixture, nodes[0].fleet.clone());
    let clocks = &nodes[0].fixture.shared.reports.clocks;
    clocks.note([10, 0, 0, 2].into(), -7);
    let line = watched.begun(ConditionKind::NodeClockDiffers, 4).await;
    assert!(line.contains(": n2: ") && line.contains("the node at 10.0.0.2 is 7 minutes behind"), "{line}");
    watched.pass(28).await;
    watched.ended(ConditionKind::NodeClockDiffers).await;
    clocks.note([10, 0, 0, 9].into(), 12);
    let line = watched.begun(ConditionKind::NodeClockDiffers, 4).await;
    assert!(line.contains(": 10.0.0.9: ") && line.contains("12 minutes ahead"), "{line}");
    // A refused hello is noted again while the repaired node opens its channel.
    clocks.note([10, 0, 0, 9].into(), 12);
    clocks.agree([10, 0, 0, 9].into());
    watched.ended(ConditionKind::NodeClockDiffers).await;
}

#[tokio::test(crate = "paused")]
async fn waiting_clients_of_lost_app_servers_that_dial_in_are_in_the_snapshot() {
    let (_network, nodes) = dial_in_nodes(1).await;
    let readiness = Readiness::new(nodes[0].fixture.shared.clone(), Arc::default());
    let observer = Observer::new(readiness, nodes[0].fleet.clone());
    let mut link = DialInLink::open(&nodes[0], "app", ONE).await;
    let _client = link.client(&nodes[0], "ann").await;
    let waiting = async || {
        // sleep: snapshots are kept for a moment.
        sleep(Duration::from_secs(3)).await;
        let fleet = observer.fleet().await.unwrap();
        fleet.nodes[0].hubs.iter().map(|hub| hub.homeless).sum::<u64>()
    };
    assert_eq!(waiting().await, 0);
    link.sever();
    assert_eq!(waiting().await, 1);
}

#[tokio::test(crate = "paused")]
async fn a_failing_webhook_and_refused_signatures_are_distinguished() {
    let network = MemoryNetwork::default();
    let fixture = webhooks::fixture(&network, webhooks::plain());
    let mut server = WebhookServer::listen(&network, webhooks::APP);
    let mut watched = Watched::new(&fixture);
    let mut client = webhooks::connect(&fixture, "/chat").await;
    server.next().await.answer(204, "");
    let mut others = Vec::new();
    let mut answer = async |watched: &mut Watched, server: &mut WebhookServer, status: u16, count: usize| {
        for _ in 0..count {
            client.send(&webhooks::cast("Say", "hi")).await;
            server.next_at("/chat/messages/Say").await.answer(status, "");
        }
        watched.pass(4).await;
    };
    answer(&mut watched, &mut server, 500, 1).await;
    let line = watched.line(ConditionKind::WebhookFails).unwrap();
    assert!(line.contains("chat") && line.contains("status code 500"), "{line}");
    answer(&mut watched, &mut server, 204, 1).await;
    // Clients can cause some: calls of unknown methods, and calls without permission.
    answer(&mut watched, &mut server, 404, 19).await;
    answer(&mut watched, &mut server, 401, 19).await;
    assert_eq!(watched.line(ConditionKind::WebhookFails), None);
    assert_eq!(watched.line(ConditionKind::WebhookRefusesSignature), None);
    answer(&mut watched, &mut server, 404, 1).await;
    answer(&mut watched, &mut server, 401, 1).await;
    assert_eq!(watched.line(ConditionKind::WebhookFails), None);
    assert_eq!(watched.line(ConditionKind::WebhookRefusesSignature), None, "one client raises no alarm");
    for _ in 0..2 {
        let mut other = webhooks::connect(&fixture, "/chat").await;
        server.next_at("/chat/connections/connected").await.answer(204, "");
        other.send(&webhooks::cast("Say", "hi")).await;
        server.next_at("/chat/messages/Say").await.answer(401, "");
        others.push(other);
    }
    watched.pass(4).await;
    let line = watched.line(ConditionKind::WebhookRefusesSignature).unwrap();
    assert!(line.contains("--webhook-secret"), "{line}");
    answer(&mut watched, &mut server, 204, 1).await;
    watched.ended(ConditionKind::WebhookRefusesSignature).await;
}

#[tokio::test(crate = "paused")]
async fn each_way_in_which_calls_fail_is_named_though_events_are_answered() {
    for (status, body, shown) in [
        (500, "oh no", "got status 500, type \"\", body \"oh no\""),
        (302, "", "redirects are not followed"),
        (201, "", "got status 201"),
        (200, "<html>\nwarning: x", "body \"<html>\u{fffd}warning: x\""),
        (200, "{\"type\":7}", "body \"{'type':7}\""),
    ] {
        let network = MemoryNetwork::default();
        let fixture = webhooks::fixture(&network, webhooks::plain());
        let mut server = WebhookServer::listen(&network, webhooks::APP);
        let mut watched = Watched::new(&fixture);
        for _ in 0..5 {
            let mut client = webhooks::connect(&fixture, "/chat").await;
            client.send("{\"type\":1,\"invocationId\":\"1\",\"target\":\"Say\",\"arguments\":[]}\u{1e}").await;
            server.next_at("/chat/messages/Say").await.answer(status, body);
            assert!(client.text().await.contains("Invocation failed"), "{status}");
            client.close().await;
            server.next_at("/chat/connections/disconnected").await.answer(204, "");
            watched.pass(1).await;
        }
        let line = watched.line(ConditionKind::WebhookFails).unwrap_or_else(|| panic!("no alarm: {status} {body}"));
        assert!(line.contains("messages/\"Say\"") && line.contains(shown), "{line}");
    }
}

#[tokio::test(crate = "paused")]
async fn errors_that_a_back_end_returns_are_no_condition() {
    let network = MemoryNetwork::default();
    let fixture = webhooks::fixture(&network, webhooks::plain());
    let mut server = WebhookServer::listen(&network, webhooks::APP);
    let mut watched = Watched::new(&fixture);
    let mut client = webhooks::connect(&fixture, "/chat").await;
    server.next().await.answer(204, "");
    for id in 0..40 {
        client
            .send(&format!("{{\"type\":1,\"invocationId\":\"{id}\",\"target\":\"Bid\",\"arguments\":[]}}\u{1e}"))
            .await;
        let error = format!("{{\"type\":3,\"invocationId\":\"{id}\",\"error\":\"too low\"}}");
        server.next_at("/chat/messages/Bid").await.answer(200, error);
        assert!(client.text().await.contains("too low"));
        watched.pass(1).await;
    }
    assert_eq!(watched.log, []);
}

#[tokio::test(crate = "paused")]
async fn a_memory_budget_above_nine_tenths_is_reported_by_its_flag() {
    let fixture = Fixture::start();
    let mut watched = Watched::new(&fixture);
    let most = fixture.shared.settings.outbox.total_bytes;
    fixture.shared.counters_of(0).outbox_bytes.set(most);
    let line = watched.begun(ConditionKind::MemoryBudgetHigh, 7).await;
    assert!(line.contains("--outbox-total-max-bytes"), "{line}");
    fixture.shared.counters_of(0).outbox_bytes.set(0);
    watched.ended(ConditionKind::MemoryBudgetHigh).await;
}

#[tokio::test(crate = "paused")]
async fn keys_that_can_not_be_read_again_are_reported_until_they_can() {
    let fixture = Fixture::start();
    let file = std::env::temp_dir().join(format!("trunkline-condition-keys-{}", std::process::id()));
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("the access key of a file of keys");
    let access = GivenKeys { typed: Vec::new(), files: vec![file.clone()] };
    spawn_local(key_reload::run(
        (fixture.shared.clone(), fixture.admission.clone()),
        fixture.webhooks.clone(),
        SecretSources { access, ..SecretSources::default() },
    ));
    let mut watched = Watched::new(&fixture);
    watched.pass(20).await;
    write("short");
    let line = watched.begun(ConditionKind::FileUnreadable, 20).await;
    assert!(line.contains("keys and secrets"), "{line}");
    write("another access key of a file of keys");
    watched.pass(20).await;
    watched.ended(ConditionKind::FileUnreadable).await;
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test(crate = "paused")]
async fn a_shard_without_a_tick_makes_the_node_not_ready() {
    let shared = Shared::alone(settings(), vec![ShardSender::new().0]);
    let mut watched = Watched::of(&shared, Arc::new(Webhooks::new(&shared)), fleet_of(&shared));
    watched.pass(5).await;
    assert_eq!(watched.log, []);
    let line = watched.begun(ConditionKind::ShardStuck, 2).await;
    assert!(line.contains("shard-0"), "{line}");
    assert!(watched.readiness.reasons_not_ready()[0].contains("shard-0"));
    shared.counters_of(0).ticks.increment();
    watched.ended(ConditionKind::ShardStuck).await;
}

#[tokio::test(crate = "paused")]
async fn a_node_of_the_fleet_that_is_killed_is_reported_by_its_name() {
    let (network, nodes) = fleet_nodes::nodes(2).await;
    let mut watched = Watched::with(&nodes[0].fixture, nodes[0].fleet.clone());
    watched.pass(START_S).await;
    assert_eq!(watched.log, []);
    nodes[1].kill(&network);
    let line = watched.begun(ConditionKind::NodeMissing, 10).await;
    assert!(line.contains("n2"), "{line}");
}

#[tokio::test(crate = "paused")]
async fn killed_and_frozen_nodes_are_missed_in_the_first_minute_of_a_node_that_was_linked_to_them() {
    let (network, nodes) = fleet_nodes::nodes(3).await;
    let mut watched = Watched::with(&nodes[0].fixture, nodes[0].fleet.clone());
    watched.pass(2).await;
    nodes[1].kill(&network);
    nodes[2].cut(true);
    watched.pass(10).await;
    assert!(nodes[0].fixture.shared.uptime().as_secs() < START_S, "it has just started");
    let missing = |watched: &Watched| {
        let conditions = watched.readiness.conditions().into_iter();
        conditions.filter(|one| one.kind == ConditionKind::NodeMissing).map(|one| one.subject).collect::<Vec<_>>()
    };
    assert_eq!(missing(&watched), ["n2", "n3"]);
    watched.pass(80).await;
    assert_eq!(missing(&watched), ["n2", "n3"]);
    let changes = watched.log.iter().filter(|(notice, _)| *notice == NoticeKind::Ended).count();
    assert_eq!(changes, 0, "reported without a gap: {:?}", watched.log);
}

#[tokio::test(crate = "paused")]
async fn a_node_that_was_never_linked_is_missed_after_the_first_minute() {
    super::fleet_nodes::by_network();
    let node = FleetNode::start(&MemoryNetwork::default(), 1, fleet_nodes::peers(&[1, 2])).await;
    let mut watched = Watched::with(&node.fixture, node.fleet.clone());
    watched.pass(START_S).await;
    assert_eq!(watched.log, []);
    let line = watched.begun(ConditionKind::NodeMissing, 6).await;
    assert!(line.contains("http://10.0.0.2:8090"), "{line}");
}

#[tokio::test(crate = "paused")]
async fn a_drain_reports_no_missing_app_server() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let mut watched = Watched::after_start(&fixture).await;
    let _client = link.client().await;
    fixture.shared.begin_drain();
    link.retire().await;
    watched.pass(30).await;
    assert_eq!(watched.log, []);
}

#[tokio::test(crate = "paused")]
async fn an_app_server_that_is_lost_while_another_one_serves_is_missed_until_it_has_a_successor() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let _other = fixture.server("app-2").await;
    let mut watched = Watched::after_start(&fixture).await;
    link.retire().await;
    let line = watched.begun(ConditionKind::AppServerMissing, 33).await;
    assert!(line.contains("app-1") && line.contains("1 of 2 are left (hubs: chat)"), "{line}");
    let _again = fixture.server("app-3").await;
    watched.ended(ConditionKind::AppServerMissing).await;
}

#[tokio::test(crate = "paused")]
async fn links_that_are_full_are_reported_by_their_app_server() {
    let fixture = Fixture::set(|settings| settings.links.outbox_max_bytes = 1024);
    let (fixture, mut link) = fixture.with_chat().await;
    let mut watched = Watched::new(&fixture);
    let mut client = link.client().await;
    watched.pass(START_S).await;
    assert_eq!(watched.log, []);
    link.set_reading(false);
    let flood = async {
        loop {
            client.send(&webhooks::cast("Say", &"x".repeat(10_000))).await;
        }
    };
    assert!(timeout(Duration::from_secs(1), flood).await.is_err(), "the client is not read any more");
    let line = watched.begun(ConditionKind::LinksFull, 12).await;
    assert!(line.contains("app-1") && line.contains("chat"), "{line}");
    link.set_reading(true);
    watched.pass(10).await;
    assert_eq!(watched.line(ConditionKind::LinksFull), None);
}

#[tokio::test(crate = "paused")]
async fn a_webhook_that_answers_slowly_is_reported() {
    let network = MemoryNetwork::default();
    let fixture = webhooks::fixture(&network, webhooks::plain());
    let mut server = WebhookServer::listen(&network, webhooks::APP);
    let mut watched = Watched::new(&fixture);
    let mut client = webhooks::connect(&fixture, "/chat").await;
    server.next().await.answer(204, "");
    let mut call = async |watched: &mut Watched, seconds| {
        client.send(&webhooks::cast("Say", "hi")).await;
        let asked = server.next_at("/chat/messages/Say").await;
        watched.pass(seconds).await;
        asked.answer(204, "");
        watched.pass(1).await;
    };
    // Fast answers between slow ones change nothing.
    for seconds in [6, 0, 6, 0, 6, 0, 6] {
        call(&mut watched, seconds).await;
    }
    assert!(watched.line(ConditionKind::WebhookSlow).is_some(), "{:?}", watched.log);
    for _ in 0..3 {
        call(&mut watched, 0).await;
    }
    watched.ended(ConditionKind::WebhookSlow).await;
}

#[tokio::test(crate = "paused")]
async fn clients_that_are_refused_at_a_high_rate_are_reported_with_their_cause_and_reason() {
    let (fixture, _link) = Fixture::start().with_chat().await;
    let mut watched = Watched::new(&fixture);
    for _ in 0..20 {
        let bad_token = [("authorization", "Bearer of.no.key")];
        let negotiate = request_with("POST", "/chat/negotiate?negotiateVersion=1", &bad_token);
        let status = HttpConnection::open(&fixture).await.exchange(negotiate).await.0;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        watched.pass(1).await;
    }
    let line = watched.line(ConditionKind::ClientsRefused).unwrap();
    assert!(line.contains("token_refused") && line.contains("the access token is not valid"), "{line}");
    watched.pass(30).await;
    watched.ended(ConditionKind::ClientsRefused).await;
}

#[tokio::test(crate = "paused")]
async fn clients_closed_for_reading_slowly_and_a_storm_of_new_ones_are_reported() {
    let (fixture, _link) = Fixture::start().with_chat().await;
    let shard = fixture.shared.counters_of(0);
    let counters = shard.hub(0);
    let mut watched = Watched::after_start(&fixture).await;
    counters.closed.count(Cause::OutboxTotal);
    let line = watched.begun(ConditionKind::SlowClientsClosed, 1).await;
    assert!(line.contains("--outbox-total-max-bytes"), "{line}");
    for _ in 0..12 {
        counters.connections(Transport::WebSockets, ClientProtocol::Json).opened.add(150);
        watched.pass(1).await;
    }
    let line = watched.line(ConditionKind::ReconnectStorm).unwrap();
    assert!(line.contains("150 per second"), "{line}");
    watched.pass(200).await;
    assert_eq!(
        (watched.line(ConditionKind::ReconnectStorm), watched.line(ConditionKind::SlowClientsClosed)),
        (None, None)
    );
}

#[tokio::test(crate = "paused")]
async fn a_storm_at_a_node_that_has_just_started_is_reported_once_its_first_clients_have_arrived() {
    let (fixture, _link) = Fixture::start().with_chat().await;
    let shard = fixture.shared.counters_of(0);
    let counters = shard.hub(0).connections(Transport::WebSockets, ClientProtocol::Json);
    let mut watched = Watched::new(&fixture);
    watched.pass(1).await;
    counters.opened.add(5_000);
    watched.pass(24).await;
    assert_eq!(watched.log, [], "clients of a node that is started again");
    for _ in 0..20 {
        counters.opened.add(500);
        watched.pass(1).await;
    }
    assert!(watched.line(ConditionKind::ReconnectStorm).is_some(), "{:?}", watched.log);
}

#[tokio::test(crate = "paused")]
async fn a_drain_of_more_than_ten_minutes_is_reported() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let mut watched = Watched::new(&fixture);
    let _client = link.client().await;
    fixture.shared.begin_drain();
    watched.pass(600).await;
    assert_eq!(watched.log, []);
    let line = watched.begun(ConditionKind::DrainSlow, 2).await;
    assert!(line.contains("clients left: 1"), "{line}");
}

#[tokio::test(crate = "paused")]
async fn a_node_that_clients_of_others_can_not_reach_is_reported_in_the_first_minute_too() {
    super::fleet_nodes::by_network();
    let (network, nodes) = fleet_nodes::nodes(2).await;
    let mut watched = Watched::with(&nodes[0].fixture, nodes[0].fleet.clone());
    watched.pass(2).await;
    assert_eq!(watched.log, []);
    nodes[1].unplug(&network);
    let line = watched.begun(ConditionKind::NodeAddressUnreachable, 28).await;
    assert!(line.contains("n2: ") && line.contains("http://10.0.0.2:8080"), "{line}");
}

#[tokio::test(crate = "paused")]
async fn a_ready_node_that_gets_no_clients_while_another_one_does_is_reported_until_it_gets_one() {
    let (_network, mut nodes) = fleet_nodes::nodes(2).await;
    let mut watched = Watched::with(&nodes[0].fixture, nodes[0].fleet.clone());
    watched.pass(15).await;
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..39 {
        clients.push(nodes[0].client().await);
    }
    watched.pass(60).await;
    assert_eq!(watched.log, [], "too few");
    clients.push(nodes[0].client().await);
    let line = watched.begun(ConditionKind::NodeGetsNoClients, 32).await;
    assert!(line.contains(": n2: ") && line.contains("none of 40 in "), "{line}");
    clients.push(nodes[1].client().await);
    watched.pass(10).await;
    watched.ended(ConditionKind::NodeGetsNoClients).await;
}

#[tokio::test(crate = "paused")]
async fn a_node_with_more_clients_may_get_no_new_ones_and_so_may_any_during_a_drain() {
    let (_network, mut nodes) = fleet_nodes::nodes(3).await;
    let mut watched = Watched::with(&nodes[0].fixture, nodes[0].fleet.clone());
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..41 {
        clients.push(nodes[1].client().await);
        clients.push(nodes[2].client().await);
    }
    watched.pass(15).await;
    for _ in 0..40 {
        clients.push(nodes[0].client().await);
    }
    watched.pass(40).await;
    assert_eq!(watched.log, [], "a balancer that counts connections");
    nodes[2].fixture.shared.begin_drain();
    watched.pass(5).await;
    for _ in 0..40 {
        clients.push(nodes[0].client().await);
    }
    watched.pass(40).await;
    assert_eq!(watched.log, [], "clients of the drained node arrive");
    nodes[2].fleet.members().leave().await;
    watched.pass(60).await;
    assert_eq!(watched.log, []);
}

#[tokio::test(crate = "paused")]
async fn an_app_server_that_has_closed_its_links_is_not_missed_and_one_that_was_lost_is() {
    let (_network, nodes) = dial_in_nodes(1).await;
    let mut watched = Watched::with(&nodes[0].fixture, nodes[0].fleet.clone());
    let mut links = Vec::new();
    for app in ["stops", "crashes", "stays"] {
        links.push([DialInLink::open(&nodes[0], app, ONE).await, DialInLink::open(&nodes[0], app, ONE).await]);
    }
    watched.pass(START_S).await;
    // One of its sockets is reset, as in .NET without GracefulShutdown.
    links[0][0].close();
    links[0][1].sever();
    watched.pass(90).await;
    assert_eq!(watched.log, []);
    links[1].iter_mut().for_each(DialInLink::sever);
    let line = watched.begun(ConditionKind::AppServerMissing, 33).await;
    assert!(line.contains(": crashes at 192.0.2.1: ") && line.contains("1 of 2 are left"), "{line}");
}

#[tokio::test(crate = "paused")]
async fn calls_that_end_with_errors_are_reported_by_their_hub() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let mut watched = Watched::after_start(&fixture).await;
    let mut client = link.client().await;
    let mut call = async |watched: &mut Watched, count: u32, error: &str| {
        for id in 0..count {
            let invocation = json!({"type": 1, "invocationId": id.to_string(), "target": "Say", "arguments": []});
            client.send(&format!("{invocation}\u{1e}")).await;
            link.data().await;
            let completion = format!("{{\"type\":3,\"invocationId\":\"{id}\"{error}}}\u{1e}");
            link.send(data_for(&client.id, completion)).await;
            client.text().await;
            watched.pass(1).await;
        }
    };
    call(&mut watched, 25, "").await;
    watched.pass(40).await;
    // As many as `trunkline doctor` makes.
    call(&mut watched, 15, ",\"error\":\"no\"").await;
    watched.pass(40).await;
    assert_eq!(watched.log, []);
    call(&mut watched, 25, ",\"error\":\"no\"").await;
    watched.pass(8).await;
    let line = watched.line(ConditionKind::CallsFail).unwrap();
    assert!(line.contains("chat: ") && line.contains("errors"), "{line}");
    watched.pass(40).await;
    watched.ended(ConditionKind::CallsFail).await;
}

#[tokio::test(crate = "paused")]
async fn calls_without_a_result_are_reported_by_their_hub_and_streams_and_calls_of_one_client_are_not() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let mut watched = Watched::after_start(&fixture).await;
    let mut clients: [Client; 4] = link.clients().await;
    let call = |kind: u8, id: &str| {
        format!("{}\u{1e}", json!({"type": kind, "invocationId": id, "target": "Hang", "arguments": []}))
    };
    for client in &mut clients {
        client.send(&call(4, "stream")).await;
        link.data().await;
    }
    for client in &mut clients[..2] {
        client.send(&call(1, "call")).await;
        link.data().await;
    }
    watched.pass(90).await;
    assert_eq!(watched.log, []);
    clients[2].send(&call(1, "call")).await;
    link.data().await;
    let line = watched.begun(ConditionKind::CallsHang, 80).await;
    assert!(line.contains("chat: ") && line.contains("3 of 4 clients wait, for up to 1"), "{line}");
    let completion = "{\"type\":3,\"invocationId\":\"call\",\"result\":1}\u{1e}".to_owned();
    link.send(data_for(&clients[2].id, completion)).await;
    clients[2].text().await;
    watched.pass(10).await;
    watched.ended(ConditionKind::CallsHang).await;
}

#[tokio::test(crate = "paused")]
async fn calls_that_wait_for_earlier_ones_are_reported_and_streams_sends_and_parallel_calls_are_not() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let mut watched = Watched::after_start(&fixture).await;
    let mut clients: [Client; 3] = link.clients().await;
    let call = |kind: u8, id: Option<u64>| {
        let mut call = json!({"type": kind, "target": "Slow", "arguments": []});
        id.inspect(|id| call["invocationId"] = id.to_string().into());
        format!("{call}\u{1e}")
    };
    for id in 0..30 {
        clients[0].send(&call(4, Some(id))).await;
        clients[1].send(&call(1, None)).await;
        link.data().await;
        link.data().await;
    }
    for id in 0..5 {
        clients[2].send(&call(1, Some(id))).await;
        link.data().await;
    }
    watched.pass(50).await;
    assert_eq!(watched.log, []);
    // A method of 2 seconds that is called five times a second.
    for second in 0..31 {
        for id in second * 5..(second + 1) * 5 {
            clients[1].send(&call(1, Some(id))).await;
            link.data().await;
        }
        if second % 2 == 1 {
            let completion = format!("{{\"type\":3,\"invocationId\":\"{}\"}}\u{1e}", second / 2);
            link.send(data_for(&clients[1].id, completion)).await;
            clients[1].text().await;
        }
        watched.pass(1).await;
    }
    let line = watched.line(ConditionKind::CallsQueue).unwrap();
    assert!(line.contains("chat: ") && line.contains("1 of 3 clients wait, for up to "), "{line}");
}

#[tokio::test(crate = "paused")]
async fn the_time_left_of_waiting_clients_begins_when_their_app_server_has_closed_its_links() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let mut watched = Watched::after_start(&fixture).await;
    let _client = link.client().await;
    assert!(fixture.shared.hubs.find("/chat").unwrap().pools()[0].begin_drain());
    // Longer than the hold timeout of 60 s.
    watched.pass(100).await;
    assert_eq!(watched.log, [], "it still serves its clients");
    link.retire().await;
    let line = watched.begun(ConditionKind::HubWithoutAppServer, 5).await;
    assert!(line.contains("waiting clients: 1, closed in 5"), "{line}");
}

#[tokio::test(crate = "paused")]
async fn new_subjects_of_a_condition_have_series_of_their_own_however_many_old_ones_remain() {
    let fixture = Fixture::start();
    let mut watched = Watched::new(&fixture);
    let report = |subject: &str| {
        let finding = Finding::new(ConditionKind::FileUnreadable, subject, "no such file");
        fixture.shared.reports.conditions.report(finding, None);
    };
    (0..30).for_each(|number| report(&format!("old-{number}")));
    watched.pass(1).await;
    assert_eq!(watched.metric("trunkline_condition_active", "(others)"), Some(10));
    // sleep: the time of the beginning is one of the wall clock, in milliseconds.
    std::thread::sleep(Duration::from_millis(2));
    report("new");
    watched.pass(1).await;
    assert_eq!(watched.metric("trunkline_condition_active", "new"), Some(1));
    assert_eq!(watched.metric("trunkline_condition_active", "(others)"), Some(11));
    assert_eq!(watched.metric("trunkline_condition_subjects", "file-unreadable"), Some(31));
}
