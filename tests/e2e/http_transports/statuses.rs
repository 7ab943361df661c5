//! Statuses of each request.

use anyhow::Result;
use http::Method;
use serde_json::json;
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::http_client::{Answer, ask, post};
use trunkline_tests::harness::http_transport::CarriedClient;
use trunkline_tests::harness::raw::{JSON_HANDSHAKE, MESSAGE_PACK_HANDSHAKE, RawClient};
use trunkline_tests::harness::scenario::{Fixture, run_test};
use trunkline_tests::harness::test_servers::{Setting, TestServers};

use super::{call, completion, poll_to_the_end};

const UNKNOWN: (u16, &str) = (404, "No Connection with that ID");
const CHANGED: (u16, &str) = (400, "Cannot change transports mid-connection");

/// Runs with a proxy and with an embedded app server.
fn run_on_each(app: App, body: impl AsyncFn(&str) -> Result<()>) {
    run_test(async |fixture: &Fixture| {
        let fleet = Fleet::new(fixture);
        for setting in Setting::ALL {
            let test_servers = TestServers::start(&fleet, app, setting).await?;
            body(test_servers.address(0)).await?;
        }
        Ok(())
    });
}

fn told(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.body.as_str())
}

fn assert_poll_headers(answer: &Answer, content_type: &str) {
    assert_eq!(answer.header("cache-control"), Some("no-cache, no-store"));
    assert_eq!(answer.header("pragma"), Some("no-cache"));
    assert_eq!(answer.header("expires"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
    assert_eq!(answer.header("content-type"), Some(content_type));
}

#[test]
fn long_polling_from_the_first_poll_to_the_delete() {
    run_on_each(App::Bench, async |address| {
        let client = CarriedClient::negotiate(address, "/bench").await?;
        let first = client.poll().await?;
        assert_eq!((told(&first), first.header("content-length")), ((200, ""), Some("0")));
        assert_poll_headers(&first, "application/octet-stream");

        let (welcome, sent) = tokio::try_join!(client.poll(), client.send(JSON_HANDSHAKE))?;
        assert_eq!((told(&sent), sent.header("content-type")), ((200, ""), Some("text/plain")));
        assert_eq!(told(&welcome), (200, "{}\u{1e}"));
        assert_poll_headers(&welcome, "application/octet-stream");

        // Several messages in one body, and one message split over several.
        let calls: String = (1..=3).map(|id| call(id, "Echo", &json!([id]))).collect();
        let (start, end) = calls.split_at(calls.len() - 5);
        assert_eq!(told(&client.send(start).await?), (200, ""));
        assert_eq!(told(&client.send(end).await?), (200, ""));
        let mut completions = String::new();
        while completions.matches('\u{1e}').count() < 3 {
            let answer = client.poll().await?;
            assert!(answer.body.ends_with('\u{1e}'), "only whole messages: {answer:?}");
            completions += &answer.body;
        }
        assert_eq!(completions, (1..=3).map(|id| completion(id, &json!(id))).collect::<String>());

        let (polled, deleted) = tokio::try_join!(client.poll(), client.delete())?;
        assert_eq!((told(&deleted), deleted.header("content-type")), ((202, ""), Some("text/plain")));
        // The poll is either pending or too late.
        assert!(told(&polled) == (204, "") || told(&polled) == UNKNOWN, "{polled:?}");
        for late in [client.poll().await?, client.send("").await?, client.delete().await?] {
            assert_eq!(told(&late), UNKNOWN);
        }
        Ok(())
    });
}

#[test]
fn a_second_poll_takes_the_place_of_the_first_and_loses_nothing() {
    run_on_each(App::Bench, async |address| {
        let client = CarriedClient::join(address, "/bench", JSON_HANDSHAKE).await?;
        hand_over(&client, 20).await
    });
}

/// Two concurrent polls, repeatedly, and a call that only the newer poll may deliver; then the DELETE.
pub(crate) async fn hand_over(client: &CarriedClient, rounds: u64) -> Result<()> {
    for round in 1..=rounds {
        let (one, other) = (Box::pin(client.poll()), Box::pin(client.poll()));
        let (replaced, waits) = match futures_util::future::select(one, other).await {
            futures_util::future::Either::Left((ended, waits)) => (ended?, waits),
            futures_util::future::Either::Right((ended, waits)) => (ended?, waits),
        };
        assert_eq!(told(&replaced), (204, ""));
        assert_poll_headers(&replaced, "text/plain");
        let call = call(round, "Echo", &json!([round]));
        let (answer, sent) = tokio::try_join!(waits, client.send(&call))?;
        assert_eq!(sent.status, 200);
        assert_eq!(answer.body, completion(round, &json!(round)));
    }
    assert_eq!(client.delete().await?.status, 202);
    Ok(())
}

#[test]
fn a_post_may_come_before_the_first_get_and_waits_for_it() {
    run_on_each(App::Bench, async |address| {
        let client = CarriedClient::negotiate(address, "/bench").await?;
        let early = format!("{JSON_HANDSHAKE}{}", call(1, "Echo", &json!(["early"])));
        assert_eq!(told(&client.send(&early).await?), (200, ""));
        assert_eq!(client.delete().await?.status, 400, "it has no transport yet");
        assert_eq!(told(&client.poll().await?), (200, ""));
        let mut all = String::new();
        while all.matches('\u{1e}').count() < 2 {
            all += &client.poll().await?.body;
        }
        assert_eq!(all, format!("{{}}\u{1e}{}", completion(1, &json!("early"))));
        assert_eq!(client.delete().await?.status, 202);

        // Also for a GET that requests events.
        let client = CarriedClient::negotiate(address, "/bench").await?;
        assert_eq!(told(&client.send(&early).await?), (200, ""));
        client.events().await?.until("early").await?;
        Ok(())
    });
}

#[test]
fn an_event_stream_begins_with_a_comment_and_carries_whole_messages() {
    run_on_each(App::Bench, async |address| {
        let client = CarriedClient::negotiate(address, "/bench").await?;
        let mut events = client.events().await?;
        let header = |name: &str| events.headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header("content-type"), Some("text/event-stream"));
        assert_eq!(header("cache-control"), Some("no-cache,no-store,no-transform"));
        assert_eq!(header("pragma"), Some("no-cache"));
        assert_eq!(header("content-encoding"), Some("identity"));
        assert_eq!(events.until("\n").await?, ":\r\n");
        assert_eq!(told(&client.send(JSON_HANDSHAKE).await?), (200, ""));
        assert_eq!(events.until("\r\n\r\n").await?, "data: {}\u{1e}\r\n\r\n");
        assert_eq!(told(&client.send(&call(1, "Echo", &json!(["one\ntwo"]))).await?), (200, ""));
        let expected = format!("data: {}\r\n\r\n", completion(1, &json!("one\ntwo")));
        assert_eq!(events.until("\r\n\r\n").await?, expected);

        assert_eq!(told(&client.refused_events().await?), (409, ""));
        assert_eq!(told(&client.poll().await?), CHANGED);
        let refused = client.delete().await?;
        assert_eq!(told(&refused), (400, "Cannot terminate this connection using the DELETE endpoint."));
        let socket = RawClient::try_open(address, client.path()).await?.unwrap_err();
        assert_eq!((socket.status, socket.body.as_str()), CHANGED);

        // The client's close message ends the stream.
        assert_eq!(told(&client.send("{\"type\":7}\u{1e}").await?), (200, ""));
        assert_eq!(events.rest().await?, "");
        assert_eq!(client.send("").await?.status, 404);
        Ok(())
    });
}

#[test]
fn a_binary_protocol_is_refused_on_an_event_stream() {
    run_on_each(App::Bench, async |address| {
        let client = CarriedClient::negotiate(address, "/bench").await?;
        let events = client.events().await?;
        assert_eq!(client.send(MESSAGE_PACK_HANDSHAKE).await?.status, 200);
        let text = "Cannot use the 'messagepack' protocol on the current transport. \
                    The transport does not support 'Binary' transfer format.";
        let expected = format!(":\r\ndata: {{\"error\":\"{text}\"}}\u{1e}\r\n\r\n");
        assert_eq!(events.rest().await?, expected);
        Ok(())
    });
}

#[test]
fn a_poll_brings_the_refusal_of_a_handshake_and_then_the_end() {
    run_on_each(App::Bench, async |address| {
        let client = CarriedClient::negotiate(address, "/bench").await?;
        assert_eq!(client.poll().await?.status, 200);
        assert_eq!(client.send("{\"protocol\":\"pigeon\",\"version\":1}\u{1e}").await?.status, 200);
        let text = poll_to_the_end(&client).await?;
        assert_eq!(text, "{\"error\":\"The protocol 'pigeon' is not supported.\"}\u{1e}");
        assert_eq!(told(&client.poll().await?), UNKNOWN, "the end is told once");
        Ok(())
    });
}

#[test]
fn requests_without_a_connection_are_told_so() {
    run_on_each(App::Bench, async |address| {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = ask(address, method.clone(), "/bench", &[]).await?;
            assert_eq!(told(&answer), (400, "Connection ID required"), "{method}");
            let answer = ask(address, method.clone(), "/bench?id=nobody", &[]).await?;
            assert_eq!(told(&answer), UNKNOWN, "{method}");
        }
        assert_eq!(ask(address, Method::PUT, "/bench", &[]).await?.status, 405);
        Ok(())
    });
}

#[test]
fn a_web_socket_is_none_of_the_requests_business() {
    run_on_each(App::Bench, async |address| {
        let client = CarriedClient::negotiate(address, "/bench").await?;
        let _socket = RawClient::join(address, client.path()).await?;
        let refused = client.send("").await?;
        assert_eq!(told(&refused), (405, "POST requests are not allowed for WebSocket connections."));
        let refused = client.delete().await?;
        assert_eq!(told(&refused), (400, "Cannot terminate this connection using the DELETE endpoint."));
        assert_eq!(told(&client.poll().await?), CHANGED);
        assert_eq!(told(&client.refused_events().await?), CHANGED);
        Ok(())
    });
}

#[test]
fn a_hub_refuses_transports_that_it_does_not_offer() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let sends = fleet.app(App::Sends).await?;
        let proxy = fleet.proxy(&sends).await?;
        let refusal = |transport: &str| format!("{transport} transport not supported by this end point type");
        let negotiated = post(proxy.address(), "/detailed/negotiate?negotiateVersion=1").await?.json()?;
        let offered = json!([{ "transport": "WebSockets", "transferFormats": ["Text", "Binary"] }]);
        assert_eq!(negotiated["availableTransports"], offered);
        let client = CarriedClient::negotiate(proxy.address(), "/detailed").await?;
        assert_eq!(told(&client.poll().await?), (404, refusal("LongPolling").as_str()));
        assert_eq!(told(&client.refused_events().await?), (404, refusal("ServerSentEvents").as_str()));
        RawClient::join(proxy.address(), client.path()).await?;

        let functional = fleet.app(App::Functional).await?;
        let proxy = fleet.proxy(&functional).await?;
        let client = CarriedClient::negotiate(proxy.address(), "/testhub-nowebsockets").await?;
        let refused = RawClient::try_open(proxy.address(), client.path()).await?.unwrap_err();
        assert_eq!((refused.status, refused.body), (404, refusal(Transport::WebSockets.name())));
        assert_eq!(client.poll().await?.status, 200);
        Ok(())
    });
}

#[test]
fn a_connection_of_another_node_is_unknown_without_forwarding() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let (here, there) = (fleet.proxy(&app).await?, fleet.proxy_with(&[&app], &["--no-forward"]).await?);
        let client = CarriedClient::join(here.address(), "/bench", JSON_HANDSHAKE).await?;
        for method in [Method::GET, Method::POST, Method::DELETE] {
            assert_eq!(told(&ask(there.address(), method, client.path(), &[]).await?), UNKNOWN);
        }
        assert_eq!(client.delete().await?.status, 202);
        Ok(())
    });
}
