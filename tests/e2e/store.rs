//! The store in NATS: real servers, which nodes outlive and which outlive nodes.

use std::time::Duration;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;
use trunkline_tests::harness::back_end::BackEnd;
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::http_client::{ask, exchange, get};
use trunkline_tests::harness::nats::Nats;
use trunkline_tests::harness::scenario::{Fixture, profile_folder, run_test, until};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::token;
use trunkline_tests::harness::tools::run;

const ADMIN_TOKEN: &str = "the-admin-token-of-the-fleet";

/// Two nodes of a fleet with a store.
struct StoreScene<'a> {
    fleet: Fleet<'a>,
    app: AppServer,
    nats: String,
    admins: [String; 2],
    nodes: Vec<Proxy>,
}

impl<'a> StoreScene<'a> {
    async fn open(fixture: &'a Fixture, nats: &str) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Members).await?;
        let admins = [free_address()?, free_address()?];
        let mut scene = Self { fleet, app, nats: nats.into(), admins, nodes: Vec::new() };
        scene.start()?;
        scene.ready().await?;
        Ok(scene)
    }

    /// Starts both nodes, without waiting.
    fn start(&mut self) -> Result<()> {
        let peers = self.admins.clone().map(|admin| format!("http://{admin}")).join(",");
        for (admin, name) in self.admins.clone().iter().zip(["node-a", "node-b"]) {
            let more = [
                &["--node-name", name, "--admin-token", ADMIN_TOKEN, "--peers", &peers, "--rest"][..],
                &["--nats", &self.nats],
            ]
            .concat();
            let node = self.fleet.proxy_of(&free_address()?, admin, &[self.app.address()], &more)?;
            self.nodes.push(node);
        }
        Ok(())
    }

    async fn ready(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.ready().await?;
        }
        Ok(())
    }

    async fn kill_all(&mut self) -> Result<()> {
        for mut node in self.nodes.drain(..) {
            node.process.kill().await?;
        }
        Ok(())
    }

    async fn revoke(&self, node: usize, user: &str) -> Result<Value> {
        let bearer = format!("Bearer {ADMIN_TOKEN}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = json!({ "user": user }).to_string().into();
        let node = self.nodes.get(node).context("there is no such node")?;
        let answer = exchange(node.admin(), Method::POST, "/api/revocations", &headers, body).await?;
        anyhow::ensure!(answer.status == 200, "{answer:?}");
        answer.json()
    }

    fn back_end(&self, node: usize) -> Result<BackEnd> {
        BackEnd::trusted(self.nodes.get(node).context("there is no such node")?.address(), "open", ACCESS_KEY)
    }

    /// Status of a negotiation with a token, at each node.
    async fn negotiate(&self, token: &str) -> Result<Vec<u16>> {
        let (mut all, bearer) = (Vec::new(), format!("Bearer {token}"));
        for node in &self.nodes {
            let path = "/open/negotiate?negotiateVersion=1";
            let answer = ask(node.address(), Method::POST, path, &[("authorization", &bearer)]).await?;
            all.push(answer.status.as_u16());
        }
        Ok(all)
    }

    async fn settles(&self, name: &str, value: f64) -> Result<()> {
        for node in &self.nodes {
            until(async || Ok((node.metrics().await?.sum(name, &[]) == value).then_some(()))).await?;
        }
        Ok(())
    }
}

const JOIN: &str = "/users/ann/groups/red?ttl=600";
const IS_IN: &str = "/users/ann/groups/red";

#[test]
fn what_was_revoked_and_joined_outlives_all_nodes() {
    run_test(async |fixture| {
        let nats = Nats::alone(fixture).await?;
        let mut scene = StoreScene::open(fixture, &format!("nats://{}", nats.address())).await?;
        let (ann, ben) = (token::of_user(ACCESS_KEY, "ann")?, token::of_user(ACCESS_KEY, "ben")?);
        assert_eq!(scene.negotiate(&ben).await?, [200, 200]);
        assert_eq!(scene.revoke(0, "ben").await?["stored"], true);
        let odd = "/users/.%20%2A%3E%C3%A9/groups/r.%2A%3E%20d?ttl=600";
        for path in [JOIN, odd, "/users/ann/groups/short?ttl=1", "/users/ann/groups/left?ttl=600"] {
            assert_eq!(scene.back_end(0)?.status(Method::PUT, path).await?, 200, "{path}");
        }
        assert_eq!(scene.back_end(1)?.status(Method::DELETE, "/users/ann/groups/left").await?, 204);
        scene.settles("trunkline_store_unwritten", 0.0).await?;
        scene.kill_all().await?;
        scene.start()?;
        // From the first request on: each is refused until the store is read, and then because of the revocation.
        until(async || {
            let statuses = scene.negotiate(&ben).await;
            let Ok(statuses) = statuses else { return Ok(None) };
            assert!(!statuses.contains(&200), "{statuses:?}");
            Ok((statuses == [401, 401]).then_some(()))
        })
        .await?;
        scene.ready().await?;
        assert_eq!(scene.negotiate(&ann).await?, [200, 200]);
        for node in 0..2 {
            let back_end = scene.back_end(node)?;
            assert_eq!(back_end.status(Method::GET, IS_IN).await?, 200);
            assert_eq!(back_end.status(Method::GET, odd.trim_end_matches("?ttl=600")).await?, 200);
            assert_eq!(back_end.status(Method::GET, "/users/ann/groups/left").await?, 404);
            // The short one has its rest of life.
            until(async || Ok((back_end.status(Method::GET, "/users/ann/groups/short").await? == 404).then_some(())))
                .await?;
        }
        Ok(())
    });
}

#[test]
fn while_the_store_is_away_revocations_take_effect_and_are_written_later() {
    run_test(async |fixture| {
        let mut nats = Nats::alone(fixture).await?;
        let mut scene = StoreScene::open(fixture, &format!("nats://{}", nats.address())).await?;
        assert_eq!(scene.back_end(0)?.status(Method::PUT, JOIN).await?, 200);
        nats.process.kill().await?;
        let ben = token::of_user(ACCESS_KEY, "ben")?;
        assert_eq!(scene.revoke(1, "ben").await?["stored"], false);
        let mut revoke = Command::new(profile_folder()?.join("trunkline"));
        let admin = scene.nodes.first().context("no node")?.admin();
        revoke.args(["revoke", "--user", "eve", "--admin", admin]).env("TRUNKLINE_ADMIN_TOKEN", ADMIN_TOKEN);
        assert!(run(&mut revoke).await?.contains("; in effect, not stored yet"));
        assert_eq!(scene.negotiate(&ben).await?, [401, 401]);
        let refused = scene.back_end(0)?.ask(Method::PUT, "/users/ann/groups/blue?ttl=600", &Value::Null).await?;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.body);
        assert!(refused.header("retry-after").is_some());
        assert_eq!(scene.back_end(0)?.status(Method::GET, IS_IN).await?, 200, "reads go on");
        assert_eq!(scene.back_end(1)?.status(Method::GET, "/users/ann/groups/blue").await?, 404, "nothing half done");
        for node in &scene.nodes {
            until(async || {
                let ready = get(node.admin(), "/readyz").await?;
                assert_eq!(ready.status, 200, "a running node stays ready");
                Ok(ready.body.contains("store-unreachable: store").then(|| {
                    assert!(ready.body.contains(nats.address()), "{}", ready.body);
                }))
            })
            .await?;
        }
        nats.start_again(fixture).await?;
        scene.settles("trunkline_store_connected", 1.0).await?;
        scene.settles("trunkline_store_unwritten", 0.0).await?;
        scene.kill_all().await?;
        scene.start()?;
        scene.ready().await?;
        assert_eq!(scene.negotiate(&ben).await?, [401, 401]);
        Ok(())
    });
}

#[test]
fn a_node_without_its_store_says_why_and_serves_nobody() {
    run_test(async |fixture| {
        let (fleet, address) = (Fleet::new(fixture), free_address()?);
        let users = "authorization { user: ann, password: right }";
        let _nats = Nats::start(fixture, &address, "nats", &[], users).await?;
        let app = fleet.app(App::Members).await?;
        let url = format!("nats://ann:wrong-password@{address}");
        let flags = ["--nats", url.as_str()];
        let node = fleet.proxy_of(&free_address()?, &free_address()?, &[app.address()], &flags)?;
        until(async || {
            let Ok(ready) = get(node.admin(), "/readyz").await else { return Ok(None) };
            let says_why = ready.body.to_lowercase().contains("authorization violation");
            assert!(!ready.body.contains("wrong-password"), "{}", ready.body);
            Ok((ready.status == 503 && says_why && ready.body.contains(&address)).then_some(()))
        })
        .await?;
        assert_eq!(get(node.admin(), "/startupz").await?.status, 503);
        assert_eq!(get(node.admin(), "/healthz").await?.status, 200);
        let negotiated = ask(node.address(), Method::POST, "/open/negotiate?negotiateVersion=1", &[]).await?;
        assert_eq!(negotiated.status, 503, "{}", negotiated.body);
        assert!(!node.process.log().contains("wrong-password"));
        Ok(())
    });
}

#[test]
fn every_acknowledged_write_survives_the_kill_of_each_server_in_turn() {
    run_test(async |fixture| {
        let mut servers = Nats::cluster(fixture).await?;
        let mut scene = StoreScene::open(fixture, &Nats::urls(&servers)).await?;
        let mut acknowledged = Vec::new();
        for (round, server) in servers.iter_mut().enumerate() {
            server.process.kill().await?;
            let end = tokio::time::Instant::now() + Duration::from_secs(4);
            let (mut number, mut written) = (0, 0);
            // Two of three servers go on, as soon as they have elected leaders.
            while tokio::time::Instant::now() < end || written == 0 {
                let path = format!("/users/ann-{round}-{number}/groups/red");
                if scene.back_end(number % 2)?.status(Method::PUT, &format!("{path}?ttl=600")).await? == 200 {
                    acknowledged.push(path);
                    written += 1;
                }
                let user = format!("ben-{round}-{number}");
                scene.revoke(number % 2, &user).await?;
                number += 1;
            }
            server.start_again(fixture).await?;
            scene.settles("trunkline_store_unwritten", 0.0).await?;
        }
        scene.kill_all().await?;
        scene.start()?;
        scene.ready().await?;
        for path in &acknowledged {
            assert_eq!(scene.back_end(1)?.status(Method::GET, path).await?, 200, "{path}");
        }
        let revoked = token::of_user(ACCESS_KEY, "ben-2-0")?;
        assert_eq!(scene.negotiate(&revoked).await?, [401, 401]);
        Ok(())
    });
}
