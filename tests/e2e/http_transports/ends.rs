//! Relayed connections end like all others, closed by either side, and leave no state.

use serde_json::json;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, Fleet, stop};
use trunkline_tests::harness::http_transport::CarriedClient;
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::raw::JSON_HANDSHAKE;
use trunkline_tests::harness::scenario::{run_test, until};

use super::{call, poll_to_the_end};

const COME_AGAIN: &str = "{\"type\":7,\"allowReconnect\":true}\u{1e}";

#[test]
fn a_client_that_polls_no_more_is_given_up_and_the_app_is_told() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Status).await?;
        let proxy = fleet.proxy_with(&[&app], &["--disconnect-timeout", "1"]).await?;
        let agents = Agents::new(fixture);
        let watcher = agents.client(Kind::JsJson, &proxy.url("/statusHub")).subscribe(&["online", "offline"]);
        let mut watcher = watcher.open().await?;
        let client = CarriedClient::join(proxy.address(), "/statusHub", JSON_HANDSHAKE).await?;
        assert_eq!(client.send(&call(1, "SendPing", &json!(["lobby"]))).await?.status, 200);
        assert_eq!(watcher.expect("online").await?, ["lobby"]);
        // Sends nothing further.
        assert_eq!(watcher.expect("offline").await?, ["lobby"]);
        assert_eq!(client.poll().await?.status, 404);
        Ok(())
    });
}

#[test]
fn a_broken_event_stream_ends_its_client_at_once() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Status).await?;
        let proxy = fleet.proxy(&app).await?;
        let agents = Agents::new(fixture);
        let watcher = agents.client(Kind::JsJson, &proxy.url("/statusHub")).subscribe(&["online", "offline"]);
        let mut watcher = watcher.open().await?;
        let client = CarriedClient::negotiate(proxy.address(), "/statusHub").await?;
        let mut events = client.events().await?;
        assert_eq!(client.send(JSON_HANDSHAKE).await?.status, 200);
        assert_eq!(client.send(&call(1, "SendPing", &json!(["lobby"]))).await?.status, 200);
        events.until("online").await?;
        assert_eq!(watcher.expect("online").await?, ["lobby"]);
        drop(events);
        assert_eq!(watcher.expect("offline").await?, ["lobby"]);
        Ok(())
    });
}

#[test]
fn a_connection_that_never_got_its_first_get_is_forgotten() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], &["--disconnect-timeout", "1"]).await?;
        let client = CarriedClient::negotiate(proxy.address(), "/bench").await?;
        assert_eq!(client.send(JSON_HANDSHAKE).await?.status, 200);
        until(async || Ok((client.delete().await?.status == 404).then_some(()))).await?;
        assert_eq!(client.poll().await?.status, 404, "its token does not revive it");
        Ok(())
    });
}

#[test]
fn a_poll_without_messages_is_answered_in_time() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], &["--poll-timeout", "1"]).await?;
        let client = CarriedClient::join(proxy.address(), "/bench", JSON_HANDSHAKE).await?;
        let answer = client.poll().await?;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, ""));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        Ok(())
    });
}

#[test]
fn a_node_that_stops_says_so_to_polls_and_event_streams() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let mut proxy = fleet.proxy(&app).await?;
        let polling = CarriedClient::join(proxy.address(), "/bench", JSON_HANDSHAKE).await?;
        let streaming = CarriedClient::negotiate(proxy.address(), "/bench").await?;
        let mut events = streaming.events().await?;
        assert_eq!(streaming.send(JSON_HANDSHAKE).await?.status, 200);
        events.until("{}\u{1e}\r\n\r\n").await?;
        // An earlier message occupies the connection of the poll, so the poll waits for the next one.
        assert_eq!(polling.send(&call(1, "Echo", &json!([1]))).await?.status, 200);
        polling.poll().await?;
        let (polled, streamed, stopped) =
            tokio::join!(poll_to_the_end(&polling), events.rest(), stop(&mut proxy.process, Signal::Terminate));
        stopped?;
        assert_eq!(streamed?, format!("data: {COME_AGAIN}\r\n\r\n"));
        assert_eq!(polled?, COME_AGAIN);
        Ok(())
    });
}

#[test]
fn a_client_that_loses_its_app_server_is_told_to_come_again() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], &["--hold-timeout", "0"]).await?;
        let polling = CarriedClient::join(proxy.address(), "/bench", JSON_HANDSHAKE).await?;
        stop(&mut app.process, Signal::Terminate).await?;
        assert_eq!(poll_to_the_end(&polling).await?, COME_AGAIN);
        assert_eq!(polling.poll().await?.status, 404);
        Ok(())
    });
}

#[test]
fn a_broken_rule_ends_a_polled_connection_with_the_reason() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;
        let client = CarriedClient::join(proxy.address(), "/bench", JSON_HANDSHAKE).await?;
        // The message exceeds the limit, but not the request.
        let sent = client.send(&"x".repeat(40_000)).await?;
        assert_eq!(sent.status, 200);
        let text = poll_to_the_end(&client).await?;
        assert_eq!(text, "{\"type\":7,\"error\":\"Connection closed with an error.\",\"allowReconnect\":true}\u{1e}");
        Ok(())
    });
}

#[test]
fn official_clients_notice_that_their_node_stops() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let mut proxy = fleet.proxy(&app).await?;
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        for transport in super::libraries::CARRIED {
            let client = agents.client(Kind::JsJson, &proxy.url("/bench")).transport(transport).open().await?;
            client.invoke("Echo", json!([1])).await?;
            clients.push(client);
        }
        stop(&mut proxy.process, Signal::Terminate).await?;
        for client in &mut clients {
            client.closed().await?;
        }
        Ok(())
    });
}
