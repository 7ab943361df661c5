//! Faults of operation, made with real processes: the conditions of `GET /api/conditions`, the log, `/readyz` and the
//! shipped alerts in a real Prometheus name each of them.

use anyhow::{Context, Result, ensure};
use http::Method;
use trunkline_tests::harness::fleet::{App, Fleet, Proxy};
use trunkline_tests::harness::http_client::{ask, get};
use trunkline_tests::harness::prometheus::{Prometheus, Terms};
use trunkline_tests::harness::scenario::{run_heavy_test, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tools::shipped;

const ADMIN_TOKEN: &str = "the-admin-token-of-the-outages";
const METRICS_TOKEN: &str = "the-metrics-token-of-the-outages";

/// Waits until a condition of a node is active; returns its subject.
async fn subject_of(node: &Proxy, condition: &str) -> Result<String> {
    let wait = until(async || {
        let answer = get(node.admin(), "/api/conditions?scope=node").await?.json()?;
        let list = answer["conditions"].as_array().context("a list")?;
        let active = list.iter().find(|one| one["name"] == condition && one["endedMs"].is_null());
        Ok(active.and_then(|one| one["subject"].as_str()).map(str::to_owned))
    });
    tokio::time::timeout(std::time::Duration::from_secs(240), wait).await.with_context(|| condition.to_owned())?
}

#[test]
fn each_of_several_faults_at_a_time_is_named_by_every_channel() {
    run_heavy_test(async |fixture| {
        let (fleet, nowhere, admin) = (Fleet::new(fixture), free_address()?, free_address()?);
        let stranger = Fleet::with_keys(fixture, "an access key of another fleet").app(App::Bench).await?;
        // An admin port answers, but not as an app server.
        let other_admin = free_address()?;
        let twin = ["--peers", &format!("http://{admin}"), "--node-name", "twin"];
        let other = fleet.proxy_of(&free_address()?, &other_admin, &[], &twin)?;
        let (collector, issuer) = (format!("http://{nowhere}"), format!("http://{nowhere}/keys"));
        let peers = format!("http://{other_admin}");
        let flags = [
            ["--otlp", &collector],
            ["--otlp-metrics-interval", "1"],
            ["--jwt-jwks", &issuer],
            // Each write fails, as on a full disk.
            ["--audit-log", "/dev/full"],
            ["--admin-token", ADMIN_TOKEN],
            ["--metrics-token", METRICS_TOKEN],
            ["--peers", &peers],
            ["--node-name", "twin"],
        ];
        let upstreams = [stranger.address(), other.admin()];
        let node = fleet.proxy_of(&free_address()?, &admin, &upstreams, flags.as_flattened())?;
        until(async || Ok(get(&admin, "/healthz").await.ok())).await?;
        ensure!(get(&admin, "/metrics").await?.status == 401);
        let bearer = format!("Bearer {ADMIN_TOKEN}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        ask(&admin, Method::POST, "/api/clients/no-such-client/close", &headers).await?;
        let rules = shipped("prometheus/trunkline.rules.yml");
        let terms = Terms { token: Some(METRICS_TOKEN), rules: Some(&rules) };
        let prometheus = Prometheus::start_with(fixture, &[("trunkline", &admin)], &terms).await?;
        let mut faults = Vec::new();
        for (condition, of) in [
            ("app-server-refuses-key", stranger.address()),
            ("app-server-incompatible", other.admin()),
            ("audit-lines-lost", "audit log"),
            ("scrape-refused", "metrics"),
            ("telemetry-fails", "--otlp"),
            ("node-name-shared", "twin"),
            ("token-keys-unreachable", &*issuer),
        ] {
            let subject = subject_of(&node, condition).await?;
            ensure!(subject.contains(of) || of.contains(&subject), "{condition} of {subject}");
            faults.push((condition, subject));
        }
        let (readiness, log) = (get(&admin, "/readyz").await?.body, node.process.log());
        for (condition, subject) in &faults {
            let is_logged = |line: &str| {
                line.contains(&format!("condition={condition:?}")) || line.contains(&format!("condition={condition}"))
            };
            ensure!(log.lines().any(is_logged), "no line about {condition}: {log}");
            ensure!(readiness.contains(condition), "{condition}: {readiness}");
            let series = format!("trunkline_condition_active{{condition='{condition}',subject='{subject}'}}");
            prometheus.shows(&series, 1.0).await?;
        }
        // An instance of the alert for each subject; warnings need a minute.
        for (condition, subject) in &faults[..3] {
            let labels = format!("alertstate='firing',condition='{condition}',subject='{subject}'");
            prometheus.shows(&format!("ALERTS{{alertname='TrunklineConditionError',{labels}}}"), 1.0).await?;
        }
        Ok(())
    });
}
