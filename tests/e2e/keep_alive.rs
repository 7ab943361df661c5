//! Keep-alives end at the proxy: it pings clients and checks their pings, without frames on links.

use serde_json::json;
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::run_test;

const PING: &str = "{\"type\":6}\u{1e}";
const FRAMES: &str = "trunkline_link_frames_total";

#[test]
fn the_proxy_pings_idle_clients_and_the_app_server_hears_nothing_of_it() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let proxy = fleet.proxy(&app).await?;
        let mut client = RawClient::join(proxy.address(), "/lively").await?;
        let messages = async || anyhow::Ok(proxy.metrics().await?.sum(FRAMES, &[("kind", "message")]));
        client.next_ping().await?;
        let before = messages().await?;
        for _ in 0..5 {
            client.next_ping().await?;
            client.send_text(PING).await?;
        }
        assert!((messages().await? - before).abs() < f64::EPSILON);
        Ok(())
    });
}

#[test]
fn a_client_that_has_pinged_once_must_not_fall_silent_but_one_that_never_did_may() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let proxy = fleet.proxy(&app).await?;
        let mut never_pinged = RawClient::join(proxy.address(), "/lively").await?;
        let mut pinged_once = RawClient::join(proxy.address(), "/lively").await?;
        pinged_once.send_text(PING).await?;
        let closed = json!({ "type": 7, "error": "Connection closed with an error.", "allowReconnect": true });
        assert_eq!(pinged_once.ending().await?.messages()?, [closed]);
        assert_eq!(never_pinged.call("Add", json!([1, 2])).await?["result"], 3);
        Ok(())
    });
}
