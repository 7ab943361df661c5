//! Answers to app servers that dial in: how many a flood of queries gets, and how many wait for an app server that does
//! not read.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use trunkline_protocol::service::*;

use super::app_keys::{keys, node_with};
use super::fixture::{KEY, paused};
use super::fleet_nodes::{FleetNode, until};
use super::inbound_links::{DialInLink, ONE, dial_socket};
use crate::ground::auth::Signer;

const SHOP: &str = "the key of one app of several, shop";
const SILENCE: Duration = Duration::from_secs(1);

/// Frames of one WebSocket message.
fn piece(messages: impl IntoIterator<Item = ServiceMessage>) -> Message {
    let mut piece = BytesMut::new();
    messages.into_iter().for_each(|message| message.encode(&mut piece));
    Message::Binary(piece.freeze())
}

fn members(ack_id: i64) -> ServiceMessage {
    let group = "red".into();
    ServiceMessage::GroupMemberQuery(GroupMemberQuery { group, ack_id, ..GroupMemberQuery::default() })
}

/// Link of an app server that answers nothing and reads only on request.
async fn open_socket(node: &FleetNode) -> WebSocketStream<DuplexStream> {
    let mut socket = dial_socket(KEY, node, "reader_1", (ONE, None)).await.unwrap();
    let request = LinkHandshakeRequest { version: 1, kind: LinkKind::Weak, ..LinkHandshakeRequest::default() };
    socket.send(piece([ServiceMessage::HandshakeRequest(request)])).await.unwrap();
    socket.next().await.unwrap().unwrap();
    socket
}

/// Messages until none arrives for a while.
async fn read_all(socket: &mut WebSocketStream<DuplexStream>) -> Vec<ServiceMessage> {
    let (mut frames, mut messages) = (FrameBuffer::default(), Vec::new());
    while let Ok(Some(Ok(Message::Binary(bytes)))) = timeout(SILENCE, socket.next()).await {
        frames.push(bytes);
        messages.extend(std::iter::from_fn(|| frames.next_body().unwrap()).map(decoded));
    }
    messages
}

fn decoded(body: Bytes) -> ServiceMessage {
    ServiceMessage::decode(&body).unwrap().unwrap()
}

#[tokio::test(crate = "paused")]
async fn pings_that_ask_for_the_same_in_one_batch_are_answered_once() {
    let node = node_with(Vec::new()).await;
    let mut socket = open_socket(&node).await;
    let ping = |key: &'static str| ServiceMessage::Ping(Ping { pairs: vec![(key.into(), "".into())] });
    socket.send(piece((0..250).flat_map(|_| [ping("servers"), ping("status")]))).await.unwrap();
    let answers = read_all(&mut socket).await;
    let count = |key: &str| {
        answers.iter().filter(|it| matches!(it, ServiceMessage::Ping(ping) if ping.get(key).is_some())).count()
    };
    assert_eq!((count("servers"), count("status")), (1, 1));
}

#[tokio::test(crate = "paused")]
async fn a_ping_that_announces_a_stop_is_acknowledged() {
    let node = node_with(Vec::new()).await;
    for fin in ["fin:0", "fin:1", "fin:2"] {
        let mut socket = open_socket(&node).await;
        let stop = ServiceMessage::Ping(Ping { pairs: vec![("shutdown".into(), fin.into())] });
        socket.send(piece([stop])).await.unwrap();
        let answers = read_all(&mut socket).await;
        let is_acknowledgement = |it: &ServiceMessage| match it {
            ServiceMessage::Ping(ping) => ping.get("shutdown").is_some_and(|value| &**value == "finack"),
            _ => false,
        };
        assert_eq!(answers.iter().filter(|it| is_acknowledgement(it)).count(), 1, "{fin}: {answers:?}");
    }
}

#[tokio::test(crate = "paused")]
async fn an_app_server_that_says_nothing_is_pinged_every_five_seconds_and_given_up_after_thirty() {
    let node = node_with(Vec::new()).await;
    let mut socket = open_socket(&node).await;
    let (begun, mut frames, mut pings) = (Instant::now(), FrameBuffer::default(), 0);
    while let Some(Ok(Message::Binary(bytes))) = socket.next().await {
        frames.push(bytes);
        let messages = std::iter::from_fn(|| frames.next_body().unwrap()).map(decoded);
        pings += messages.filter(|message| *message == ServiceMessage::Ping(Ping::default())).count();
        assert!(begun.elapsed().as_secs() < 60, "it is still kept");
    }
    assert!((25..60).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert!(pings >= 4, "{pings}");
}

#[tokio::test(crate = "paused")]
async fn an_app_server_that_asks_much_gets_all_answers_if_it_reads() {
    let node = node_with(Vec::new()).await;
    let mut socket = open_socket(&node).await;
    socket.send(piece((0..500).map(members))).await.unwrap();
    let answers = read_all(&mut socket).await;
    let ids = answers.iter().filter_map(|it| match it {
        ServiceMessage::Ack(ack) if ack.status == AckStatus::Ok => Some(ack.ack_id),
        _ => None,
    });
    assert_eq!(ids.collect::<Vec<_>>(), (0..500).collect::<Vec<_>>());
}

#[tokio::test(crate = "paused")]
async fn answers_of_an_app_server_that_does_not_read_are_bounded_within_a_batch() {
    let node = node_with(Vec::new()).await;
    let mut home = DialInLink::open(&node, "home_1", ONE).await;
    let user = "a".repeat(1000);
    let mut clients = Vec::new();
    for _ in 0..64 {
        clients.push(home.client(&node, &user).await);
    }
    let (user_id, group) = (user.into(), Some("red".into()));
    home.send(ServiceMessage::UserJoinGroupWithAck(UserGroupChange { user_id, group, ..UserGroupChange::default() }));
    assert_eq!(home.ack().await.status, AckStatus::Ok);
    let mut socket = open_socket(&node).await;
    socket.send(piece((0..2000).map(members))).await.unwrap();
    let lost = || node.fixture.shared.counters()[0].sessions.frames_lost.get();
    until(Duration::from_secs(10), "the link is closed", || lost() > 0).await;
    assert!((200..320).contains(&lost()), "{} answers of 64 KiB", lost());
}

#[tokio::test(crate = "paused")]
async fn a_key_with_many_unread_answers_gets_no_further_ones_and_other_keys_get_theirs() {
    let node = node_with(keys(&format!("shop={SHOP};bench"))).await;
    let (mut shop, mut other) =
        (DialInLink::open_by(SHOP, &node, "shop_1").await, DialInLink::open(&node, "home_1", ONE).await);
    shop.send(members(1));
    assert_eq!(shop.ack().await.status, AckStatus::Ok);
    let shared = &node.fixture.shared;
    let unread = shared.limits.answers.of_link(shared.share_of(&Signer::App("shop".into())));
    unread.add(200 * 1024 * 1024);
    shop.send(members(2));
    let refused = shop.ack().await;
    assert_eq!((refused.ack_id, refused.status), (2, AckStatus::InternalServerError));
    assert!(refused.message.unwrap().contains("do not read"));
    other.send(members(3));
    assert_eq!(other.ack().await.status, AckStatus::Ok);
    drop(unread);
    shop.send(members(4));
    assert_eq!(shop.ack().await.status, AckStatus::Ok);
}
