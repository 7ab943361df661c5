//! A slow client hurts only itself: it is closed and counted, and all others get everything.
//! A slow hub slows its own callers, and nobody else.

use anyhow::Result;
use serde_json::json;
use trunkline_tests::fleet::{App, Fleet, Proxy};
use trunkline_tests::raw::RawClient;
use trunkline_tests::scenario::{play_heavy, until};

/// What a client that reads nothing may have waiting, beside what the system's buffers take.
const OUTBOX_MAX_BYTES: &str = "262144";
/// Far more than both together.
const MESSAGES: usize = 2_000;
const MESSAGE_BYTES: usize = 16_000;
/// 64 MB: more than any queue or buffer between a client and a slow method may take.
const FLOOD_MESSAGES: usize = 4_000;
const CALLS_BETWEEN: usize = 50;
/// Fewer than a client may have waiting in the app server.
const BEGINNING_BYTES: f64 = 50_000.0;

#[test]
fn a_client_that_does_not_read_is_closed_and_the_others_get_everything_in_order() {
    play_heavy(async |stage| {
        let fleet = Fleet::new(stage);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy_with(&[&app], &["--outbox-max-bytes", OUTBOX_MAX_BYTES]).await?;
        let slow = RawClient::join(proxy.address(), "/bench").await?;
        let mut sender = RawClient::join(proxy.address(), "/bench").await?;
        let padding = "x".repeat(MESSAGE_BYTES);
        for number in 0..MESSAGES {
            // One at a time, so that the sender itself is never the slow one.
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
        // What still comes out of the system's buffers is a beginning without gaps.
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
fn a_client_that_floods_a_slow_method_is_read_no_further_and_the_others_notice_nothing() {
    play_heavy(async |stage| {
        let fleet = Fleet::new(stage);
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
        // Until the links carry no more than what the dawdling calls make room for.
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

async fn upward_bytes(proxy: &Proxy) -> Result<f64> {
    Ok(proxy.metrics().await?.sum("trunkline_link_bytes_total", &[("direction", "up"), ("kind", "message")]))
}
