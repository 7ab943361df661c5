//! Clients that read too slowly: what waits for them, and when they are closed.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_protocol::service::{DownMark, FlowOperation, ServiceMessage};

use super::app::{AppLink, broadcast, data_for};
use super::app_keys::keys;
use super::client::{Client, JSON_HANDSHAKE, Received};
use super::fixture::{Fixture, paused, settings};
use super::fleet_nodes::FleetNode;
use super::hub_message::flow;
use super::inbound_links::{DialInLink, HUB, ONE, node_with_link, token};
use super::scene::chat_and_news;
use crate::ground::auth::AccessSettings;
use crate::ground::config::{OutboxLimits, Settings};

/// Pipe capacity of a client.
const PIPE_BYTES: usize = 1024;

/// Number of 1 KiB messages that fill the SDK's window.
const WINDOW: usize = 256;

fn message(number: usize) -> String {
    format!("\"{number:05}{}\"", "x".repeat(1000))
}

fn mark(client: &Client, number: i64) -> DownMark {
    DownMark { connection_id: client.id.as_str().into(), number }
}

/// Sends messages to one client, followed by a mark.
async fn send_marked(link: &AppLink, client: &Client, messages: std::ops::Range<usize>, number: i64) {
    for at in messages {
        link.send(data_for(&client.id, message(at) + "\u{1e}")).await;
    }
    link.send(ServiceMessage::DownMark(mark(client, number))).await;
}

async fn read(client: &mut Client, messages: std::ops::Range<usize>) {
    for at in messages {
        assert_eq!(client.text().await, message(at));
    }
}

#[tokio::test(crate = "paused")]
async fn a_mark_is_confirmed_when_its_client_has_taken_most_of_the_data_before_it() {
    let (fixture, mut link) = Fixture::with(settings(), 1).with_chat().await;
    let mut client = Client::connect_over(fixture.dial_with(PIPE_BYTES), &mut link, "/chat").await;
    let other = link.client().await;
    send_marked(&link, &client, 0..WINDOW / 2, 1).await;
    send_marked(&link, &client, WINDOW / 2..WINDOW, 2).await;
    // A fast client's mark is confirmed while the slow client's is pending.
    send_marked(&link, &other, 0..1, 3).await;
    assert_eq!(link.next().await, ServiceMessage::DownDone(mark(&other, 3)));
    link.fence().await;
    read(&mut client, 0..WINDOW / 2 - 10).await;
    link.fence().await;
    read(&mut client, WINDOW / 2 - 10..WINDOW).await;
    // The last mark confirms all earlier ones.
    assert_eq!(link.next().await, ServiceMessage::DownDone(mark(&client, 2)));
    // A repeated mark is confirmed again.
    link.send(ServiceMessage::DownMark(mark(&client, 2))).await;
    assert_eq!(link.next().await, ServiceMessage::DownDone(mark(&client, 2)));
    link.send(ServiceMessage::DownMark(DownMark { connection_id: "gone".into(), number: 4 })).await;
    client.fence(&link).await;
}

#[tokio::test(crate = "paused")]
async fn a_client_that_takes_nothing_while_an_app_server_waits_is_closed() {
    let (fixture, mut link) = Fixture::with(settings(), 1).with_chat().await;
    let mut steady = Client::connect_over(fixture.dial_with(PIPE_BYTES), &mut link, "/chat").await;
    let deaf = Client::connect_over(fixture.dial_with(PIPE_BYTES), &mut link, "/chat").await;
    send_marked(&link, &steady, 0..WINDOW, 1).await;
    send_marked(&link, &deaf, 0..WINDOW, 2).await;
    let (begun, mut at) = (Instant::now(), 0);
    // The client reads a message occasionally.
    let close = loop {
        match tokio::time::timeout(Duration::from_secs(12), link.next()).await {
            Err(_) => read(&mut steady, at..at + 1).await,
            Ok(ServiceMessage::CloseConnection(close)) => break close,
            Ok(other) => panic!("{other:?} instead of a close"),
        }
        at += 1;
    };
    assert_eq!(close.connection_id, deaf.id);
    assert!(close.error.unwrap().contains("--slow-client-timeout"));
    assert!((30..33).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    read(&mut steady, at..WINDOW).await;
    assert_eq!(link.next().await, ServiceMessage::DownDone(mark(&steady, 1)));
}

#[tokio::test(crate = "paused")]
async fn a_client_that_reads_may_exceed_the_limit_of_its_outbox() {
    let outbox = OutboxLimits { client_bytes: 10_000, ..OutboxLimits::default() };
    let (fixture, mut link) = Fixture::with(Settings { outbox, ..settings() }, 1).with_chat().await;
    let mut client = Client::connect_over(fixture.dial_with(PIPE_BYTES), &mut link, "/chat").await;
    for at in 0..WINDOW {
        let text = message(at);
        let send = if at % 2 == 0 { broadcast(&text) } else { data_for(&client.id, text + "\u{1e}") };
        link.send(send).await;
    }
    for at in 0..WINDOW {
        // sleep: paused time; the client reads something every second for minutes
        tokio::time::sleep(Duration::from_secs(1)).await;
        read(&mut client, at..at + 1).await;
    }
    client.fence(&link).await;
}

#[tokio::test(crate = "paused")]
async fn the_budget_of_all_outboxes_closes_the_largest_before_its_time() {
    let outbox = OutboxLimits { client_bytes: 10_000, total_bytes: 100_000, ..OutboxLimits::default() };
    let (fixture, mut link) = Fixture::with(Settings { outbox, ..settings() }, 1).with_chat().await;
    let mut small = Client::connect_over(fixture.dial_with(PIPE_BYTES), &mut link, "/chat").await;
    let mut large = Client::connect_over(fixture.dial_with(PIPE_BYTES), &mut link, "/chat").await;
    for at in 0..30 {
        link.send(data_for(&small.id, message(at) + "\u{1e}")).await;
    }
    for at in 0..100 {
        link.send(data_for(&large.id, message(at) + "\u{1e}")).await;
    }
    let close = link.close().await;
    assert_eq!(close.connection_id, large.id);
    assert!(close.error.unwrap().contains("--outbox-total-max-bytes"));
    read(&mut small, 0..30).await;
    while !matches!(large.next().await, Received::End(_)) {}
}

#[tokio::test(crate = "paused")]
async fn the_app_with_most_of_the_outboxes_gives_way_before_a_larger_outbox_of_another() {
    let outbox = OutboxLimits { total_bytes: 200_000, ..OutboxLimits::default() };
    let app_keys = keys("many=the key of the app with many;chat\nfew=the key of the app with few;news");
    let access = AccessSettings { app_keys, ..AccessSettings::default() };
    let fixture = Fixture::with((Settings { outbox, ..settings() }, access), 1);
    let (_app, [mut many, mut few]) = fixture.app_of(chat_and_news()).await;
    let mut slow = Client::connect_over(fixture.dial_with(PIPE_BYTES), &mut few, "/news").await;
    send_marked(&few, &slow, 0..80, 1).await;
    few.fence().await;
    let mut deaf = Vec::new();
    for count in [30, 40, 60] {
        let client = Client::connect_over(fixture.dial_with(PIPE_BYTES), &mut many, "/chat").await;
        for at in 0..count {
            many.send(data_for(&client.id, message(at) + "\u{1e}")).await;
        }
        deaf.push(client);
    }
    let close = many.close().await;
    assert_eq!(close.connection_id, deaf[2].id, "the largest of the app");
    assert!(close.error.unwrap().contains("--outbox-total-max-bytes"));
    read(&mut slow, 0..80).await;
    slow.fence(&few).await;
}

/// Connects a slow client with more data waiting than an app server that dials in may send.
async fn paused_client(node: &FleetNode, link: &mut DialInLink) -> Client {
    let target = format!("/client/{HUB}&access_token={}", token("client", "ann"));
    let mut client = Client::upgrade_over(node.fixture.dial_with(PIPE_BYTES), &target).await.unwrap();
    client.send(JSON_HANDSHAKE).await;
    assert_eq!(client.next().await, Received::Text("{}".into()));
    let ServiceMessage::OpenConnection(open) = link.next().await else { panic!("no opening") };
    client.id = open.connection_id.to_string();
    for at in 0..WINDOW + 20 {
        link.send(data_for(&client.id, message(at) + "\u{1e}"));
    }
    assert_eq!(link.next().await, flow(&client.id, FlowOperation::Pause));
    client
}

#[tokio::test(crate = "paused")]
async fn an_app_server_without_marks_pauses_the_client_until_the_client_has_read() {
    let (node, mut link) = node_with_link().await;
    let mut client = paused_client(&node, &mut link).await;
    // Messages sent before the pause is acknowledged still arrive, and cause no further pause.
    link.send(data_for(&client.id, message(WINDOW + 20) + "\u{1e}"));
    read(&mut client, 0..WINDOW + 10).await;
    link.send(flow(&client.id, FlowOperation::PauseAck));
    assert_eq!(link.next().await, flow(&client.id, FlowOperation::Resume));
    read(&mut client, WINDOW + 10..WINDOW + 21).await;
    link.fence(&mut client).await;
    assert_eq!(link.try_next(), None);
}

#[tokio::test(crate = "paused")]
async fn a_paused_client_moves_to_another_link_without_a_second_pause() {
    for is_acknowledged_first in [true, false] {
        let (node, mut first) = node_with_link().await;
        let mut client = paused_client(&node, &mut first).await;
        let mut others = vec![first.client(&node, "bob").await, first.client(&node, "eve").await];
        if is_acknowledged_first {
            first.send(flow(&client.id, FlowOperation::PauseAck));
            // Later messages on this link are processed later.
            others.push(first.client(&node, "amy").await);
        }
        let mut second = DialInLink::open(&node, "home_1", ONE).await;
        if !is_acknowledged_first {
            super::inbound_links::settle().await;
            first.send(flow(&client.id, FlowOperation::PauseAck));
        }
        assert_eq!(second.next().await, flow(&client.id, FlowOperation::Resume));
        assert_eq!(first.try_next(), None);
        read(&mut client, 0..WINDOW + 20).await;
        second.fence(&mut client).await;
    }
}
