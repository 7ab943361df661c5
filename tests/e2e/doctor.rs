//! `trunkline doctor`: a healthy fleet, and one mistake at a time.

use anyhow::{Context, Result};
use axum::Router;
use axum::response::Html;
use http::StatusCode;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::Command;
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::scenario::{Fixture, profile_folder, run_heavy_test, run_test};
use trunkline_tests::harness::shipped::{BalancerProduct, LoadBalancer, Shipped};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tls::{Authority, TlsEnd, text};
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

    fn has(&self, check: &str) -> bool {
        self.checks.iter().any(|one| one["check"] == check)
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

/// Server that answers every request with a page.
async fn site() -> Result<String> {
    served(Router::new().fallback(async || Html("<!doctype html><title>Home</title>"))).await
}

async fn served(router: Router) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async { axum::serve(listener, router).await });
    Ok(address)
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
fn a_wrong_token_a_wrong_path_and_an_origin_that_is_not_allowed_are_told_apart() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let node = fleet.proxy_with(&[&app], &["--require-authentication"]).await?;
        let url = node.url("/bench");
        let report = doctor(&url, &[]).await?;
        assert!(report.of("negotiate")?.1.contains("401") && report.advice("negotiate")?.contains("--token-file"));

        let foreign = token::of_user("another-key-that-is-long-enough-too", "ann")?;
        let report = doctor(&url, &["--token", &foreign]).await?;
        assert!(report.of("negotiate")?.1.contains("401") && report.advice("negotiate")?.contains("--access-key"));
        assert_eq!(report.verdict("token")?, "ok", "its times are good");
        assert!(!report.has("websockets"), "a client gets no further");

        let late = token::signed(ACCESS_KEY, &serde_json::json!({ "nameid": "ann", "exp": 1_000_000_000 }))?;
        let report = doctor(&url, &["--token", &late]).await?;
        assert!(report.of("token")?.1.starts_with("the token expired "), "{report:#?}");

        let good = token::of_user(ACCESS_KEY, "ann")?;
        let report = doctor(&node.url("/nothing"), &["--token", &good]).await?;
        assert!(report.of("negotiate")?.1.contains("404") && report.advice("negotiate")?.contains("--path-prefix"));

        let report = doctor(&url, &["--token", &good, "--origin", "https://elsewhere.example"]).await?;
        assert!(report.advice("cors")?.contains("--allow-origin"), "{report:#?}");
        assert!(report.advice("websockets")?.contains("--allow-origin") && !report.has("nodes"), "{report:#?}");
        assert_eq!(doctor(&url, &["--token", &good]).await?.all("failed"), Vec::<&str>::new());
        Ok(())
    });
}

#[test]
fn rest_and_the_back_end_of_a_webhook_are_checked() {
    run_test(async |fixture| {
        let back_end = Router::new().fallback(async || StatusCode::UNAUTHORIZED);
        let webhook = format!("bench=http://{}/{{event}}", served(back_end).await?);
        let arguments = ["--rest", "--upstream-webhook", &webhook];
        let mut node = Fleet::new(fixture).proxy_of(&free_address()?, &free_address()?, &[], &arguments)?;
        node.ready().await?;
        let (url, key) = (node.url("/bench"), trunkline_protocol::key::AccessKey::new(ACCESS_KEY)?);
        let good = trunkline_protocol::dial_in::sign_rest_token(&key, Some("bench"), u64::MAX >> 12);
        let admin = format!("http://{}", node.admin());
        let report = doctor(&url, &["--rest-token", &good, "--admin", &admin]).await?;
        assert_eq!(report.verdict("rest")?, "ok", "{report:#?}");
        assert!(report.of("webhook")?.1.starts_with("no valid answer at "), "{report:#?}");
        assert!(report.advice("webhook")?.contains("--upstream-webhook"), "{report:#?}");
        let other = trunkline_protocol::dial_in::sign_rest_token(&key, Some("other"), u64::MAX >> 12);
        let report = doctor(&url, &["--rest-token", &other]).await?;
        assert!(
            report.of("rest")?.1.starts_with("401: ") && report.advice("rest")?.contains("token rest"),
            "{report:#?}"
        );
        let off = doctor(&url, &["--rest", &admin]).await?;
        assert!(off.verdict("rest")? == "failed" && off.advice("rest")?.contains("--rest-listen"), "{off:#?}");
        assert!(!doctor(&url, &[]).await?.has("rest"));
        Ok(())
    });
}

#[test]
fn what_is_no_hub_or_nobody_at_all_is_said_so() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let node = fleet.proxy(&app).await?;
        let admin = doctor(&format!("http://{}/metrics", node.admin()), &[]).await?;
        assert_eq!(admin.verdict("negotiate")?, "failed", "{admin:#?}");
        let site = site().await?;
        let page = doctor(&format!("http://{site}/chat"), &[]).await?;
        assert!(page.of("negotiate")?.1.starts_with("not a SignalR response: 200, text/html"), "{page:#?}");
        let nobody = doctor("http://127.0.0.1:9/chat", &[]).await?;
        assert_eq!(nobody.verdict("connect")?, "failed");
        assert!(!nobody.has("negotiate"));
        Ok(())
    });
}

#[test]
fn a_certificate_of_an_unknown_authority_gets_no_token_and_a_named_one_does() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let node = fleet.proxy(&app).await?;
        let authority = Authority::new(fixture, "own")?;
        let own = text(&authority.file)?;
        let end = TlsEnd::start(&authority.sign("here", &["127.0.0.1"])?, node.address()).await?;
        let url = format!("https://{}/bench", end.address());
        let other = Authority::new(fixture, "other")?;
        let unknown = doctor(&url, &["--ca-file", text(&other.file)?]).await?;
        assert!(unknown.of("tls")?.1.contains("comes from no CA of --ca-file"), "{unknown:#?}");
        assert!(!unknown.has("negotiate"), "nothing was sent");
        let known = doctor(&url, &["--ca-file", own]).await?;
        assert!(known.of("tls")?.1.starts_with("TLS 1.3, a certificate for 127.0.0.1, for "), "{known:#?}");
        assert_eq!(known.all("failed"), Vec::<&str>::new(), "{known:#?}");
        let named = TlsEnd::start(&authority.sign("there", &["chat.example"])?, node.address()).await?;
        let report = doctor(&format!("https://{}/bench", named.address()), &["--ca-file", own]).await?;
        assert!(report.of("tls")?.1.contains("chat.example") && report.verdict("tls")? == "failed", "{report:#?}");
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

#[test]
fn nodes_that_do_not_know_each_others_ids_are_found_by_trying_again_and_again() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let stranger = Fleet::with_keys(fixture, "another-key-that-is-long-enough-too");
        let other_app = stranger.app(App::Bench).await?;
        let nodes = [fleet.proxy(&app).await?, stranger.proxy(&other_app).await?];
        let balancer = behind(fixture, &nodes, Shipped::read(BalancerProduct::HaProxy)?).await?;
        let report = doctor(&balancer.url("/bench"), &[]).await?;
        assert_eq!(report.verdict("nodes")?, "failed", "{report:#?}");
        assert!(report.advice("nodes")?.contains("--access-key"));
        Ok(())
    });
}
