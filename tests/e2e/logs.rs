//! Logs of a node: for people or as JSON, each line with the node's name, and levels that change while it runs.

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use trunkline_tests::harness::fleet::{App, Fleet, Proxy, failure_of};
use trunkline_tests::harness::http_client::{Answer, exchange, get};
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::play;
use trunkline_tests::harness::sockets::free_address;

const ADMIN_TOKEN: &str = "may-change-levels";

async fn put(proxy: &Proxy, body: &str) -> Result<Answer> {
    let headers = [("authorization", "Bearer may-change-levels")];
    exchange(proxy.admin(), Method::PUT, "/api/log", &headers, Bytes::copy_from_slice(body.as_bytes())).await
}

/// Connects a client and lets it go; how many lines of the log name a connection by then.
async fn lines_of_a_visit(proxy: &Proxy) -> Result<usize> {
    let client = RawClient::join(proxy.address(), "/bench").await?;
    client.close().await?;
    Ok(proxy.process.log().lines().filter(|line| line.contains("client connection closed")).count())
}

#[test]
fn lines_are_json_if_that_is_wanted_and_levels_change_at_run_time() {
    play(async |stage| {
        let fleet = Fleet::new(stage);
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
            (r#"{"levels":""}"#, "must say which levels"),
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
        let before = proxy.process.log().lines().count();
        put(&proxy, r#"{"levels":"off"}"#).await?;
        lines_of_a_visit(&proxy).await?;
        assert_eq!(proxy.process.log().lines().count(), before);
        let log = proxy.process.log();
        for line in log.lines().filter(|line| !line.starts_with("listening on") && !line.starts_with("admin on")) {
            let line: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
            assert!(line["time"].is_string() && line["level"].is_string() && line["message"].is_string(), "{line}");
            assert_eq!(line["node"], "seen", "{line}");
        }
        Ok(())
    });
}

#[test]
fn lines_for_people_name_the_node_and_levels_that_make_no_sense_are_an_error() {
    play(async |stage| {
        let fleet = Fleet::new(stage);
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
