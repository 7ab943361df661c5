//! `trunkline doctor`: a healthy fleet, and one mistake at a time.

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::process::Command;
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::scenario::{Fixture, profile_folder, run_heavy_test, run_test};
use trunkline_tests::harness::shipped::{BalancerProduct, LoadBalancer, Shipped};
use trunkline_tests::harness::tls::text;
use trunkline_tests::harness::token;

/// Short time limit for steps that a load balancer blocks.
const IMPATIENT: [&str; 2] = ["--timeout", "3"];

#[derive(Debug)]
struct Report {
    status: Option<i32>,
    checks: Vec<Value>,
}

impl Report {
    /// Verdict and text of the worst check with this name.
    fn of(&self, check: &str) -> Result<(&str, &str)> {
        let of_it = self.checks.iter().filter(|one| one["check"] == check);
        let rank = |one: &&Value| ["ok", "warning", "failed"].iter().position(|verdict| one["verdict"] == *verdict);
        let worst = of_it.max_by_key(rank).with_context(|| format!("no {check} in {self:#?}"))?;
        Ok((worst["verdict"].as_str().context("a verdict")?, worst["seen"].as_str().context("a text")?))
    }

    fn verdict(&self, check: &str) -> Result<&str> {
        Ok(self.of(check)?.0)
    }

    fn advice(&self, check: &str) -> Result<&str> {
        let advised = self.checks.iter().filter(|one| one["check"] == check).find_map(|one| one["advice"].as_str());
        advised.with_context(|| format!("no advice of {check} in {self:#?}"))
    }

    /// Names of the checks with this verdict.
    fn all(&self, verdict: &str) -> Vec<&str> {
        self.checks.iter().filter(|one| one["verdict"] == verdict).filter_map(|one| one["check"].as_str()).collect()
    }
}

fn command(url: &str, more: &[&str]) -> Result<Command> {
    let mut command = Command::new(profile_folder()?.join("trunkline"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TRUNKLINE_")) {
        command.env_remove(name);
    }
    command.args(["doctor", url]).args(more);
    Ok(command)
}

async fn doctor(url: &str, more: &[&str]) -> Result<Report> {
    let output = command(url, &[&["--json"], more].concat())?.output().await?;
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("{} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    })?;
    let checks = report["checks"].as_array().context("checks")?.clone();
    let report = Report { status: output.status.code(), checks };
    assert_eq!(report.status, Some(i32::from(!report.all("failed").is_empty())), "{report:#?}");
    Ok(report)
}

async fn fleet_of_two(fixture: &Fixture, more: &[&str]) -> Result<(AppServer, [Proxy; 2])> {
    let fleet = Fleet::new(fixture);
    let app = fleet.app(App::Bench).await?;
    let nodes = [fleet.proxy_with(&[&app], more).await?, fleet.proxy_with(&[&app], more).await?];
    Ok((app, nodes))
}

/// Two nodes behind a balancer, with as many entries as the shipped file.
async fn behind(fixture: &Fixture, nodes: &[Proxy; 2], shipped: Shipped) -> Result<LoadBalancer> {
    let [first, second] = nodes;
    shipped.start(fixture, [first, second, first]).await
}

#[test]
fn a_node_that_is_well_passes_every_check() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let origin = "https://pages.example";
        let node = fleet.proxy_with(&[&app], &["--allow-origin", origin, "--node-name", "alone"]).await?;
        let user = token::of_user(ACCESS_KEY, "ann")?;
        let file = fixture.folder().join("token");
        std::fs::write(&file, format!("{user}\n"))?;
        let more = ["--token-file", text(&file)?, "--origin", origin, "--idle", "1s", "--invoke", "Echo"];
        let report = doctor(&node.url("/bench"), &[&more[..], &["--arguments", "[\"a\"]"]].concat()).await?;
        assert_eq!((report.all("failed"), report.all("warning")), (vec![], vec![]), "{report:#?}");
        for check in
            ["name", "connect", "tls", "negotiate", "clock", "token", "headers", "host", "cors", "nodes", "idle"]
        {
            assert_eq!(report.verdict(check)?, "ok", "{report:#?}");
        }
        for transport in ["websockets", "server-sent-events", "long-polling"] {
            assert!(report.of(transport)?.1.contains("5 calls of Echo answered"), "{report:#?}");
        }
        assert!(report.of("nodes")?.1.ends_with("8 of 8 connections reached their node; all negotiated by alone (8)"));

        let text = command(&node.url("/bench"), &[])?.output().await?;
        let shown = String::from_utf8_lossy(&text.stdout);
        assert!(text.status.success() && !shown.contains(&user), "{shown}");
        assert!(shown.lines().any(|line| line.starts_with("ok       long-polling ")), "{shown}");
        Ok(())
    });
}

#[test]
fn a_balancer_that_ships_passes_and_one_that_collects_pieces_is_told_by_its_setting() {
    run_heavy_test(async |fixture| {
        let (_app, nodes) = fleet_of_two(fixture, &["--trust", "127.0.0.1/32"]).await?;
        for product in BalancerProduct::ALL {
            let good = behind(fixture, &nodes, Shipped::read(product)?).await?;
            let report = doctor(&good.url("/bench"), &[]).await?;
            assert_eq!((report.all("failed"), report.all("warning")), (vec![], vec![]), "{product:?} {report:#?}");
            // The number of nodes that negotiate is the balancer's choice, because all are idle.
            assert!(report.of("nodes")?.1.starts_with("8 of 8 connections reached their node"), "{report:#?}");
        }
        let slow = Shipped::read(BalancerProduct::HaProxy)?.with("    option http-no-delay\n", "")?;
        let slow = behind(fixture, &nodes, slow).await?;
        let report = doctor(&slow.url("/bench"), &[]).await?;
        assert_eq!(report.verdict("server-sent-events")?, "warning", "{report:#?}");
        assert!(report.advice("server-sent-events")?.contains("option http-no-delay"));
        // By default, nginx buffers a response without a length or chunks, as to HTTP/1.0.
        let buffered = Shipped::read(BalancerProduct::Nginx)?
            .with("proxy_http_version 1.1;", "proxy_http_version 1.0;\nproxy_ignore_headers X-Accel-Buffering;")?;
        let buffered = behind(fixture, &nodes, buffered).await?;
        let report = doctor(&buffered.url("/bench"), &IMPATIENT).await?;
        assert_eq!(report.all("failed"), ["websockets", "server-sent-events"], "{report:#?}");
        assert!(report.advice("server-sent-events")?.contains("proxy_buffering off"));
        Ok(())
    });
}

#[test]
fn compression_by_a_node_is_no_warning() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let node = fleet.proxy_with(&[&app], &["--compress"]).await?;
        let report = doctor(&node.url("/bench"), &[]).await?;
        let (verdict, seen) = report.of("websockets")?;
        assert!(verdict == "ok" && seen.ends_with("compressed by the node (--compress)"), "{report:#?}");
        Ok(())
    });
}

#[test]
fn a_balancer_without_upgrades_and_one_that_cuts_idle_connections_are_told_by_their_settings() {
    run_heavy_test(async |fixture| {
        let (_app, nodes) = fleet_of_two(fixture, &["--trust", "127.0.0.1/32"]).await?;
        let plain = Shipped::read(BalancerProduct::Nginx)?
            .with("proxy_set_header Upgrade $http_upgrade;", "")?
            .with("proxy_set_header Connection $connection_upgrade;", "proxy_set_header Connection close;")?;
        let plain = behind(fixture, &nodes, plain).await?;
        let report = doctor(&plain.url("/bench"), &[]).await?;
        assert_eq!(report.all("failed"), ["websockets"], "{report:#?}");
        assert!(report.advice("websockets")?.contains("proxy_set_header Upgrade"));

        let hasty = Shipped::read(BalancerProduct::HaProxy)?
            .with("timeout client 50s", "timeout client 2s")?
            .with("timeout server 50s", "timeout server 2s")?;
        let hasty = behind(fixture, &nodes, hasty).await?;
        let report = doctor(&hasty.url("/bench"), &["--idle", "6s"]).await?;
        assert_eq!(report.all("failed"), ["idle", "idle", "idle"], "{report:#?}");
        assert!(report.advice("idle")?.contains("timeout tunnel"));
        Ok(())
    });
}
