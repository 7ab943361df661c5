//! Graceful shutdown of a node.

use std::time::Duration;

use ::http::StatusCode;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;
use trunkline_protocol::manifest::CAUSE_HEADER;

use super::app::AppLink;
use super::client::{Client, JSON_HANDSHAKE, Received};
use super::fixture::{Fixture, paused, settings};
use super::http::{HttpConnection, exchange, request};
use super::http_transports::{EventClient, poller};
use crate::engine::shard::ShardCommand;

/// A call, its response, and the close that asks a client to reconnect.
pub(super) const CALL: &str = "{\"type\":1,\"invocationId\":\"1\",\"target\":\"M\",\"arguments\":[]}\u{1e}";
pub(super) const ANSWER: &str = "{\"type\":3,\"invocationId\":\"1\",\"result\":2}\u{1e}";
pub(super) const LEAVE: &str = "{\"type\":7,\"allowReconnect\":true}\u{1e}";

async fn drain(fixture: &Fixture, spread: Duration) {
    for shard in fixture.shared.shards() {
        shard.give(vec![ShardCommand::Drain(spread)], 0).await;
    }
}

async fn closed_as_drained(link: &mut AppLink) -> String {
    let close = link.close().await;
    assert!(close.headers.iter().any(|(name, values)| name == CAUSE_HEADER && values[0] == "drained"), "{close:?}");
    close.connection_id.to_string()
}

#[tokio::test(crate = "paused")]
async fn clients_are_asked_to_reconnect_one_by_one_and_their_app_server_is_notified_of_each() {
    let (fixture, mut link) = Fixture::with(settings(), 2).with_chat().await;
    let mut clients: [Client; 40] = link.clients().await;
    let begun = Instant::now();
    fixture.shared.refuse_clients();
    drain(&fixture, Duration::from_secs(10)).await;
    let mut moments = Vec::new();
    for _ in 0..40 {
        closed_as_drained(&mut link).await;
        moments.push(begun.elapsed());
    }
    let in_the_first_half = moments.iter().filter(|moment| **moment < Duration::from_secs(2)).count();
    assert!((10..30).contains(&in_the_first_half), "they leave spread out: {moments:?}");
    for client in &mut clients {
        assert_eq!(client.text().await, "{\"type\":7,\"allowReconnect\":true}");
        assert_eq!(client.next().await, Received::End(Some(1000)));
    }
}

#[tokio::test(crate = "paused")]
async fn a_stopping_node_accepts_no_clients() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let mut late = Client::upgrade(&fixture, "/chat").await.unwrap();
    fixture.shared.refuse_clients();
    fixture.shared.shards()[0].give(vec![ShardCommand::Drain(Duration::ZERO)], 0).await;
    link.fence().await;
    assert_eq!(exchange(&fixture, "POST", "/chat/negotiate?negotiateVersion=1", "").await.0, 503);
    assert_eq!(Client::upgrade(&fixture, "/chat").await.err(), Some(503));
    // The socket was accepted before the drain: its handshake is answered with a close that asks it to reconnect.
    late.send(JSON_HANDSHAKE).await;
    assert_eq!(late.next().await, Received::Text("{}".into()));
    assert_eq!(late.next().await, Received::Text("{\"type\":7,\"allowReconnect\":true}".into()));
    link.fence().await;
}

#[tokio::test(crate = "paused")]
async fn by_each_transport_a_client_is_asked_to_reconnect_after_the_answers_to_its_calls() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let quiet = link.client().await;
    let mut socket = link.client().await;
    let events = EventClient::connect(&fixture, &mut link).await;
    let (poller, target) = poller(&fixture, &mut link).await;
    socket.send(CALL).await;
    link.data().await;
    for target in [&events.target, &target] {
        assert_eq!(exchange(&fixture, "POST", target, CALL).await.0, StatusCode::OK);
        link.data().await;
    }
    drain(&fixture, Duration::from_secs(25)).await;
    assert_eq!(closed_as_drained(&mut link).await, quiet.id);
    sleep(Duration::from_secs(2)).await; // sleep: advances virtual time until the drain has reached each client
    link.fence().await;
    for id in [&socket.id, &events.id, &poller] {
        link.write(id, ANSWER).await;
    }
    for text in [ANSWER, LEAVE] {
        assert_eq!(socket.text().await, text.trim_end_matches('\u{1e}'));
    }
    assert_eq!(socket.next().await, Received::End(Some(1000)));
    assert_eq!(events.rest().await, format!("{ANSWER}{LEAVE}"));
    let mut polled = String::new();
    loop {
        let (status, messages) = exchange(&fixture, "GET", &target, "").await;
        polled.push_str(&messages);
        if status != StatusCode::OK {
            break assert_eq!(status, StatusCode::NO_CONTENT);
        }
    }
    assert_eq!(polled, format!("{ANSWER}{LEAVE}"));
}

#[tokio::test(crate = "paused")]
async fn a_message_pack_client_is_asked_to_reconnect_after_the_last_item_of_its_stream() {
    const HANDSHAKE: &[u8] = b"{\"protocol\":\"messagepack\",\"version\":1}\x1e";
    const STREAM: &[u8] = &[9, 0x96, 4, 0x80, 0xa1, b'1', 0xa1, b'M', 0x90, 0x90];
    const ITEM: &[u8] = &[6, 0x94, 2, 0x80, 0xa1, b'1', 5];
    const END: &[u8] = &[6, 0x94, 3, 0x80, 0xa1, b'1', 2];
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let mut client = Client::upgrade(&fixture, "/chat").await.unwrap();
    client.write(Message::binary(HANDSHAKE)).await;
    let id = link.opening().await.connection_id;
    link.data().await;
    link.write(&id, "{}\u{1e}").await;
    client.next().await;
    client.write(Message::binary(STREAM)).await;
    assert_eq!(link.data().await.1.payload, STREAM);
    drain(&fixture, Duration::from_secs(25)).await;
    link.write(&id, ITEM).await;
    sleep(Duration::from_secs(2)).await; // sleep: advances virtual time until the drain has reached the client
    link.write(&id, END).await;
    for frame in [ITEM, END] {
        assert_eq!(client.next().await, Received::Binary(frame.into()));
    }
    assert!(matches!(client.next().await, Received::Binary(close) if close[2] == 7));
    assert_eq!(client.next().await, Received::End(Some(1000)));
}

#[tokio::test(crate = "paused")]
async fn a_call_that_does_not_end_holds_its_client_for_some_seconds_and_no_longer() {
    let (fixture, mut link, mut client) = Fixture::start().with_client().await;
    client.send(CALL).await;
    link.data().await;
    let begun = Instant::now();
    drain(&fixture, Duration::from_secs(25)).await;
    assert_eq!(closed_as_drained(&mut link).await, client.id);
    assert!((5..7).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(client.text().await, LEAVE.trim_end_matches('\u{1e}'));
    // The wait is part of the drain timeout.
    let mut client = link.client().await;
    client.send(CALL).await;
    link.data().await;
    let begun = Instant::now();
    drain(&fixture, Duration::from_secs(2)).await;
    assert_eq!(closed_as_drained(&mut link).await, client.id);
    assert!(begun.elapsed() <= Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(crate = "paused")]
async fn from_the_signal_on_each_answer_ends_its_connection() {
    let (fixture, _link) = Fixture::start().with_chat().await;
    let ask = async |http: &mut HttpConnection, target: &str| {
        let answer = http.begin(request("POST", target, "")).await;
        (answer.status().as_u16(), answer.headers()["connection"].clone())
    };
    let mut kept = HttpConnection::open(&fixture).await;
    let negotiate = "/chat/negotiate?negotiateVersion=1";
    assert_eq!(ask(&mut kept, negotiate).await, (200, "keep-alive".parse().unwrap()));
    fixture.shared.begin_drain();
    assert_eq!(ask(&mut kept, negotiate).await, (200, "close".parse().unwrap()), "it still serves");
    for (target, status) in [(negotiate, 200), ("/other", 404)] {
        let mut fresh = HttpConnection::open(&fixture).await;
        assert_eq!(ask(&mut fresh, target).await, (status, "close".parse().unwrap()), "{target}");
    }
}
