//! Deliveries: receivers and order of each kind of send.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::task::{spawn_local, yield_now};
use tokio_tungstenite::tungstenite::Message;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::manifest::{HubManifest, SlowClients};
use trunkline_protocol::service::*;

use super::app::{broadcast, data_for, json, to_group, to_user};
use super::client::{Client, Received};
use super::fixture::{Fixture, paused, settings};
use super::scene::LinkedApp;

async fn chat(shards: u16) -> (Fixture, LinkedApp) {
    Fixture::with(settings(), shards).with_chat().await
}

#[tokio::test(crate = "paused")]
async fn a_broadcast_reaches_all_clients_of_its_hub_on_all_shards_but_those_left_out() {
    let (fixture, mut chat) = chat(2).await;
    let mut news = fixture.server_with("app-2", HubManifest::new("news", "/news")).await;
    let (mut chatters, mut reader): ([Client; 4], _) = (chat.clients().await, news.client().await);
    let excluded = vec![chatters[1].id.as_str().into()];
    chat.send(ServiceMessage::BroadcastData(BroadcastData { excluded, payloads: json("\"hi\"") })).await;
    for (place, client) in chatters.iter_mut().enumerate() {
        if place != 1 {
            assert_eq!(client.text().await, "\"hi\"");
        }
        client.fence(&chat).await;
    }
    reader.fence(&news).await;
}

#[tokio::test(crate = "paused")]
async fn a_group_is_those_who_joined_and_have_not_left() {
    let (_, mut link) = chat(2).await;
    let [mut ann, mut bob, mut eve]: [Client; 3] = link.clients().await;
    link.join(&ann.id, "red").await;
    link.join(&bob.id, "red").await;
    link.join(&bob.id, "red").await;
    link.send(to_group("red", "1")).await;
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.text().await, "1");
        client.fence(&link).await;
    }
    eve.fence(&link).await;
    let leaving = GroupChange { connection_id: ann.id.as_str().into(), group: Some("red".into()), ack_id: 9 };
    link.send(ServiceMessage::LeaveGroupWithAck(leaving)).await;
    assert_eq!(link.ack().await, (9, AckStatus::Ok));
    link.send(to_group("red", "2")).await;
    ann.fence(&link).await;
    assert_eq!(bob.text().await, "2");
}

#[tokio::test(crate = "paused")]
async fn several_groups_at_once_and_a_group_without_some_of_its_members() {
    let (_, mut link) = chat(1).await;
    let [mut ann, mut bob]: [Client; 2] = link.clients().await;
    link.join(&ann.id, "red").await;
    link.join(&bob.id, "blue").await;
    let groups = vec!["red".into(), "blue".into(), "none".into()];
    link.send(ServiceMessage::MultiGroupBroadcastData(MultiGroupBroadcastData { groups, payloads: json("1") })).await;
    assert_eq!((ann.text().await, bob.text().await), ("1".into(), "1".into()));
    link.join(&bob.id, "red").await;
    link.send(ServiceMessage::GroupBroadcastData(GroupBroadcastData {
        group: "red".into(),
        excluded: vec![ann.id.as_str().into()],
        payloads: json("2"),
        ..GroupBroadcastData::default()
    }))
    .await;
    ann.fence(&link).await;
    assert_eq!(bob.text().await, "2");
}

#[tokio::test(crate = "paused")]
async fn a_user_is_reached_on_every_connection_and_their_groups_hold_connections_to_come() {
    let (_, mut link) = chat(2).await;
    let (mut first, mut second) = (link.client_of("ann").await, link.client_of("ann").await);
    let mut stranger = link.client().await;
    link.send(to_user("ann", "1")).await;
    assert_eq!((first.text().await, second.text().await), ("1".into(), "1".into()));
    let change = UserGroupChange { user_id: "ann".into(), group: Some("red".into()), ack_id: 5, ttl_s: None };
    link.send(ServiceMessage::UserJoinGroupWithAck(change)).await;
    assert_eq!(link.ack().await, (5, AckStatus::Ok));
    link.send(to_group("red", "2")).await;
    assert_eq!((first.text().await, second.text().await), ("2".into(), "2".into()));
    stranger.fence(&link).await;
    let user_ids = vec!["nobody".into(), "ann".into()];
    link.send(ServiceMessage::MultiUserData(MultiUserData { user_ids, payloads: json("3") })).await;
    assert_eq!((first.text().await, second.text().await), ("3".into(), "3".into()));
}

#[tokio::test(crate = "paused")]
async fn sends_of_every_kind_keep_their_order_at_each_client_however_they_are_batched() {
    let (_, mut link) = chat(2).await;
    let mut clients = link.clients_of(["ann"; 4]).await;
    link.join_all(&clients, "red").await;
    let ids: Vec<_> = clients.iter().map(|client| client.id.as_str().into()).collect();
    let round = |n: u32| {
        let text = |kind: &str| format!("\"{kind}{n}\"");
        let mut messages =
            vec![broadcast(&text("all")), to_group("red", &text("group")), to_user("ann", &text("user"))];
        let connection_ids = ids.clone();
        let payloads = json(&text("list"));
        messages.push(ServiceMessage::MultiConnectionData(MultiConnectionData { connection_ids, payloads }));
        messages.extend(clients.iter().map(|client| data_for(&client.id, format!("{}\u{1e}", text("one")))));
        messages
    };
    for n in 0..3 {
        for message in round(n) {
            link.send(message).await;
        }
    }
    link.send_together((3..6).flat_map(round)).await;
    let expected: Vec<String> =
        (0..6).flat_map(|n| ["all", "group", "user", "list", "one"].map(|kind| format!("\"{kind}{n}\""))).collect();
    for client in &mut clients {
        for text in &expected {
            assert_eq!(&client.text().await, text);
        }
        client.fence(&link).await;
    }
}

#[tokio::test(crate = "paused")]
async fn each_client_gets_the_payload_of_its_own_protocol_and_nothing_without_one() {
    let (fixture, mut link) = chat(1).await;
    let mut json_client = link.client().await;
    let mut packed = Client::upgrade(&fixture, "/chat").await.unwrap();
    packed.write(Message::binary("{\"protocol\":\"messagepack\",\"version\":1}\u{1e}")).await;
    packed.id = link.opening().await.connection_id.to_string();
    link.data().await;
    link.write(&packed.id, "{}\u{1e}").await;
    assert_eq!(packed.next().await, Received::Binary("{}\u{1e}".into()));
    let mut payloads = json("1");
    payloads.0.extend(Payloads::single(HubProtocol::MessagePack, Bytes::from_static(b"packed")).0);
    link.send(ServiceMessage::BroadcastData(BroadcastData { payloads, ..BroadcastData::default() })).await;
    link.send(broadcast("2")).await;
    assert_eq!((json_client.text().await, json_client.text().await), ("1".into(), "2".into()));
    assert_eq!(packed.next().await, Received::Binary("packed".into()));
    link.write(&packed.id, "fence").await;
    assert_eq!(packed.next().await, Received::Binary("fence".into()));
}

#[tokio::test(crate = "paused")]
async fn data_is_taken_from_a_connections_own_app_server_only_and_sends_from_any() {
    let (fixture, mut link) = chat(1).await;
    let mut client = link.client().await;
    let mut stranger = fixture.server("app-2").await;
    stranger.write(&client.id, "\"forged\"\u{1e}").await;
    stranger.send(broadcast("\"from afar\"")).await;
    assert_eq!(client.text().await, "\"from afar\"");
    stranger.fence().await;
    client.fence(&link).await;
}

#[tokio::test(crate = "paused")]
async fn a_client_that_reads_nothing_is_closed_and_delays_no_other_client() {
    let (fixture, mut link) = Fixture::set(|settings| settings.outbox.client_bytes = 10_000).with_chat().await;
    let mut reader = link.client().await;
    let slow = Client::connect_over(fixture.dial_with(1024), &mut link, "/chat").await;
    let text = format!("\"{}\"", "x".repeat(1000));
    for _ in 0..20 {
        link.send(broadcast(&text)).await;
        assert_eq!(reader.text().await, text);
    }
    let end = link.close().await;
    assert_eq!(end.connection_id, slow.id);
    reader.fence(&link).await;
}

#[tokio::test(crate = "paused")]
async fn in_a_hub_that_may_drop_a_slow_client_misses_broadcasts_and_stays() {
    let fixture = Fixture::set(|settings| settings.outbox.client_bytes = 10_000);
    let hub = HubManifest { slow_clients: SlowClients::Drop, ..HubManifest::new("chat", "/chat") };
    let (fixture, mut link) = fixture.with_app(hub).await;
    let mut slow = Client::connect_over(fixture.dial_with(1024), &mut link, "/chat").await;
    let text = |n: u32| format!("\"{n:04}{}\"", "x".repeat(1000));
    for n in 0..50 {
        link.send(broadcast(&text(n))).await;
    }
    link.fence().await;
    link.write(&slow.id, "\"for one alone\"\u{1e}").await;
    link.fence().await;
    let mut numbers = Vec::new();
    loop {
        let text = slow.text().await;
        match text[1..5].parse::<u32>() {
            Ok(number) => numbers.push(number),
            Err(_) => break assert_eq!(text, "\"for one alone\""),
        }
    }
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(numbers.last(), Some(&49), "the newest stay");
    assert!(numbers.len() < 50, "some were dropped");
}

#[tokio::test(crate = "paused")]
async fn a_frame_with_many_names_is_sent_in_pieces_between_which_others_are_served() {
    for shards in [1, 2] {
        let (_, mut link) = chat(shards).await;
        let [mut ann, mut bob]: [Client; 2] = link.clients().await;
        link.join(&ann.id, "red").await;
        link.join(&bob.id, "red").await;
        let steps = Rc::new(Cell::new(0));
        let counted = steps.clone();
        let others = spawn_local(async move {
            loop {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        let mut groups: Vec<ByteString> = (0..20_000).map(|number| number.to_string().into()).collect();
        groups.extend(["red".into(), "red".into()]);
        let payloads = json("\"hi\"");
        link.send(ServiceMessage::MultiGroupBroadcastData(MultiGroupBroadcastData { groups, payloads })).await;
        for client in [&mut ann, &mut bob] {
            assert_eq!(client.text().await, "\"hi\"");
        }
        assert!(steps.get() > 500, "{} steps of others, {shards} shards", steps.get());
        others.abort();
        for client in [&mut ann, &mut bob] {
            client.fence(&link).await;
        }
    }
}

#[tokio::test(crate = "paused")]
async fn names_that_a_long_list_repeats_count_once() {
    let (_, mut link) = chat(1).await;
    let [mut ann] = link.clients().await;
    link.join(&ann.id, "red").await;
    link.join(&ann.id, "blue").await;
    let groups = [["red"; 20], ["blue"; 20]].concat().into_iter().map(ByteString::from).collect();
    let payloads = json("\"groups\"");
    link.send(ServiceMessage::MultiGroupBroadcastData(MultiGroupBroadcastData { groups, payloads })).await;
    let connection_ids = vec![ann.id.as_str().into(); 40];
    let payloads = json("\"connections\"");
    link.send(ServiceMessage::MultiConnectionData(MultiConnectionData { connection_ids, payloads })).await;
    for word in ["\"groups\"", "\"groups\"", "\"connections\""] {
        assert_eq!(ann.text().await, word, "once for each group");
    }
    ann.fence(&link).await;
}

#[tokio::test(crate = "paused")]
async fn stamps_and_filters_around_each_other_are_skipped() {
    let (_, mut link) = chat(1).await;
    let mut client = link.client().await;
    let mut nested = broadcast("never");
    for _ in 0..2_000 {
        let filtered = Filtered { filter: "userId eq 'ann'".into(), body: nested.to_body() };
        let body = ServiceMessage::Filtered(filtered).to_body();
        nested = ServiceMessage::Stamped(Stamped { epoch: 1, body });
    }
    link.send(nested).await;
    link.send(broadcast("still here")).await;
    assert_eq!(client.text().await, "still here");
}
