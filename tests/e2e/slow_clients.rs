//! A slow client affects only itself: it is closed and counted, and other clients receive all messages.

use anyhow::Result;
use serde_json::json;
use trunkline_tests::harness::fleet::{App, Fleet, Proxy};
use trunkline_tests::harness::http_transport::CarriedClient;
use trunkline_tests::harness::raw::{JSON_HANDSHAKE, RawClient};
use trunkline_tests::harness::scenario::{is_full, run_heavy_test, until};
use trunkline_tests::harness::sockets::established_at;

use crate::http_transports::call;

/// Outbox limit in addition to the system's buffers, and the time that a client over the limit may be stalled.
const SLOW_CLIENTS: [&str; 4] = ["--outbox-max-bytes", "262144", "--slow-client-timeout", "1"];
/// Total size far above outbox and buffers.
const MESSAGES: usize = 2_000;
const MESSAGE_BYTES: usize = 16_000;
const CALLS_BETWEEN: usize = 50;
/// Size of one message, more than all buffers between a proxy and a client that does not read.
const LARGE_BYTES: usize = 12_000_000;

#[test]
fn a_client_that_does_not_read_is_closed_and_the_others_get_everything_in_order() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], &SLOW_CLIENTS).await?;
        let slow = RawClient::join(proxy.address(), "/bench").await?;
        let mut sender = RawClient::join(proxy.address(), "/bench").await?;
        let padding = "x".repeat(MESSAGE_BYTES);
        for number in 0..MESSAGES {
            // Sequential, so that the sender itself is never slow.
            let call = json!({ "type": 1, "target": "Broadcast", "arguments": [format!("{number} {padding}")] });
            sender.send_text(format!("{call}\u{1e}")).await?;
            let received = sender.next_record().await?;
            let text = received["arguments"][0].as_str().unwrap_or_default();
            assert_eq!(text.split(' ').next(), Some(number.to_string().as_str()));
        }
        let slow_clients = async || {
            let labels = [("cause", "slow_client")];
            let closed = proxy.metrics().await?.sum("trunkline_client_connections_closed_total", &labels);
            Ok((closed >= 1.0).then_some(closed))
        };
        assert!((until(slow_clients).await? - 1.0).abs() < f64::EPSILON);
        // The system's buffers still contain the first messages, without gaps.
        let numbers = slow.ending().await?.messages()?;
        let numbers: Vec<_> = numbers.iter().filter(|message| message["type"] == 1).collect();
        assert!(numbers.len() < MESSAGES);
        for (number, message) in numbers.iter().enumerate() {
            let text = message["arguments"][0].as_str().unwrap_or_default();
            assert_eq!(text.split(' ').next(), Some(number.to_string().as_str()));
        }
        Ok(())
    });
}

#[test]
fn who_reads_nothing_loses_its_socket_too_when_its_connection_is_over() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], &SLOW_CLIENTS).await?;
        let _web_socket = RawClient::join(proxy.address(), "/bench").await?;
        // A node that only relays the stream does not notice its end, and waits for a minute.
        let carrying = if is_full() { Some(fleet.proxy(&app).await?) } else { None };
        let mut streams = Vec::new();
        for node in [Some(&proxy), carrying.as_ref()].into_iter().flatten() {
            let client = CarriedClient::negotiate(proxy.address(), "/bench").await?;
            streams.push(client.at(node.address()).unread("text/event-stream").await?);
            assert_eq!(client.send(JSON_HANDSHAKE).await?.status, 200);
        }
        let mut sender = RawClient::join(proxy.address(), "/bench").await?;
        let padding = "x".repeat(MESSAGE_BYTES);
        while closed(&proxy, "slow_client").await? < (1 + streams.len()) as f64 {
            for _ in 0..CALLS_BETWEEN {
                sender.call("Broadcast", json!([padding])).await?;
            }
        }
        // No stream has been read or closed by its client.
        for stream in &streams {
            stream.reset().await?;
        }
        // The client has not read up to the end of the WebSocket, but the proxy has dropped the client.
        until(async || Ok((established_at(proxy.address())? == 1).then_some(()))).await?;
        sender.call("Echo", json!([1])).await?;
        Ok(())
    });
}

#[test]
fn who_does_not_read_the_answer_to_a_poll_loses_its_socket_too() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let room = (2 * LARGE_BYTES).to_string();
        let proxy = fleet.proxy_with(&[&app], &["--disconnect-timeout", "1", "--outbox-max-bytes", &room]).await?;
        let client = CarriedClient::join(proxy.address(), "/sends", JSON_HANDSHAKE).await?;
        assert_eq!(client.send(&call(1, "Repeat", &json!(["x", LARGE_BYTES]))).await?.status, 200);
        // The client no longer polls, so it is closed, but its last response is unsent.
        client.unread("*/*").await?.reset().await
    });
}

async fn closed(proxy: &Proxy, cause: &str) -> Result<f64> {
    Ok(proxy.metrics().await?.sum("trunkline_client_connections_closed_total", &[("cause", cause)]))
}
