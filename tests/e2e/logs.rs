//! Logs of nodes and app servers: as text or JSON, with the node's name in each line, levels that can change at run
//! time, and few lines without a problem.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, LogFault, POOL_SIZE, Proxy, failure_of, stop};
use trunkline_tests::harness::http_client::{Answer, exchange, get};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{Fixture, run_test, until};
use trunkline_tests::harness::sockets::free_address;

const ADMIN_TOKEN: &str = "may-change-levels";

async fn put(proxy: &Proxy, body: &str) -> Result<Answer> {
    let headers = [("authorization", "Bearer may-change-levels")];
    exchange(proxy.admin(), Method::PUT, "/api/log", &headers, Bytes::copy_from_slice(body.as_bytes())).await
}

/// Connects and disconnects a client. Returns the number of log lines that name a connection.
async fn lines_of_a_visit(proxy: &Proxy) -> Result<usize> {
    let client = RawClient::join(proxy.address(), "/bench").await?;
    client.close().await?;
    Ok(proxy.process.log().lines().filter(|line| line.contains("client connection closed")).count())
}

#[test]
fn lines_are_json_if_that_is_wanted_and_levels_change_at_run_time() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let settings = ["--log-format", "json", "--node-name", "seen", "--admin-token", ADMIN_TOKEN];
        let mut proxy = fleet.proxy_with(&[&app], &settings).await?;
        let stranger = exchange(proxy.admin(), Method::PUT, "/api/log", &[], r#"{"levels":"debug"}"#.into()).await?;
        assert_eq!(stranger.status, 401);
        assert_eq!(get(proxy.admin(), "/api/log").await?.json()?, json!({ "levels": "info", "format": "json" }));
        assert_eq!(lines_of_a_visit(&proxy).await?, 0);
        let changed = put(&proxy, r#"{"levels":"warn,trunkline_proxy=debug"}"#).await?;
        assert_eq!(changed.json()?["levels"], "warn,trunkline_proxy=debug");
        lines_of_a_visit(&proxy).await?;
        proxy.process.wait_for_log("client connection closed").await?;
        for (body, what) in [
            (r#"{"levels":"loud=very"}"#, "error parsing level filter"),
            (r#"{"levels":""}"#, "must name levels"),
            (r#"{"level":"info"}"#, "unknown field"),
            ("info", "must be {"),
            (&format!("{{\"levels\":\"{}\"}}", "x".repeat(1_025)), "1024 bytes at most"),
        ] {
            let answer = put(&proxy, body).await?;
            let error = answer.json()?;
            assert_eq!((answer.status.as_u16(), &error["field"]), (400, &json!("levels")), "{body}");
            assert!(error["error"].as_str().is_some_and(|text| text.contains(what)), "{error}");
        }
        assert_eq!(put(&proxy, &"x".repeat(10_000)).await?.status, 413);
        assert_eq!(get(proxy.admin(), "/api/log").await?.json()?["levels"], "warn,trunkline_proxy=debug");
        proxy.process.wait_for_log("\"status\":413").await?;
        let before = proxy.process.log().lines().count();
        put(&proxy, r#"{"levels":"off"}"#).await?;
        lines_of_a_visit(&proxy).await?;
        proxy.process.wait_for_log("\\\"off\\\"").await?;
        let log = proxy.process.log();
        let [only] = log.lines().skip(before).collect::<Vec<_>>()[..] else { bail!("{log}") };
        assert!(
            only.contains("\"audit\"") && only.contains("\\\"off\\\""),
            "what an operator does is always said: {only}"
        );
        let lines = json_lines(&proxy.process.log())?;
        assert!(lines.iter().all(|line| line["node"] == "seen"), "{lines:?}");
        for address in
            [format!("listening on http://{}", proxy.address()), format!("admin on http://{}", proxy.admin())]
        {
            assert_eq!(lines.iter().filter(|line| line["message"] == address).count(), 1, "{lines:?}");
        }
        Ok(())
    });
}

#[test]
fn a_log_that_is_never_read_or_full_stops_nothing_and_is_counted() {
    for fault in [LogFault::Unread, LogFault::Full] {
        run_test(async |fixture| node_with_log(fixture, fault).await);
    }
}

async fn node_with_log(fixture: &Fixture, fault: LogFault) -> Result<()> {
    let fleet = Fleet::new(fixture);
    let settings = ["--admin-token", ADMIN_TOKEN, "--log", "trace"];
    let mut proxy = fleet.proxy_with_log(fault, &settings).await?;
    let dropped = async || {
        proxy.process.signal(Signal::Hangup).await?;
        put(&proxy, &format!(r#"{{"levels":"trace,{}=warn"}}"#, "x".repeat(900))).await?;
        let dropped = proxy.metrics().await?.sum("trunkline_log_lines_dropped_total", &[]);
        anyhow::Ok((dropped > 0.0).then_some(()))
    };
    // Without pauses: each pass makes the lines.
    while dropped().await?.is_none() {}
    assert_eq!(get(proxy.admin(), "/healthz").await?.status, 200);
    stop(&mut proxy.process, Signal::Terminate).await
}

#[test]
fn a_node_that_dials_nobody_says_who_may_come() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut alone = fleet.proxy_with(&[], &[]).await?;
        alone.process.wait_for_log("no --upstream: ").await?;
        let app = fleet.app(App::Bench).await?;
        let dialling = fleet.proxy_with(&[&app], &[]).await?;
        ensure!(!dialling.process.log().contains("no --upstream"), "{}", dialling.process.log());
        Ok(())
    });
}

/// Parses the lines of a JSON log, and checks the common fields.
fn json_lines(log: &str) -> Result<Vec<Value>> {
    let parsed = log.lines().map(|line| {
        let parsed: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        let has_texts = ["time", "level", "target", "message"].iter().all(|key| parsed[*key].is_string());
        ensure!(has_texts && parsed.get("node").is_some(), "{line}");
        Ok(parsed)
    });
    parsed.collect()
}

#[test]
fn a_node_that_cannot_start_says_so_in_json_too() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let taken = TcpListener::bind("127.0.0.1:0").await?;
        let file = fixture.folder().join("trunkline.toml");
        std::fs::write(&file, "log-format = \"json\"\nlog = \"loud=very\"\n")?;
        let file = file.to_string_lossy();
        let (free, taken) = (free_address()?, taken.local_addr()?.to_string());
        for (address, arguments, what) in [
            (&free, &["--log-format", "json", "--log", "loud=very"][..], "--log must be levels such as info"),
            (&free, &["--log-format", "json", "--no-such-flag"], "--no-such-flag"),
            (&free, &["--log-format=json", "--drain-timeout", "soon"], "--drain-timeout"),
            (&free, &["--config", &*file], "--log must be levels such as info"),
            (&taken, &["--log-format", "json"], &*taken),
        ] {
            let mut proxy = fleet.proxy_of(address, &free_address()?, &[&free_address()?], arguments)?;
            let lines = json_lines(&failure_of(&mut proxy.process).await?)?;
            let last = lines.last().context("a line")?;
            assert_eq!(last["level"], "error", "{arguments:?}: {lines:?}");
            assert!(last["message"].as_str().is_some_and(|text| text.contains(what)), "{arguments:?}: {last}");
        }
        Ok(())
    });
}

/// Maximum number of log lines of a process during a rollout of two nodes and two app servers.
const LINES_MAX: usize = 30;

/// Two nodes and two app servers with six hubs each, all linked.
struct RollOut<'a> {
    fixture: &'a Fixture,
    apps: Vec<AppServer>,
    nodes: Vec<Proxy>,
    /// Number of times that each node has logged another one as ready.
    met: [usize; 2],
    /// Logs of replaced processes.
    past: Vec<String>,
}

impl<'a> RollOut<'a> {
    const HUBS: usize = 6;

    async fn begin(fixture: &'a Fixture) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let apps = vec![fleet.app(App::Functional).await?, fleet.app(App::Functional).await?];
        let admins = [free_address()?, free_address()?];
        let peers = admins.iter().map(|admin| format!("http://{admin}")).collect::<Vec<_>>().join(",");
        let upstreams: Vec<_> = apps.iter().map(AppServer::address).collect();
        let mut nodes = Vec::new();
        for (admin, name) in admins.iter().zip(["node-a", "node-b"]) {
            let settings = ["--peers", &peers, "--node-name", name];
            nodes.push(fleet.proxy_of(&free_address()?, admin, &upstreams, &settings)?);
        }
        let mut roll_out = Self { fixture, apps, nodes, met: [1; 2], past: Vec::new() };
        roll_out.settle().await?;
        Ok(roll_out)
    }

    /// Waits until all links are open and each node has seen the other one.
    async fn settle(&mut self) -> Result<()> {
        for (node, met) in self.nodes.iter_mut().zip(self.met) {
            node.ready().await?;
            node.linked(self.apps.len() * Self::HUBS * POOL_SIZE).await?;
            until(async || Ok((node.process.log().matches("state=ready").count() >= met).then_some(()))).await?;
        }
        Ok(())
    }

    async fn replace_node(&mut self, place: usize) -> Result<()> {
        stop(&mut self.nodes[place].process, Signal::Terminate).await?;
        self.past.push(self.nodes[place].process.log());
        self.nodes[place].start_again(self.fixture).await?;
        self.met[place] = 1;
        self.met[1 - place] += 1;
        self.settle().await
    }

    async fn replace_app(&mut self, place: usize) -> Result<()> {
        stop(&mut self.apps[place].process, Signal::Terminate).await?;
        self.past.push(self.apps[place].process.log());
        self.apps[place].start_again(self.fixture).await?;
        self.settle().await
    }

    /// Logs of all processes that have run.
    fn logs(&self) -> Vec<String> {
        let nodes = self.nodes.iter().map(|node| node.process.log());
        let apps = self.apps.iter().map(|app| app.process.log());
        self.past.iter().cloned().chain(nodes).chain(apps).collect()
    }
}

#[test]
fn a_roll_out_of_nodes_and_app_servers_is_few_lines_and_no_warning() {
    run_test(async |fixture| {
        let mut roll_out = RollOut::begin(fixture).await?;
        for place in 0..2 {
            roll_out.replace_node(place).await?;
        }
        for place in 0..2 {
            roll_out.replace_app(place).await?;
        }
        for node in &mut roll_out.nodes {
            let line = node.process.wait_for_log("app server linked").await?;
            assert!(line.contains("testhub, ") && line.ends_with("links=30"), "{line}");
        }
        for app in &mut roll_out.apps {
            let line = app.process.wait_for_log("proxy linked").await?;
            assert!(line.contains("testhub, ") && line.ends_with("links=30"), "{line}");
        }
        let logs = roll_out.logs();
        assert_eq!(logs.len(), 8);
        for log in &logs {
            assert!(!log.contains(" WARN ") && !log.contains("ERROR"), "{log}");
            assert!(log.lines().count() <= LINES_MAX, "{} lines:\n{log}", log.lines().count());
        }
        Ok(())
    });
}

#[test]
fn a_message_that_is_too_large_is_one_line_at_node_and_app_server() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut app = fleet.app(App::Bench).await?;
        let mut proxy = fleet.proxy(&app).await?;
        for _ in 0..3 {
            let mut client = RawClient::join(proxy.address(), "/bench").await?;
            let call = json!({ "type": 1, "invocationId": "1", "target": "Echo", "arguments": ["x".repeat(40_000)] });
            client.send_text(format!("{call}\u{1e}")).await?;
            client.ending().await?;
        }
        for process in [&mut proxy.process, &mut app.process] {
            let line = process.wait_for_log("cause=message_too_large").await?;
            assert!(
                line.contains(" INFO ") && line.contains("32768B") && line.contains("Hub::message_max_bytes"),
                "{line}"
            );
        }
        assert!(!proxy.process.log().contains(" WARN ") && !app.process.log().contains(" WARN "));
        Ok(())
    });
}

#[test]
fn lines_for_people_name_the_node_and_levels_that_make_no_sense_are_an_error() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let mut proxy = fleet.proxy_with(&[&app], &["--node-name", "seen"]).await?;
        let line = proxy.process.wait_for_log("node started").await?;
        assert!(line.contains(" INFO seen trunkline_proxy::node: node started "), "{line}");
        let refused = ["--log", "loud=very"];
        let mut proxy = fleet.proxy_of(&free_address()?, &free_address()?, &[app.address()], &refused)?;
        let log = failure_of(&mut proxy.process).await?;
        assert!(log.contains("--log must be levels such as info"), "{log}");
        Ok(())
    });
}
