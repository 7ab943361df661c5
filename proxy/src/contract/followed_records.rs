//! Records of groups and users, and the clients that follow them.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, to_bytes};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::Instant;
use trunkline_protocol::access_token;
use trunkline_protocol::key::AccessKey;
use trunkline_protocol::service::*;

use super::app::{json as text_payload, membership, to_group, to_user};
use super::client::{Client, JSON_HANDSHAKE, Received};
use super::fixture::{KEY, paused};
use super::fleet_nodes::{FleetNode, peers, until};
use super::inbound_links::{DialInLink, HUB, ONE, dial_in_nodes, node_with_link, settle, token};
use super::inbound_moves::DialInScene;
use super::rest_data_plane::{Answer, BackEnd};
use crate::engine::shard::{Recorder, RequestOrigin};
use crate::fleet::MemberState;
use crate::ground::clock::unix_seconds;
use crate::ground::condition::ConditionKind;
use crate::ground::config::Settings;
use crate::ground::net::connector::MemoryNetwork;

pub(super) const RULES: &str =
    "[[history]]\nhub = 'bench'\ngroups = 'room-*'\nmessages = 5\n[[history]]\nhub = '*'\nusers = '*'";

/// Node with an app server and a back end, and a client in a recorded group.
struct Room {
    node: FleetNode,
    link: DialInLink,
    back_end: BackEnd,
    client: Client,
}

impl Room {
    async fn open() -> Self {
        let (node, mut link) = node_with_link().await;
        node.fixture.apply(RULES);
        let mut client = link.client(&node, "ann").await;
        join(&mut link, &mut client, "room-1").await;
        let back_end = back_end(&node);
        Self { node, link, back_end, client }
    }

    /// Sends by REST; returns the position.
    async fn send(&self, text: &str) -> String {
        let answer = send(&self.back_end, "groups/room-1", text).await;
        assert_eq!((answer.status, &*answer.missing), (202, ""), "{answer:?}");
        answer.body["position"].as_str().unwrap().to_owned()
    }

    async fn ask(&self, method: &str, path: &str) -> Answer {
        self.back_end.ask(method, &format!("/api/hubs/bench/{path}"), "").await
    }
}

pub(super) fn back_end(node: &FleetNode) -> BackEnd {
    BackEnd::of(&node.fixture, node.fleet.clone())
}

pub(super) async fn send(back_end: &BackEnd, to: &str, text: &str) -> Answer {
    let body = json!({ "target": "Say", "arguments": [text] }).to_string();
    back_end.ask("POST", &format!("/api/hubs/bench/{to}/:send"), &body).await
}

pub(super) async fn join(link: &mut DialInLink, client: &mut Client, group: &str) {
    link.send(ServiceMessage::JoinGroupWithAck(membership(&client.id, group, 7)));
    assert_eq!(link.ack().await.status, AckStatus::Ok);
}

pub(super) async fn follow(client: &mut Client, id: &str, terms: Value) {
    let call = json!({ "type": 4, "invocationId": id, "target": "follow", "arguments": [terms] });
    client.send(&format!("{call}\u{1e}")).await;
}

/// Next message that is no acknowledgement of stateful reconnect.
pub(super) async fn next(client: &mut Client) -> Value {
    loop {
        let message: Value = serde_json::from_str(&client.text().await).unwrap();
        if message["type"] != json!(8) {
            return message;
        }
    }
}

/// Item of the stream `s`: its position and text.
pub(super) async fn item(client: &mut Client) -> (String, String) {
    let message = next(client).await;
    let (item, text) = (&message["item"], &message["item"]["arguments"][0]);
    assert_eq!(
        (&message["type"], &message["invocationId"], &item["target"]),
        (&json!(2), &json!("s"), &json!("Say")),
        "{message}"
    );
    (item["position"].as_str().unwrap().into(), text.as_str().unwrap().into())
}

pub(super) async fn texts(client: &mut Client, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        texts.push(item(client).await.1);
    }
    texts
}

pub(super) async fn reset(client: &mut Client) -> (String, Value) {
    let item = next(client).await["item"].take();
    (item["reset"].as_str().unwrap().to_owned(), item["oldest"].clone())
}

/// End of the stream `s`: its error, if any.
pub(super) async fn end(client: &mut Client) -> Option<String> {
    let message = next(client).await;
    assert_eq!((&message["type"], &message["invocationId"]), (&json!(3), &json!("s")), "{message}");
    message["error"].as_str().map(str::to_owned)
}

pub(super) fn said(text: &str) -> String {
    format!("{{\"type\":1,\"target\":\"Say\",\"arguments\":[\"{text}\"]}}")
}

#[tokio::test(crate = "paused")]
async fn a_follower_gets_what_it_missed_and_then_each_message_once_and_the_end() {
    let mut room = Room::open().await;
    let mut other = room.link.client(&room.node, "ben").await;
    join(&mut room.link, &mut other, "room-1").await;
    let (first, second) = (room.send("a").await, room.send("b").await);
    for text in ["a", "b"] {
        assert_eq!([room.client.text().await, other.text().await], [said(text), said(text)]);
    }
    follow(&mut room.client, "s", json!({ "group": "room-1", "after": first })).await;
    assert_eq!(item(&mut room.client).await, (second.clone(), "b".into()));
    let third = room.send("c").await;
    room.link.send(to_group("room-1", &said("d")));
    assert_eq!(item(&mut room.client).await, (third, "c".into()), "an item, and no plain copy");
    assert_eq!([other.text().await, other.text().await], [said("c"), said("d")]);
    assert_eq!(texts(&mut room.client, 1).await, ["d"]);
    assert_eq!(room.ask("POST", "groups/room-1/history/:finish").await.status, 204);
    assert_eq!(end(&mut room.client).await, None);
    let refused = send(&room.back_end, "groups/room-1", "e").await;
    assert_eq!((refused.status, &*refused.code), (409, "Error.Record.Finished"));
    follow(&mut room.client, "s", json!({ "group": "room-1", "last": 2 })).await;
    assert_eq!(texts(&mut room.client, 2).await, ["c", "d"]);
    assert_eq!(end(&mut room.client).await, None, "a finished record ends after what is kept");
}

#[tokio::test(crate = "paused")]
async fn a_message_right_after_a_follow_is_an_item_and_one_that_was_lost_is_found_without_a_next_one() {
    let mut room = Room::open().await;
    let mut stream = events(&room, &[("trunkline.follow", "room-1")], "group=room-1", None).await.ok().unwrap();
    follow(&mut room.client, "s", json!({ "group": "room-1" })).await;
    let first = room.send("a").await;
    assert_eq!(item(&mut room.client).await, (first.clone(), "a".into()));
    stream.said(&first, "a").await;
    let hub = room.node.fixture.shared.hubs.named(HUB).unwrap().key().to_owned();
    let lost = room.node.fleet.record_undelivered(&hub, &RecordedSet::group("room-1")).to_string();
    stream.said(&lost, "a").await;
    assert_eq!(item(&mut room.client).await, (lost, "a".into()));
}

#[tokio::test(crate = "paused")]
async fn a_record_is_read_and_removed_by_rest() {
    let mut room = Room::open().await;
    assert_eq!(room.ask("DELETE", "groups/room-1/history").await.status, 404);
    let first = room.send("a").await;
    for text in ["b", "c", "d", "e", "f"] {
        room.send(text).await;
    }
    let texts = |answer: &Answer| {
        let items = answer.body["items"].as_array().unwrap().iter();
        items.map(|item| item["arguments"][0].as_str().unwrap().to_owned()).collect::<String>()
    };
    let all = room.ask("GET", "groups/room-1/history").await;
    assert_eq!((all.status, &*texts(&all), &all.body["finished"]), (200, "bcdef", &json!(false)), "five are kept");
    assert_eq!(all.body["position"], all.body["newest"]);
    assert_eq!(texts(&room.ask("GET", "groups/room-1/history?last=2").await), "ef");
    let behind = room.ask("GET", &format!("groups/room-1/history?after={first}")).await;
    assert_eq!((&*texts(&behind), &behind.body["reset"]), ("bcdef", &Value::Null), "the first one was read");
    for (query, name) in [("after=x", "after"), ("last=0", "last"), ("after=0&last=1", "after")] {
        let answer = room.ask("GET", &format!("groups/room-1/history?{query}")).await;
        assert_eq!((answer.status, answer.body["target"].as_str()), (400, Some(name)), "{query}");
    }
    follow(&mut room.client, "s", json!({ "group": "room-1" })).await;
    settle().await;
    assert_eq!(room.ask("DELETE", "groups/room-1/history").await.status, 204);
    for text in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(room.client.text().await, said(text));
    }
    assert_eq!(reset(&mut room.client).await, ("deleted".into(), Value::Null));
    assert_eq!(texts(&room.ask("GET", "groups/room-1/history").await), "");
    let again = room.send("g").await;
    assert_eq!(item(&mut room.client).await, (again.clone(), "g".into()));
    assert!(again.ends_with("-1") && again[..16] > first[..16], "a later epoch");
}

#[tokio::test(crate = "paused")]
async fn a_repeated_send_and_a_repeated_batch_are_recorded_once() {
    let room = Room::open().await;
    let one = json!({ "target": "Say", "arguments": ["one"] }).to_string();
    let group = |text: &str| json!({ "groups": ["room-1"], "target": "Say", "arguments": [text] });
    let batch = json!([group("two"), group("three")]).to_string();
    let send = async |path: &str, body: &str| {
        let headers = [("idempotency-key", "key")];
        room.back_end.ask_as("POST", &format!("/api/hubs/bench/{path}"), body, &headers).await
    };
    let (first, again) = (send("groups/room-1/:send", &one).await, send("groups/room-1/:send", &one).await);
    assert_eq!((first.status, first.body["position"].as_str()), (202, again.body["position"].as_str()));
    let other = json!({ "target": "Say", "arguments": ["other"] }).to_string();
    assert_eq!(send("groups/room-1/:send", &other).await.status, 422);
    let (first, again) = (send(":sendBatch", &batch).await, send(":sendBatch", &batch).await);
    let positions = |answer: &Answer| {
        let results = answer.body["results"].as_array().unwrap().iter();
        results.map(|one| one["positions"]["groups/room-1"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((first.status, positions(&first)), (200, positions(&again)));
    let page = room.ask("GET", "groups/room-1/history").await;
    let texts = page.body["items"].as_array().unwrap().iter().map(|item| item["arguments"][0].as_str().unwrap());
    assert_eq!(texts.collect::<Vec<_>>(), ["one", "two", "three"]);
}

#[tokio::test(crate = "paused")]
async fn a_position_of_another_record_or_no_longer_kept_is_a_reset() {
    let mut room = Room::open().await;
    let first = room.send("a").await;
    for text in ["b", "c", "d", "e", "f", "g"] {
        room.send(text).await;
    }
    for _ in 0..7 {
        room.client.text().await;
    }
    let epoch = &first[..16];
    for (after, reason) in
        [(first.clone(), "expired"), (format!("{epoch}-8"), "lost"), ("0000000000000001-1".into(), "lost")]
    {
        follow(&mut room.client, "s", json!({ "group": "room-1", "after": after })).await;
        assert_eq!(reset(&mut room.client).await, (reason.into(), json!(format!("{epoch}-3"))), "{after}");
        assert_eq!(texts(&mut room.client, 5).await, ["c", "d", "e", "f", "g"]);
        room.client.send("{\"type\":5,\"invocationId\":\"s\"}\u{1e}").await;
        assert_eq!(end(&mut room.client).await, None);
    }
    room.send("h").await;
    assert_eq!(room.client.text().await, said("h"), "a cancelled follow is over");
}

#[tokio::test(crate = "paused")]
async fn only_members_holders_of_a_claim_and_the_user_follow() {
    let mut room = Room::open().await;
    let mut ben = room.link.client(&room.node, "ben").await;
    let begun = Instant::now();
    follow(&mut ben, "s", json!({ "group": "room-1", "after": "0" })).await;
    assert_eq!(end(&mut ben).await.unwrap(), "The connection is no member of the group 'room-1'.");
    assert!((4..=6).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    room.send("a").await;
    follow(&mut ben, "s", json!({ "group": "room-1", "after": "0" })).await;
    settle().await;
    join(&mut room.link, &mut ben, "room-1").await;
    assert_eq!(texts(&mut ben, 1).await, ["a"], "the join came after the follow");
    room.link.send(ServiceMessage::LeaveGroup(membership(&ben.id, "room-1", 0)));
    assert_eq!(end(&mut ben).await.unwrap(), "The connection has left the group 'room-1'.");
    let mut eve = claimant(&mut room, "room-1").await;
    follow(&mut eve, "s", json!({ "group": "room-1", "after": "0" })).await;
    assert_eq!(texts(&mut eve, 1).await, ["a"]);
    follow(&mut ben, "s", json!({ "user": true })).await;
    settle().await;
    room.link.send(to_user("ben", &said("for ben")));
    assert_eq!(texts(&mut ben, 1).await, ["for ben"]);
}

/// Client with a token that permits it to follow a group.
async fn claimant(room: &mut Room, group: &str) -> Client {
    let claims = [("aud", "http://any.example/client/?hub=bench"), ("trunkline.follow", group)];
    let claims = claims.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let token = access_token::sign(&AccessKey::new(KEY).unwrap(), "eve", &claims, unix_seconds() + 60);
    let target = format!("/client/{HUB}&access_token={token}");
    let mut client = Client::upgrade(&room.node.fixture, &target).await.unwrap();
    client.send(JSON_HANDSHAKE).await;
    assert_eq!(client.next().await, Received::Text("{}".into()));
    client
}

#[tokio::test(crate = "paused")]
async fn a_call_that_makes_no_sense_is_answered_with_the_reason() {
    let mut room = Room::open().await;
    for (terms, words) in [
        (json!({}), "{\"group\": \"red\", \"after\": \"0\"}, or {\"user\": true}."),
        (json!({ "group": "room-1", "user": true }), "or {\"user\": true}."),
        (json!({ "group": "room-1", "after": "" }), "after must be the position of a received message"),
        (json!({ "group": "room-1", "after": "0", "last": 1 }), "after must not be given together with last"),
        (json!({ "group": "room-1", "last": 0 }), "last must be a whole number from 1"),
        (json!({ "group": "room-1", "afer": "0" }), "unknown field `afer`"),
        (json!({ "group": "hall" }), "the group 'hall' is not recorded"),
        (json!({ "group": "room-".repeat(1000) }), "The name has 5000 bytes, but at most 1024 are allowed."),
        (json!("room-1"), "invalid type"),
    ] {
        follow(&mut room.client, "s", terms.clone()).await;
        let error = end(&mut room.client).await.unwrap();
        assert!(error.contains(words), "{terms}: {error}");
    }
    room.client.send("{\"type\":1,\"invocationId\":\"s\",\"target\":\"FOLLOW\",\"arguments\":[]}\u{1e}").await;
    assert!(end(&mut room.client).await.unwrap().contains("call it as a stream"));
    let long = "s".repeat(129);
    follow(&mut room.client, &long, json!({ "group": "room-1" })).await;
    let refused = next(&mut room.client).await["error"].to_string();
    assert!(refused.contains("The invocation id has 129 bytes, but at most 128 are allowed."), "{refused}");
    follow(&mut room.client, "t", json!({ "group": "room-1" })).await;
    follow(&mut room.client, "s", json!({ "group": "room-1" })).await;
    assert_eq!(end(&mut room.client).await.unwrap(), "The connection follows the group 'room-1' already.");
}

#[tokio::test(crate = "paused")]
async fn a_hub_without_records_keeps_its_own_method_of_that_name() {
    let (node, mut link) = node_with_link().await;
    let mut client = link.client(&node, "ann").await;
    follow(&mut client, "s", json!({ "group": "room-1" })).await;
    let ServiceMessage::ConnectionData(data) = link.next().await else { panic!("no call") };
    assert!(String::from_utf8_lossy(&data.payload).contains("follow"));
}

#[tokio::test(crate = "paused")]
async fn a_client_that_reads_slowly_misses_and_doubles_nothing() {
    let mut room = Room::open().await;
    room.node.fixture.apply("[[history]]\nhub = 'bench'\ngroups = 'room-*'");
    let target = format!("/client/{HUB}&access_token={}", token("client", "slow"));
    let mut slow = Client::upgrade_over(room.node.fixture.dial_with(1024), &target).await.unwrap();
    slow.send(JSON_HANDSHAKE).await;
    assert_eq!(slow.next().await, Received::Text("{}".into()));
    let ServiceMessage::OpenConnection(open) = room.link.next().await else { panic!("no opening") };
    slow.id = open.connection_id.to_string();
    join(&mut room.link, &mut slow, "room-1").await;
    follow(&mut slow, "s", json!({ "group": "room-1", "after": "0" })).await;
    let large = "x".repeat(10_000);
    let mut sent = Vec::new();
    for number in 0..400 {
        sent.push(format!("{number}{large}"));
        let payloads = text_payload(&said(&sent[number]));
        let group = "room-1".into();
        room.link.send(ServiceMessage::GroupBroadcastData(GroupBroadcastData {
            group,
            payloads,
            ..Default::default()
        }));
    }
    settle().await;
    assert!(texts(&mut slow, 400).await == sent, "each once, in order");
}

/// Three nodes with an app server and a follower at each.
pub(super) struct Rooms {
    pub(super) network: MemoryNetwork,
    pub(super) nodes: Vec<FleetNode>,
    pub(super) links: Vec<DialInLink>,
    pub(super) clients: Vec<Client>,
}

impl Rooms {
    async fn open() -> Self {
        let (network, nodes) = dial_in_nodes(3).await;
        Self::of(network, nodes).await
    }

    pub(super) async fn of(network: MemoryNetwork, nodes: Vec<FleetNode>) -> Self {
        let (mut links, mut clients) = (Vec::new(), Vec::new());
        for node in &nodes {
            node.fixture.apply(RULES);
            let mut link = DialInLink::open(node, "home_1", ONE).await;
            clients.push(link.client(node, "ann").await);
            links.push(link);
        }
        settle().await;
        Self { network, nodes, links, clients }
    }

    pub(super) async fn follow(&mut self, group: &str) {
        for (link, client) in self.links.iter_mut().zip(&mut self.clients) {
            join(link, client, group).await;
            follow(client, "s", json!({ "group": group, "after": "0" })).await;
        }
        settle().await;
    }

    /// Kills the node that has the records.
    pub(super) async fn lose_recorder(&mut self) {
        let recorder = self.nodes.iter().position(|node| node.fleet.records().size().1 > 0).unwrap();
        let lost = self.nodes.remove(recorder);
        drop((self.links.remove(recorder), self.clients.remove(recorder)));
        lost.kill(&self.network);
        until(Duration::from_secs(60), "the lost node is gone", || {
            self.nodes.iter().all(|node| node.fleet.members().all().len() == self.nodes.len() - 1)
        })
        .await;
    }
}

#[tokio::test(crate = "paused")]
async fn all_nodes_have_one_order_whichever_node_a_message_enters() {
    let mut rooms = Rooms::open().await;
    rooms.follow("room-1").await;
    for number in 0..30 {
        rooms.links[number % 3].send(to_group("room-1", &said(&number.to_string())));
    }
    let first = texts(&mut rooms.clients[0], 30).await;
    for client in &mut rooms.clients[1..] {
        assert_eq!(texts(client, 30).await, first);
    }
    let of_link = |link: usize| first.iter().filter(|text| text.parse::<usize>().unwrap() % 3 == link).count();
    assert_eq!([of_link(0), of_link(1), of_link(2)], [10; 3]);
    let mut positions = Vec::new();
    for node in &rooms.nodes {
        let answer = back_end(node).ask("GET", "/api/hubs/bench/groups/room-1/history?last=1", "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        positions.push(answer.body["position"].clone());
        let sent = send(&back_end(node), "groups/room-1", "by rest").await;
        assert_eq!((sent.status, &sent.body["clients"], &sent.body["nodes"]), (202, &json!(3), &json!(3)), "{sent:?}");
        positions.push(sent.body["position"].clone());
    }
    let numbers: Vec<_> = positions.iter().map(|it| it.as_str().unwrap()[17..].parse::<u64>().unwrap()).collect();
    assert_eq!(numbers, [30, 31, 31, 32, 32, 33]);
}

#[tokio::test(crate = "paused")]
async fn each_node_is_the_recorder_of_some_groups() {
    let rooms = Rooms::open().await;
    for number in 0..30 {
        let sent = send(&back_end(&rooms.nodes[number % 3]), &format!("groups/room-{number}"), "x").await;
        assert_eq!(sent.status, 202, "{sent:?}");
    }
    let records: Vec<_> = rooms.nodes.iter().map(|node| node.fleet.records().size().1).collect();
    assert_eq!(records.iter().sum::<usize>(), 30);
    assert!(records.iter().all(|records| *records > 0), "{records:?}");
}

#[tokio::test(crate = "paused")]
async fn a_node_that_has_just_given_a_record_away_does_not_call_it_lost() {
    let rooms = Rooms::open().await;
    let sent = send(&back_end(&rooms.nodes[0]), "groups/room-1", "a").await;
    let recorder = rooms.nodes.iter().find(|node| node.fleet.records().size().1 > 0).unwrap();
    let other = rooms.nodes.iter().find(|node| node.fleet.records().size().1 == 0).unwrap();
    let hub = recorder.fixture.shared.hubs.named(HUB).unwrap().key().to_owned();
    let request = |act, id: Option<&str>, start: &str| RecordRequest {
        set: RecordedSet::group("room-1"),
        act,
        id: id.map(Into::into),
        start: start.into(),
        ..RecordRequest::default()
    };
    let give = request(RecordAct::Yield, Some(&other.fixture.shared.boot), "");
    recorder.fleet.request_record(&hub, give, RequestOrigin::OtherNode).await;
    assert_eq!(other.fleet.records().size().1, 1);
    let read = request(RecordAct::Read, None, sent.body["position"].as_str().unwrap());
    let reply = recorder.fleet.request_record(&hub, read, RequestOrigin::OtherNode).await;
    assert_eq!((reply.refused, reply.page), (Some(RecordRefusal::Moving), None));
}

#[tokio::test(crate = "paused")]
async fn a_node_without_the_rule_records_for_the_others_and_reports_it() {
    let rooms = Rooms::open().await;
    rooms.nodes[1].fixture.apply("");
    for number in 0..30 {
        let sent = send(&back_end(&rooms.nodes[0]), &format!("groups/room-{number}"), "x").await;
        assert!(sent.status == 202 && sent.body["position"].is_string(), "{sent:?}");
    }
    let reports = |node: &FleetNode| {
        let conditions = &node.fixture.shared.reports.conditions;
        conditions.update(Vec::new(), false, Instant::now());
        conditions.list().iter().any(|condition| condition.kind == ConditionKind::RecordRulesDiffer)
    };
    assert!(!rooms.nodes.iter().any(reports), "a rollout takes some seconds");
    tokio::time::sleep(Duration::from_secs(61)).await; // sleep: until the condition is active
    assert_eq!(rooms.nodes.iter().map(reports).collect::<Vec<_>>(), [false, true, false]);
}

#[tokio::test(crate = "paused")]
async fn a_node_that_is_not_the_recorder_refuses_requests_of_other_nodes() {
    let rooms = Rooms::open().await;
    let hub = rooms.nodes[0].fixture.shared.hubs.named(HUB).unwrap().key().to_owned();
    for number in 0..6 {
        let group = format!("room-{number}");
        let body = super::app::to_group(&group, &said("a")).to_body();
        let set = RecordedSet::group(group);
        let request = RecordRequest { set, act: RecordAct::Append, body, ..RecordRequest::default() };
        let mut refused = Vec::new();
        for node in &rooms.nodes {
            refused.push(node.fleet.request_record(&hub, request.clone(), RequestOrigin::OtherNode).await.refused);
        }
        refused.sort_by_key(Option::is_some);
        let moving = Some(RecordRefusal::Moving);
        assert_eq!(refused, [None, moving, moving], "one of the nodes records");
    }
}

#[tokio::test(crate = "paused")]
async fn a_draining_node_hands_its_records_over_and_followers_notice_nothing() {
    let mut rooms = Rooms::open().await;
    rooms.follow("room-1").await;
    let mut sent = Vec::new();
    for _ in 0..3 {
        let recorder = rooms.nodes.iter().position(|node| node.fleet.records().size().1 > 0);
        if let Some(drained) = recorder.filter(|_| rooms.nodes.len() > 1) {
            rooms.nodes[drained].fixture.shared.begin_drain();
        }
        for (number, link) in (0..20).zip(rooms.links.iter().cycle()) {
            let text = format!("{}-{number}", sent.len());
            link.send(to_group("room-1", &said(&text)));
            sent.push(text);
        }
        settle().await;
        settle().await;
    }
    let mut first = texts(&mut rooms.clients[0], 60).await;
    for client in &mut rooms.clients[1..] {
        assert_eq!(texts(client, 60).await, first);
    }
    first.sort();
    sent.sort();
    assert_eq!(first, sent, "each once");
}

#[tokio::test(crate = "paused")]
async fn a_node_that_joins_gets_its_records_from_the_others() {
    let (network, mut nodes) = dial_in_nodes(2).await;
    nodes.iter().for_each(|node| node.fixture.apply(RULES));
    for number in 0..30 {
        let sent = send(&back_end(&nodes[number % 2]), &format!("groups/room-{number}"), "x").await;
        assert_eq!(sent.status, 202, "{sent:?}");
    }
    let all = (1..=3).collect::<Vec<_>>();
    let settings = Settings { accepts_dial_in: true, ..peers(&all) };
    nodes.push(FleetNode::start(&network, 3, settings).await);
    nodes[2].fixture.apply(RULES);
    until(Duration::from_secs(20), "the new node has records", || nodes[2].fleet.records().size().1 > 0).await;
    settle().await;
    let records: usize = nodes.iter().map(|node| node.fleet.records().size().1).sum();
    assert_eq!(records, 30);
    for number in 0..30 {
        let path = format!("/api/hubs/bench/groups/room-{number}/history");
        let page = back_end(&nodes[number % 3]).ask("GET", &path, "").await;
        assert_eq!(page.body["items"].as_array().map(Vec::len), Some(1), "{page:?}");
    }
}

#[tokio::test(crate = "paused")]
async fn followers_of_a_lost_recorder_get_a_reset_and_go_on() {
    let mut rooms = Rooms::open().await;
    rooms.follow("room-1").await;
    let sent = send(&back_end(&rooms.nodes[0]), "groups/room-1", "a").await;
    assert_eq!(sent.status, 202);
    for client in &mut rooms.clients {
        assert_eq!(texts(client, 1).await, ["a"]);
    }
    rooms.lose_recorder().await;
    let sent = send(&back_end(&rooms.nodes[0]), "groups/room-1", "b").await;
    assert_eq!(sent.status, 202, "{sent:?}");
    for client in &mut rooms.clients {
        assert_eq!(reset(client).await.0, "lost");
        assert_eq!(texts(client, 1).await, ["b"]);
    }
}

#[tokio::test(crate = "paused")]
async fn a_record_given_to_a_node_that_crashes_begins_again() {
    super::fleet_nodes::by_network();
    let (network, mut nodes) = dial_in_nodes(2).await;
    nodes.iter().for_each(|node| node.fixture.apply(RULES));
    nodes.remove(1).kill(&network);
    let groups: Vec<_> = (0..8).map(|number| format!("groups/room-{number}")).collect();
    until(Duration::from_secs(60), "the node is alone", || nodes[0].fleet.members().all().is_empty()).await;
    for group in &groups {
        assert_eq!(send(&back_end(&nodes[0]), group, "a").await.status, 202);
    }
    let settings = Settings { accepts_dial_in: true, ..peers(&[1, 2]) };
    let other = FleetNode::start(&network, 2, settings).await;
    other.fixture.apply(RULES);
    until(Duration::from_secs(20), "the new node has records", || other.fleet.records().size().1 > 0).await;
    settle().await;
    other.kill(&network);
    let members = || nodes[0].fleet.members();
    until(Duration::from_secs(9), "the crash is noticed", || {
        members().all().iter().all(|member| member.state(members().now_ms()) == MemberState::Unreachable)
    })
    .await;
    for group in &groups {
        let sent = send(&back_end(&nodes[0]), group, "b").await;
        assert_eq!(sent.status, 202, "{sent:?}");
    }
}

#[tokio::test(crate = "paused")]
async fn a_follow_moves_with_its_connection() {
    let mut scene = DialInScene::open().await;
    scene.nodes.iter().for_each(|node| node.fixture.apply("[[history]]\nhub = 'bench'\ngroups = 'red'"));
    let (mut client, target) = scene.connect().await;
    follow(&mut client, "s", json!({ "group": "red", "after": "0" })).await;
    settle().await;
    scene.senders[2].send(to_group("red", &said("a")));
    assert_eq!(texts(&mut client, 1).await, ["a"]);
    client.send("{\"type\":8,\"sequenceId\":1}\u{1e}").await;
    settle().await;
    let id = client.id.clone();
    drop(client);
    settle().await;
    scene.senders[1].send(to_group("red", &said("b")));
    settle().await;
    let coming = scene.begin_move(&id, &target).await;
    scene.senders[0].send(to_group("red", &said("c")));
    settle().await;
    let mut client = scene.end_move(coming, &id).await;
    let sequence = next(&mut client).await;
    assert_eq!(sequence["type"], json!(9), "{sequence}");
    client.send("{\"type\":9,\"sequenceId\":1}\u{1e}").await;
    scene.senders[2].send(to_group("red", &said("d")));
    assert_eq!(texts(&mut client, 3).await, ["b", "c", "d"]);
}

/// Event stream of a record.
struct Events {
    body: BodyDataStream,
    read: String,
}

impl Events {
    /// Next event. A position without an event is skipped.
    async fn next(&mut self) -> Option<String> {
        loop {
            let block = self.block().await?;
            if !block.starts_with("id: ") || block.contains(" data: ") {
                return Some(block);
            }
        }
    }

    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.find("\n\n") {
                let event: String = self.read.drain(..end + 2).collect();
                if !event.starts_with(':') {
                    return Some(event.trim_end().replace('\n', " "));
                }
                continue;
            }
            self.read.push_str(std::str::from_utf8(&self.body.next().await?.unwrap()).unwrap());
        }
    }

    async fn said(&mut self, position: &str, text: &str) {
        let data = format!("{{\"position\":\"{position}\",\"target\":\"Say\",\"arguments\":[\"{text}\"]}}");
        assert_eq!(self.next().await, Some(format!("id: {position} data: {data}")));
    }
}

/// Requests the events of a record at the path for tokens of dial-in. Returns them, or the refusal.
async fn events(
    room: &Room,
    claims: &[(&str, &str)],
    query: &str,
    last: Option<&str>,
) -> Result<Events, (u16, String)> {
    let of_hub = [("aud", "http://any.example/client/?hub=bench")];
    let claims = of_hub.iter().chain(claims).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let claims: Vec<_> = claims.collect();
    let token = access_token::sign(&AccessKey::new(KEY).unwrap(), "eve", &claims, unix_seconds() + 60);
    let uri = format!("http://any.example/client/history?hub=bench&{query}&access_token={token}");
    let mut request = http::Request::get(uri).header("host", "any.example").header("accept", "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let (head, body) = room.node.fixture.answer(request.body(Body::empty()).unwrap()).await.into_parts();
    if head.status == 200 {
        assert_eq!(head.headers["content-type"], "text/event-stream");
        return Ok(Events { body: body.into_data_stream(), read: String::new() });
    }
    let text = to_bytes(body, 1000).await.unwrap();
    Err((head.status.as_u16(), String::from_utf8(text.into()).unwrap()))
}

#[tokio::test(crate = "paused")]
async fn an_event_stream_goes_on_behind_its_last_event_and_ends_with_the_record() {
    let room = Room::open().await;
    let claim = [("trunkline.follow", "room-1")];
    let first = room.send("a").await;
    let second = room.send("b").await;
    let mut stream = events(&room, &claim, "group=room-1&after=0", None).await.ok().unwrap();
    stream.said(&first, "a").await;
    stream.said(&second, "b").await;
    let third = room.send("c").await;
    stream.said(&third, "c").await;
    let mut again = events(&room, &claim, "group=room-1&after=0", Some(&second)).await.ok().unwrap();
    again.said(&third, "c").await;
    let mut newest = events(&room, &claim, "group=room-1&last=1", None).await.ok().unwrap();
    newest.said(&third, "c").await;
    let mut reset = events(&room, &claim, "group=room-1", Some("00000000000000ff-9")).await.ok().unwrap();
    let lost = json!({ "reset": "lost", "oldest": first });
    let before = first.replace("-1", "-0");
    assert_eq!(reset.next().await, Some(format!("event: reset id: {before} data: {lost}")), "to come back to");
    reset.said(&first, "a").await;
    assert_eq!(room.ask("POST", "groups/room-1/history/:finish").await.status, 204);
    for stream in [&mut stream, &mut again] {
        assert_eq!((stream.next().await.as_deref(), stream.next().await), (Some("event: end data: {}"), None));
    }
    let over = events(&room, &claim, "group=room-1", Some(&third)).await.err();
    assert_eq!(over, Some((204, String::new())), "an EventSource stays away");
}

#[tokio::test(crate = "paused")]
async fn an_event_stream_that_comes_back_before_its_first_event_misses_nothing() {
    let room = Room::open().await;
    let claim = [("trunkline.follow", "room-1")];
    for text in ["a", "b"] {
        let mut stream = events(&room, &claim, "group=room-1", None).await.ok().unwrap();
        let begin = stream.block().await.unwrap();
        drop(stream);
        let position = room.send(text).await;
        let id = begin.strip_prefix("id: ").unwrap();
        let mut again = events(&room, &claim, "group=room-1", Some(id)).await.ok().unwrap();
        again.said(&position, text).await;
        let query = format!("group=room-1&lastEventId={id}");
        events(&room, &claim, &query, None).await.ok().unwrap().said(&position, text).await;
    }
}

#[tokio::test(crate = "paused")]
async fn pages_and_events_have_the_json_of_the_back_end_in_one_line() {
    let room = Room::open().await;
    let mut live = events(&room, &[("trunkline.follow", "room-1")], "group=room-1", None).await.ok().unwrap();
    let arguments = "[12345678901234567.50,{\"z\":1e5,\r\n\"a\":79228162514264337593543950335}]";
    let body = format!("{{\"target\":\"Say\",\"arguments\":{arguments}}}");
    let sent = room.back_end.ask("POST", "/api/hubs/bench/groups/room-1/:send", &body).await;
    assert_eq!(sent.status, 202, "{sent:?}");
    let position = sent.body["position"].as_str().unwrap();
    let line = arguments.replace(['\r', '\n'], " ");
    let item = format!("{{\"position\":\"{position}\",\"target\":\"Say\",\"arguments\":{line}}}");
    assert_eq!(live.next().await, Some(format!("id: {position} data: {item}")));
    let mut read = events(&room, &[("trunkline.follow", "room-1")], "group=room-1&after=0", None).await.ok().unwrap();
    assert_eq!(read.next().await, Some(format!("id: {position} data: {item}")));
    let page = room.ask("GET", "groups/room-1/history").await;
    assert!(page.text.contains(&format!("[{item}]")), "{page:?}");
}

#[tokio::test(crate = "paused")]
async fn an_event_stream_that_reads_slowly_shows_what_it_lost_and_also_a_deletion() {
    let room = Room::open().await;
    let mut stream = events(&room, &[("trunkline.follow", "room-1")], "group=room-1", None).await.ok().unwrap();
    let mut positions = Vec::new();
    for number in 0..100 {
        positions.push(room.send(&number.to_string()).await);
    }
    let expired = json!({ "reset": "expired", "oldest": positions[95] });
    assert_eq!(
        stream.next().await,
        Some(format!("event: reset id: {} data: {expired}", positions[94])),
        "five are kept"
    );
    for (number, position) in positions.iter().enumerate().skip(95) {
        stream.said(position, &number.to_string()).await;
    }
    assert_eq!(room.ask("DELETE", "groups/room-1/history").await.status, 204);
    let deleted = json!({ "reset": "deleted", "oldest": null });
    let begin = Position::default();
    assert_eq!(stream.next().await, Some(format!("event: reset id: {begin} data: {deleted}")));
    let again = room.send("again").await;
    stream.said(&again, "again").await;
}

#[tokio::test(crate = "paused")]
async fn an_event_stream_needs_a_claim_or_a_membership_and_ends_with_it() {
    let room = Room::open().await;
    let refused = async |claims: &[(&str, &str)], query: &str, last: Option<&str>| {
        events(&room, claims, query, last).await.err().unwrap_or_default()
    };
    let claim = [("trunkline.follow", "room-1")];
    let (status, text) = refused(&[("trunkline.follow", "room-2")], "group=room-1", None).await;
    assert!(status == 403 && text.contains("'room-1'") && text.contains("trunkline.follow"), "{status} {text}");
    for (query, last, status, word) in [
        ("group=hall", None, 404, "[[history]]"),
        ("", None, 400, "?group=NAME"),
        ("group=room-1&user=true", None, 400, "?group=NAME"),
        ("group=room-1&after=0&last=1", None, 400, "after"),
        ("group=room-1&last=x", None, 400, "last"),
        ("group=room-1", Some("x"), 400, "Last-Event-ID"),
    ] {
        let refusal = refused(&claim, query, last).await;
        assert!(refusal.0 == status && refusal.1.contains(word), "{query} {last:?}: {refusal:?}");
    }
    let mut own = events(&room, &[], "user=true", None).await.ok().unwrap();
    let sent = send(&room.back_end, "users/eve", "for eve").await;
    own.said(sent.body["position"].as_str().unwrap(), "for eve").await;
    assert_eq!(room.ask("PUT", "users/eve/groups/room-1?ttl=60").await.status, 200);
    let mut member = events(&room, &[], "group=room-1", None).await.ok().unwrap();
    let first = room.send("a").await;
    member.said(&first, "a").await;
    assert_eq!(room.ask("DELETE", "users/eve/groups/room-1").await.status, 204);
    assert_eq!(member.next().await, None, "the user has left");
}
