//! A slow client affects only itself: it is closed and counted, and other clients receive all messages. A slow hub
//! affects only its own callers.

use anyhow::Result;
use serde_json::{Value, json};
use trunkline_tests::harness::fleet::{App, Fleet, POOL_SIZE, Proxy};
use trunkline_tests::harness::http_transport::CarriedClient;
use trunkline_tests::harness::raw::{JSON_HANDSHAKE, RawClient};
use trunkline_tests::harness::scenario::{is_full, run_heavy_test, run_test, until};
use trunkline_tests::harness::sockets::established_at;

use crate::http_transports::call;

/// Outbox limit in addition to the system's buffers, and the time that a client over the limit may be stalled.
const SLOW_CLIENTS: [&str; 4] = ["--outbox-max-bytes", "262144", "--slow-client-timeout", "1"];
/// Total size far above outbox and buffers.
const MESSAGES: usize = 2_000;
const MESSAGE_BYTES: usize = 16_000;
/// Every so many messages, one is only for the slow client.
const DIRECT_EVERY: usize = 100;
/// 64 MB, more than all queues and buffers between a client and a slow method.
const FLOOD_MESSAGES: usize = 4_000;
const CALLS_BETWEEN: usize = 50;
/// Size of one message, more than all buffers between a proxy and a client that does not read.
const LARGE_BYTES: usize = 12_000_000;
/// Size of the first calls, below the queue limit of the app server.
const BEGINNING_BYTES: f64 = 50_000.0;

#[test]
fn a_client_over_its_limit_may_read_late_and_gets_everything() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let proxy = fleet.proxy_with(&[&app], &["--outbox-max-bytes", "262144"]).await?;
        let mut late = RawClient::join(proxy.address(), "/sends").await?;
        let mut sender = RawClient::join(proxy.address(), "/sends").await?;
        let padding = "x".repeat(MESSAGE_BYTES);
        for number in 0..MESSAGES {
            sender.call("ToAll", json!([format!("{number} {padding}")])).await?;
        }
        assert!(proxy.metrics().await?.sum("trunkline_outbox_bytes", &[]) > 262_144.0);
        for number in 0..MESSAGES {
            assert_eq!(number_of(&late.next_record().await?), Some(number));
        }
        assert_eq!(closed(&proxy, "slow_client").await?, 0.0);
        assert_eq!(proxy.metrics().await?.sum("trunkline_outbox_bytes", &[]), 0.0);
        Ok(())
    });
}

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
fn a_message_larger_than_the_outbox_reaches_a_client_that_reads() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Functional).await?;
        let proxy = fleet.proxy_with(&[&app], &["--outbox-max-bytes", "65536"]).await?;
        let mut client = RawClient::open(proxy.address(), "/echo").await?;
        let large = "x".repeat(2_000_000);
        for _ in 0..10 {
            client.send_text(large.clone()).await?;
            assert_eq!(client.next_message().await?.into_text()?, large);
        }
        assert_eq!(closed(&proxy, "slow_client").await?, 0.0);
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

#[test]
fn when_too_much_waits_for_all_together_those_who_do_not_read_are_closed() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], &["--outbox-total-max-bytes", "1048576"]).await?;
        let mut slow = Vec::new();
        for _ in 0..4 {
            slow.push(RawClient::join(proxy.address(), "/bench").await?);
        }
        let mut sender = RawClient::join(proxy.address(), "/bench").await?;
        let padding = "x".repeat(MESSAGE_BYTES);
        for number in 0..MESSAGES {
            let call = json!({ "type": 1, "target": "Broadcast", "arguments": [format!("{number} {padding}")] });
            sender.send_text(format!("{call}\u{1e}")).await?;
            assert_eq!(number_of(&sender.next_record().await?), Some(number));
        }
        until(async || Ok((closed(&proxy, "outbox_total").await? >= 4.0).then_some(()))).await?;
        let counts = (closed(&proxy, "outbox_total").await?, closed(&proxy, "slow_client").await?);
        assert_eq!(counts, (4.0, 0.0));
        assert_eq!(proxy.metrics().await?.sum("trunkline_outbox_bytes", &[]), 0.0);
        Ok(())
    });
}

#[test]
fn where_the_hub_wants_it_a_slow_client_misses_what_many_get_and_nothing_else() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let proxy = fleet.proxy_with(&[&app], &SLOW_CLIENTS).await?;
        let mut slow = RawClient::join(proxy.address(), "/lossy").await?;
        let id = slow.call("ConnectionId", json!([])).await?["result"].clone();
        let mut sender = RawClient::join(proxy.address(), "/lossy").await?;
        let padding = "x".repeat(MESSAGE_BYTES);
        for number in 0..MESSAGES {
            sender.call("ToAll", json!([format!("{number} {padding}")])).await?;
            if number % DIRECT_EVERY == 0 {
                sender.call("ToClient", json!([id, format!("direct {number}")])).await?;
            }
        }
        sender.call("ToClient", json!([id, "end"])).await?;
        let (mut to_many, mut direct) = (Vec::new(), Vec::new());
        loop {
            let record = slow.next_record().await?;
            match (number_of(&record), record["arguments"][0].as_str()) {
                (Some(number), _) => to_many.push(number),
                (None, Some("end")) => break,
                (None, text) => direct.push(text.unwrap_or_default().to_owned()),
            }
        }
        let all_direct: Vec<_> = (0..MESSAGES).step_by(DIRECT_EVERY).map(|number| format!("direct {number}")).collect();
        assert_eq!(direct, all_direct);
        assert!(to_many.is_sorted() && to_many.len() < MESSAGES, "{to_many:?}");
        let dropped = proxy.metrics().await?.sum("trunkline_frames_dropped_total", &[("reason", "slow_client")]);
        assert_eq!(to_many.len() as f64 + dropped, MESSAGES as f64);
        assert_eq!(slow.call("Add", json!([1, 2])).await?["result"], 3, "it is open still");
        assert_eq!(closed(&proxy, "slow_client").await?, 0.0);
        assert_eq!(proxy.metrics().await?.sum("trunkline_outbox_bytes", &[]), 0.0);
        Ok(())
    });
}

#[test]
fn a_method_that_never_ends_stops_its_own_caller_and_nobody_else() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let proxy = fleet.proxy(&app).await?;
        // More clients than links, so that each link has some.
        let mut stuck = Vec::new();
        for _ in 0..2 * POOL_SIZE {
            let mut client = RawClient::join(proxy.address(), "/sends").await?;
            let hang = json!({ "type": 1, "target": "Hang", "arguments": [] });
            client.send_text(format!("{hang}\u{1e}").repeat(CALLS_BETWEEN)).await?;
            stuck.push(client);
        }
        for _ in 0..2 * POOL_SIZE {
            let mut other = RawClient::join(proxy.address(), "/sends").await?;
            for number in 0..CALLS_BETWEEN {
                assert_eq!(other.call("Add", json!([number, 1])).await?["result"], number + 1);
            }
            other.close().await?;
        }
        let mut other = RawClient::join(proxy.address(), "/sends").await?;
        other.call("ToAll", json!(["hello"])).await?;
        for client in &mut stuck {
            assert_eq!(client.next_record().await?["arguments"][0], "hello", "what is sent to it still comes");
        }
        Ok(())
    });
}

#[test]
fn a_client_that_floods_a_slow_method_is_read_no_further_and_the_others_notice_nothing() {
    run_heavy_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let proxy = fleet.proxy(&app).await?;
        let mut other = RawClient::join(proxy.address(), "/sends").await?;
        let mut flooding = RawClient::join(proxy.address(), "/sends").await?;
        let before = upward_bytes(&proxy).await?;
        let call = json!({ "type": 1, "target": "Dawdle", "arguments": ["x".repeat(MESSAGE_BYTES)] });
        let flood = tokio::spawn(async move {
            for _ in 0..FLOOD_MESSAGES {
                flooding.send_text(format!("{call}\u{1e}")).await?;
            }
            anyhow::Ok(())
        });
        // Until only the capacity that the slow calls leave is used.
        let mut last = before;
        loop {
            for number in 0..CALLS_BETWEEN {
                assert_eq!(other.call("Add", json!([number, 1])).await?["result"], number + 1);
            }
            let now = upward_bytes(&proxy).await?;
            let (has_begun, is_held) = (now - before > BEGINNING_BYTES, now - last < BEGINNING_BYTES);
            if has_begun && is_held {
                break;
            }
            last = now;
        }
        assert!(!flood.is_finished(), "it is held back");
        let carried = upward_bytes(&proxy).await? - before;
        assert!(carried < (FLOOD_MESSAGES * MESSAGE_BYTES / 4) as f64, "{carried} bytes wait in the app server");
        flood.abort();
        Ok(())
    });
}

fn number_of(record: &Value) -> Option<usize> {
    record["arguments"][0].as_str()?.split(' ').next()?.parse().ok()
}

async fn closed(proxy: &Proxy, cause: &str) -> Result<f64> {
    Ok(proxy.metrics().await?.sum("trunkline_client_connections_closed_total", &[("cause", cause)]))
}

async fn upward_bytes(proxy: &Proxy) -> Result<f64> {
    Ok(proxy.metrics().await?.sum("trunkline_link_bytes_total", &[("direction", "up"), ("kind", "message")]))
}
