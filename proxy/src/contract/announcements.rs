//! Announcements: receivers, format, order, missing nodes, and invalid announcements.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use trunkline_protocol::hub::{HubMessage, HubProtocol, next_frame};
use trunkline_protocol::manifest::{EndpointKind, HubManifest};

use super::client::{Client, Received};
use super::fixture::{Fixture, paused, settings};
use super::fleet_nodes::{linked, nodes};
use crate::edge::observer::{Announcement, AnnouncementReport, ApiError};
use crate::edge::rest::Addressee;
use crate::fleet::ANSWER_TIMEOUT;

fn announcement(to: Addressee, arguments: Value) -> Announcement {
    let arguments = serde_json::from_value(arguments).unwrap();
    Announcement { hub: "chat".into(), to, target: "Notice".into(), arguments }
}

fn notice(arguments: &str) -> String {
    format!("{{\"type\":1,\"target\":\"Notice\",\"arguments\":{arguments}}}")
}

fn told(clients: u64) -> AnnouncementReport {
    AnnouncementReport { nodes: 1, missing: Vec::new(), clients }
}

#[tokio::test(crate = "paused")]
async fn an_announcement_reaches_all_clients_of_its_hub_or_a_group_or_a_user_and_counts_them() {
    let (fixture, mut chat) = Fixture::with(settings(), 2).with_chat().await;
    let mut news = fixture.server_with("app-2", HubManifest::new("news", "/news")).await;
    let mut chatters = chat.clients_of(["bob", "cid", "dan", "ann"]).await;
    let mut reader = news.client().await;
    chat.join_all(&chatters[..2], "red").await;
    let observer = fixture.observer();
    let announce = async |to, text: &str| observer.announcer.announce(announcement(to, json!([text]))).await.unwrap();
    assert_eq!(announce(Addressee::Everyone, "all").await, told(4));
    assert_eq!(announce(Addressee::Group("red".into()), "red").await, told(2));
    assert_eq!(announce(Addressee::Group("blue".into()), "blue").await, told(0));
    assert_eq!(announce(Addressee::User("ann".into()), "ann").await, told(1));
    for (place, client) in chatters.iter_mut().enumerate() {
        let more = if place < 2 { Some("red") } else { (place == 3).then_some("ann") };
        for text in ["all"].into_iter().chain(more) {
            assert_eq!(client.text().await, notice(&format!("[\"{text}\"]")));
        }
        client.fence(&chat).await;
    }
    reader.fence(&news).await;
}

#[tokio::test(crate = "paused")]
async fn an_announcement_to_a_client_reaches_it_alone_at_any_node_and_an_unknown_one_is_refused() {
    let (_network, mut nodes) = nodes(2).await;
    let (mut one, mut other) = (nodes[0].client().await, nodes[1].client().await);
    linked(&nodes).await;
    for (place, node) in nodes.iter().enumerate() {
        let observer = node.observer();
        let to = Addressee::Connection(other.id.clone());
        let report = observer.announcer.announce(announcement(to, json!([place]))).await.unwrap();
        assert_eq!((report.clients, &report.missing), (1, &Vec::new()), "{report:?}");
        assert_eq!(other.text().await, notice(&format!("[{place}]")));
        let stranger = Addressee::Connection("abcdefghijklmnopqrstuv".into());
        let refused = observer.announcer.announce(announcement(stranger, json!([]))).await;
        assert_eq!(refused, Err(ApiError::unknown_client("abcdefghijklmnopqrstuv")));
    }
    one.fence(&nodes[0].link).await;
    other.fence(&nodes[1].link).await;
}

#[tokio::test(crate = "paused")]
async fn arguments_arrive_as_they_were_given_in_each_hub_protocol() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let mut plain = link.client().await;
    let mut packed = Client::upgrade(&fixture, "/chat").await.unwrap();
    packed.write(Message::binary("{\"protocol\":\"messagepack\",\"version\":1}\u{1e}")).await;
    packed.id = link.opening().await.connection_id.to_string();
    link.data().await;
    link.write(&packed.id, "{}\u{1e}").await;
    assert_eq!(packed.next().await, Received::Binary("{}\u{1e}".into()));
    let arguments = json!(["grüße", 7, -1.5, true, null, [], { "inner": { "list": [1, "two", null] } }]);
    let report =
        fixture.observer().announcer.announce(announcement(Addressee::Everyone, arguments.clone())).await.unwrap();
    assert_eq!(report, told(2));
    assert_eq!(plain.text().await, notice(&arguments.to_string()));
    let Received::Binary(bytes) = packed.next().await else { panic!("no MessagePack") };
    let frame = next_frame(HubProtocol::MessagePack, &bytes, usize::MAX).unwrap().unwrap();
    let Ok(Some(HubMessage::Invocation(call))) = HubProtocol::MessagePack.decode(&bytes.slice(frame.body)) else {
        panic!("no invocation");
    };
    let values = call.arguments.iter().map(|argument| HubProtocol::MessagePack.value::<Value>(argument).unwrap());
    assert_eq!((&*call.target, values.collect::<Value>()), ("Notice", arguments));
}

#[tokio::test(crate = "paused")]
async fn simultaneous_announcements_arrive_in_one_order_everywhere() {
    let (fixture, mut link) = Fixture::with(settings(), 2).with_chat().await;
    let mut clients: [Client; 4] = link.clients().await;
    let observer = fixture.observer();
    let all = (0..32).map(|number| observer.announcer.announce(announcement(Addressee::Everyone, json!([number]))));
    let reports = join_all(all).await;
    assert!(reports.into_iter().all(|report| report.unwrap() == told(4)));
    for client in &mut clients {
        for number in 0..32 {
            assert_eq!(client.text().await, notice(&format!("[{number}]")));
        }
    }
}

#[tokio::test(crate = "paused")]
async fn announcements_above_the_limit_of_a_node_are_refused() {
    let fixture = Fixture::start();
    let _app = fixture.app("app-1", vec![HubManifest::new("chat", "/chat")]);
    let observer = fixture.observer();
    let all = (0..33).map(|number| observer.announcer.announce(announcement(Addressee::Everyone, json!([number]))));
    let reports = join_all(all).await;
    let busy = Err(ApiError::busy("32 announcements are in progress, which is the limit".into()));
    let refused = reports.iter().filter(|report| **report == busy);
    assert_eq!((refused.count(), reports.iter().flatten().count()), (1, 32));
    assert_eq!(observer.announcer.announce(announcement(Addressee::Everyone, json!([]))).await.unwrap(), told(0));
}

#[tokio::test(crate = "paused")]
async fn an_unknown_hub_and_a_raw_endpoint_take_no_announcements() {
    let fixture = Fixture::start();
    let raw = HubManifest { kind: EndpointKind::Raw, ..HubManifest::new("chat", "/chat") };
    let _app = fixture.app("app-1", vec![raw]);
    let observer = fixture.observer();
    let to_raw = observer.announcer.announce(announcement(Addressee::Everyone, json!([]))).await;
    assert!(format!("{to_raw:?}").contains("hub is a raw endpoint"), "{to_raw:?}");
    let unknown = Announcement { hub: "nowhere".into(), ..announcement(Addressee::Everyone, json!([])) };
    let to_unknown = observer.announcer.announce(unknown).await;
    assert_eq!(to_unknown, Err(ApiError::unknown_hub(Some("nowhere"))));
}

#[tokio::test(crate = "paused")]
async fn an_announcement_at_one_node_reaches_the_clients_of_all_once_and_in_order() {
    let (_network, mut nodes) = nodes(3).await;
    let mut clients = Vec::new();
    for node in &mut nodes {
        clients.push(node.client().await);
    }
    nodes[2].link.join(&clients[2].id, "red").await;
    linked(&nodes).await;
    let told = |clients| AnnouncementReport { nodes: 3, missing: Vec::new(), clients };
    for (place, node) in nodes.iter().enumerate() {
        let observer = node.observer();
        let all = (0..20)
            .map(|number| observer.announcer.announce(announcement(Addressee::Everyone, json!([place, number]))));
        assert!(join_all(all).await.into_iter().all(|report| report.unwrap() == told(3)));
        let red = observer.announcer.announce(announcement(Addressee::Group("red".into()), json!([place])));
        assert_eq!(red.await.unwrap(), told(1));
        let nobody = observer.announcer.announce(announcement(Addressee::User("nobody".into()), json!([])));
        assert_eq!(nobody.await.unwrap(), told(0));
    }
    for (at, (client, node)) in clients.iter_mut().zip(&nodes).enumerate() {
        for place in 0..3 {
            for number in 0..20 {
                assert_eq!(client.text().await, notice(&format!("[{place},{number}]")));
            }
            if at == 2 {
                assert_eq!(client.text().await, notice(&format!("[{place}]")));
            }
        }
        client.fence(&node.link).await;
    }
}

#[tokio::test(crate = "paused")]
async fn a_node_that_does_not_answer_is_named_and_delays_no_others() {
    let (_network, mut nodes) = nodes(3).await;
    let (_lost, mut other) = (nodes[1].client().await, nodes[2].client().await);
    linked(&nodes).await;
    nodes[1].cut(true);
    let observer = nodes[0].observer();
    let announcing = observer.announcer.announce(announcement(Addressee::Everyone, json!(["text"])));
    let reached = async {
        assert_eq!(other.text().await, notice("[\"text\"]"));
        Instant::now()
    };
    let begun = Instant::now();
    let (report, reached) = tokio::join!(announcing, reached);
    assert!(reached - begun < Duration::from_millis(100), "{:?}", reached - begun);
    assert!(begun.elapsed() <= ANSWER_TIMEOUT + Duration::from_millis(100), "{:?}", begun.elapsed());
    assert_eq!(report.unwrap(), AnnouncementReport { nodes: 2, missing: vec!["n2".into()], clients: 1 });
}

#[tokio::test(crate = "paused")]
async fn a_hub_that_only_another_node_has_is_announced_to_there() {
    let (_network, nodes) = nodes(2).await;
    let mut link = nodes[1].fixture.server_with("app-news", HubManifest::new("news", "/news")).await;
    let mut reader = Client::connect(&nodes[1].fixture, &mut link, "/news").await;
    linked(&nodes).await;
    let observer = nodes[0].observer();
    let announce = async |hub: &str| {
        let announcement = announcement(Addressee::Everyone, json!(["text"]));
        observer.announcer.announce(Announcement { hub: hub.into(), ..announcement }).await
    };
    let told = AnnouncementReport { nodes: 2, missing: Vec::new(), clients: 1 };
    assert_eq!(announce("news").await.unwrap(), told);
    assert_eq!(reader.text().await, notice("[\"text\"]"));
    assert_eq!(announce("nowhere").await, Err(ApiError::unknown_hub(Some("nowhere"))));
}
