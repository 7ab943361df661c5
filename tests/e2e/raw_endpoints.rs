//! Raw endpoints: text and binary messages in both directions, without a hub protocol, behind two proxies and embedded.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet, stop};
use trunkline_tests::harness::http_client::post;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::test_servers::{Setting, TestServers};
use trunkline_tests::harness::token;

const CHUNKS: usize = 1000;

/// Size of the official suites' large messages.
const LARGE_BYTES: usize = 1000 * 4096 + 32;

/// Runs behind two proxies and embedded.
fn on_each_ground(app: App, body: impl AsyncFn(&TestServers) -> Result<()>) {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        for setting in Setting::ALL {
            let test_servers = TestServers::start(&fleet, app, setting).await?;
            body(&test_servers).await.with_context(|| format!("{setting:?}"))?;
        }
        Ok(())
    });
}

/// Text for even numbers, bytes for odd ones; every tenth message is empty.
fn chunk(number: usize) -> Message {
    match number {
        _ if number % 10 == 9 => Message::binary(Vec::new()),
        _ if number.is_multiple_of(2) => Message::text(format!("chunk {number}: grüße")),
        _ => Message::binary(number.to_be_bytes().to_vec()),
    }
}

#[test]
fn a_thousand_chunks_come_back_whole_in_order_and_as_what_they_are() {
    on_each_ground(App::Functional, async |test_servers| {
        for index in 0..2 {
            let mut client = RawClient::open(test_servers.address(index), "/echo").await?;
            for number in 0..CHUNKS {
                client.send(chunk(number)).await?;
            }
            for number in 0..CHUNKS {
                assert_eq!(client.next_message().await?, chunk(number));
            }
        }
        Ok(())
    });
}

#[test]
fn a_large_message_stays_whole_and_one_that_is_too_large_ends_its_connection() {
    on_each_ground(App::Functional, async |test_servers| {
        let mut client = RawClient::open(test_servers.address(0), "/echo").await?;
        let large: String = "0123456789abcdef".chars().cycle().take(LARGE_BYTES).collect();
        client.send_text(large.as_str()).await?;
        ensure!(client.next_message().await?.into_text()?.as_str() == large, "it came back changed");
        // First bytes of a message without an end.
        let mut client = RawClient::open(test_servers.address(1), "/echo").await?;
        client.send_binary(vec![0; 8 * 1024 * 1024 + 1]).await?;
        assert_eq!(client.ending().await?.code, Some(1009));
        Ok(())
    });
}

#[test]
fn the_handler_knows_its_client_and_anybody_can_send_to_it_by_its_id() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Calls).await?;
        let [near, far] = fleet.two_proxies(&app).await?;
        let user = token::signed(ACCESS_KEY, &json!({ "nameid": "ann", "role": "cook" }))?;
        let negotiated =
            post(near.address(), &format!("/raw/negotiate?negotiateVersion=1&access_token={user}")).await?;
        let negotiated = negotiated.json()?;
        let text = |name: &str| negotiated.get(name).and_then(Value::as_str).context("a text is missing");
        let (id, token) = (text("connectionId")?, text("connectionToken")?);
        let path = format!("/raw?room=kitchen&id={token}&access_token={user}");
        let mut ann = RawClient::open(near.address(), &path).await?;
        ann.send_text("who").await?;
        let known: Value = serde_json::from_str(ann.next_message().await?.to_text()?)?;
        let expected = json!({
            "connectionId": id, "user": "ann", "role": "cook", "room": "kitchen", "agent": null, "hasAddress": true,
        });
        assert_eq!(known, expected);
        let mut bob = RawClient::open(far.address(), "/raw").await?;
        bob.send_text(format!("tell {id} it is me")).await?;
        assert_eq!(ann.next_message().await?, Message::text("it is me"));
        Ok(())
    });
}

#[test]
fn clients_go_away_with_their_proxy_and_with_their_app_server() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut app = fleet.app(App::Functional).await?;
        let [mut first, second] = fleet.two_proxies(&app).await?;
        let (ann, bob) =
            (RawClient::open(first.address(), "/echo").await?, RawClient::open(second.address(), "/echo").await?);
        let (stopped, ending) = tokio::join!(stop(&mut first.process, Signal::Terminate), ann.ending());
        stopped?;
        assert_eq!(ending?.code, Some(1001));
        let (killed, ending) = tokio::join!(app.process.kill(), bob.ending());
        killed?;
        assert_eq!(ending?.code, Some(1001));
        Ok(())
    });
}
