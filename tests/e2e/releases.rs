//! Releases of an app that remove or rename a hub, one app server at a time: no node leaves its load balancer, and the
//! hub is removed.

use std::collections::BTreeSet;

use anyhow::Result;
use http::StatusCode;
use tokio::time::{Duration, sleep};
use trunkline_tests::harness::fleet::{App, Fleet, POOL_SIZE, Proxy, stop};
use trunkline_tests::harness::http_client::{get, post};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{run_test, until};

/// Times after which a hub is removed.
const SOON: [&str; 4] = ["--hold-timeout", "2", "--resume-window", "2"];

/// Requests readiness in a loop, like a load balancer.
async fn ask_readiness(node: &Proxy, seen: &mut BTreeSet<u16>) -> Result<()> {
    loop {
        seen.insert(get(node.admin(), "/readyz").await?.status.as_u16());
        // sleep: polling interval, without a condition
        sleep(Duration::from_millis(20)).await;
    }
}

async fn negotiated(node: &Proxy, hub: &str) -> Result<StatusCode> {
    Ok(post(node.address(), &format!("/{hub}/negotiate?negotiateVersion=1")).await?.status)
}

async fn forgets(node: &Proxy, hub: &str) -> Result<()> {
    until(async || Ok((negotiated(node, hub).await? == StatusCode::NOT_FOUND).then_some(()))).await
}

#[test]
fn a_node_stays_ready_while_a_release_drops_a_hub_and_then_knows_it_no_more() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let (mut old, other) = (fleet.app(App::Moves).await?, fleet.app(App::Bench).await?);
        let mut node = fleet.proxy_with(&[&old, &other], &SOON).await?;
        let mut seen = BTreeSet::new();
        let release = async {
            assert_eq!(negotiated(&node, "moves").await?, StatusCode::OK);
            let mut client = RawClient::join(node.address(), "/bench").await?;
            stop(&mut old.process, Signal::Terminate).await?;
            until(async || {
                let answer = get(node.admin(), "/readyz").await?;
                Ok(answer.body.contains("warning: no app server serves these hubs: moves").then_some(()))
            })
            .await?;
            let new = fleet.app_at(App::Bench, old.address(), &[])?;
            node.linked(2 * POOL_SIZE).await?;
            forgets(&node, "moves").await?;
            assert_eq!(get(node.admin(), "/readyz").await?.body, "ready\n");
            assert_eq!(client.call("Echo", serde_json::json!([1])).await?["result"], 1);
            client.close().await?;
            drop(new);
            anyhow::Ok(())
        };
        tokio::select! {
            released = release => released?,
            asked = ask_readiness(&node, &mut seen) => asked?,
        }
        assert_eq!(seen, BTreeSet::from([200]));
        stop(&mut node.process, Signal::Terminate).await
    });
}

#[test]
fn a_node_whose_only_app_server_comes_back_with_another_hub_is_ready_again() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut old = fleet.app(App::Moves).await?;
        let mut node = fleet.proxy_with(&[&old], &SOON).await?;
        stop(&mut old.process, Signal::Terminate).await?;
        node.readiness(StatusCode::SERVICE_UNAVAILABLE).await?;
        let _new = fleet.app_at(App::Bench, old.address(), &[])?;
        node.ready().await?;
        forgets(&node, "moves").await?;
        assert_eq!(negotiated(&node, "bench").await?, StatusCode::OK);
        Ok(())
    });
}
