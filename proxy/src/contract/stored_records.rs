//! Records in a store: what outlives nodes, and several nodes that record the same.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::client::Client;
use super::fixture::paused;
use super::fleet_nodes::{FleetNode, linked, peers, until};
use super::followed_records::{RULES, Rooms, back_end, follow, next, said, send, texts};
use super::inbound_links::settle;
use super::rest_data_plane::Answer;
use crate::features::store::MemoryEngine;
use crate::ground::condition::ConditionKind;
use crate::ground::config::{HistorySettings, RelaySettings, Settings};
use crate::ground::net::connector::MemoryNetwork;

const LONG: Duration = Duration::from_secs(60);

async fn nodes(engine: &MemoryEngine, count: u8) -> (MemoryNetwork, Vec<FleetNode>) {
    nodes_with(engine, count, HistorySettings::default()).await
}

async fn nodes_with(engine: &MemoryEngine, count: u8, history: HistorySettings) -> (MemoryNetwork, Vec<FleetNode>) {
    let (network, all) = (MemoryNetwork::default(), (1..=count).collect::<Vec<_>>());
    let mut nodes = Vec::new();
    for &number in &all {
        let relay = RelaySettings { hop_timeout: Duration::from_secs(5), ..RelaySettings::embedded() };
        let settings = Settings { accepts_dial_in: true, relay, history: history.clone(), ..peers(&all) };
        nodes.push(FleetNode::start_stored(&network, number, settings, engine).await);
    }
    linked(&nodes).await;
    for node in &nodes {
        node.fixture.apply(RULES);
        let store = node.fleet.store().unwrap().clone();
        until(LONG, "the store is read", || store.is_connected()).await;
    }
    (network, nodes)
}

async fn rooms(engine: &MemoryEngine) -> Rooms {
    let (network, nodes) = nodes(engine, 3).await;
    Rooms::of(network, nodes).await
}

async fn page(node: &FleetNode, query: &str) -> Answer {
    back_end(node).ask("GET", &format!("/api/hubs/bench/groups/room-1/history{query}"), "").await
}

fn page_texts(page: &Answer) -> Vec<String> {
    let items = page.body["items"].as_array().unwrap_or_else(|| panic!("{page:?}")).iter();
    items.map(|item| item["arguments"][0].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(crate = "paused")]
async fn followers_notice_nothing_of_a_lost_recorder() {
    let (engine, mut sent) = (MemoryEngine::default(), Vec::new());
    let mut rooms = rooms(&engine).await;
    rooms.follow("room-1").await;
    for number in 0..4 {
        if number == 2 {
            rooms.lose_recorder().await;
        }
        sent.push(number.to_string());
        let answer = send(&back_end(&rooms.nodes[number % 2]), "groups/room-1", &sent[number]).await;
        assert_eq!((answer.status, &*answer.missing), (202, ""), "{answer:?}");
    }
    for client in &mut rooms.clients {
        assert_eq!(texts(client, 4).await, sent, "no reset");
    }
}

#[tokio::test(crate = "paused")]
async fn a_record_with_its_ids_and_its_end_outlives_all_nodes() {
    let engine = MemoryEngine::default();
    let headers = [("idempotency-key", "key")];
    let (path, body) =
        ("/api/hubs/bench/groups/room-1/:send", json!({ "target": "Say", "arguments": ["c"] }).to_string());
    let (position, whole) = {
        let (_network, nodes) = nodes(&engine, 2).await;
        for (number, text) in ["a", "b"].iter().enumerate() {
            assert_eq!(send(&back_end(&nodes[number]), "groups/room-1", text).await.status, 202);
        }
        let sent = back_end(&nodes[0]).ask_as("POST", path, &body, &headers).await;
        (sent.body["position"].clone(), page(&nodes[0], "").await.body)
    };
    let (_network, nodes) = nodes(&engine, 2).await;
    for node in &nodes {
        assert_eq!(page(node, "").await.body, whole, "with the same positions");
        let again = back_end(node).ask_as("POST", path, &body, &headers).await;
        assert_eq!((again.status, &again.body["position"]), (202, &position), "{again:?}");
    }
    let finish = "/api/hubs/bench/groups/room-1/history/:finish";
    assert_eq!(back_end(&nodes[0]).ask("POST", finish, "").await.status, 204);
    drop(nodes);
    let (_network, nodes) = super::stored_records::nodes(&engine, 2).await;
    assert_eq!(page(&nodes[0], "").await.body["finished"], json!(true));
    assert_eq!(send(&back_end(&nodes[1]), "groups/room-1", "d").await.status, 409);
    let history = "/api/hubs/bench/groups/room-1/history";
    assert_eq!(back_end(&nodes[1]).ask("DELETE", history, "").await.status, 204);
    assert_eq!(engine.logged(), 0);
    assert_eq!(send(&back_end(&nodes[0]), "groups/room-1", "e").await.status, 202);
    assert_eq!(page_texts(&page(&nodes[1], "").await), ["e"]);
}

#[tokio::test(crate = "paused")]
async fn two_sides_of_a_cut_network_write_one_record() {
    let engine = MemoryEngine::default();
    let (_network, nodes) = nodes(&engine, 3).await;
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let is_cut = round % 2 == 1;
        nodes[0].cut(is_cut);
        nodes[1].cut(is_cut);
        for number in 0..30 {
            let text = format!("{round}-{number}");
            if send(&back_end(&nodes[number % 3]), "groups/room-1", &text).await.status == 202 {
                acknowledged.push(text);
            }
            settle().await;
        }
    }
    nodes.iter().for_each(|node| node.cut(false));
    nodes.iter().for_each(|node| node.fixture.apply("[[history]]\nhub = 'bench'\ngroups = 'room-*'"));
    linked(&nodes).await;
    let pages = [page(&nodes[0], "").await, page(&nodes[1], "").await, page(&nodes[2], "").await];
    assert!(pages.iter().all(|page| page.body == pages[0].body), "{pages:?}");
    assert!(acknowledged.len() > 60, "{}", acknowledged.len());
    let kept = page_texts(&pages[0]);
    let newest: Vec<_> = acknowledged.iter().rev().take(3).collect();
    assert!(newest.iter().all(|text| kept.iter().filter(|kept| kept == text).count() == 1), "{kept:?} {newest:?}");
}

#[tokio::test(crate = "paused")]
async fn without_its_store_a_record_takes_nothing_and_delivers_nothing() {
    let engine = MemoryEngine::default();
    let mut rooms = rooms(&engine).await;
    rooms.follow("room-1").await;
    assert_eq!(send(&back_end(&rooms.nodes[0]), "groups/room-1", "a").await.status, 202);
    engine.set_away(Some("gone"));
    settle().await;
    let refused = send(&back_end(&rooms.nodes[1]), "groups/room-1", "b").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    rooms.links[0].send(super::app::to_group("room-1", &said("by a link")));
    settle().await;
    let conditions = &rooms.nodes[1].fixture.shared.reports.conditions;
    conditions.update(Vec::new(), false, Instant::now());
    let active = conditions.list();
    assert!(active.iter().any(|condition| condition.kind == ConditionKind::RecordsRefused), "{active:?}");
    engine.set_away(None);
    let stores: Vec<_> = rooms.nodes.iter().map(|node| node.fleet.store().unwrap().clone()).collect();
    until(LONG, "the store is back", || stores.iter().all(|store| store.is_connected())).await;
    assert_eq!(send(&back_end(&rooms.nodes[1]), "groups/room-1", "c").await.status, 202);
    for client in &mut rooms.clients {
        assert_eq!(texts(client, 2).await, ["a", "c"]);
    }
}

#[tokio::test(crate = "paused")]
async fn the_store_keeps_not_much_more_than_the_record_and_copies_have_no_effect() {
    let engine = MemoryEngine::default();
    {
        let (_network, nodes) = nodes(&engine, 1).await;
        for number in 0..200 {
            assert_eq!(send(&back_end(&nodes[0]), "groups/room-1", &number.to_string()).await.status, 202);
        }
        assert!(engine.logged() < 100, "{}", engine.logged());
    }
    engine.repeat_first_values();
    let (_network, nodes) = nodes(&engine, 1).await;
    let five: Vec<_> = (195..200).map(|number| number.to_string()).collect();
    assert_eq!(page_texts(&page(&nodes[0], "").await), five);
    assert_eq!(send(&back_end(&nodes[0]), "groups/room-1", "new").await.status, 202);
    let newest = page(&nodes[0], "?last=1").await;
    assert_eq!((page_texts(&newest), &newest.body["reset"]), (vec!["new".to_owned()], &Value::Null));
    assert!(newest.body["position"].as_str().unwrap().ends_with("-201"), "{newest:?}");
}

/// Follower that remembers what it got.
struct Reader {
    client: Client,
    seen: Vec<String>,
    position: String,
    /// Whether its stream has no end that was read.
    is_open: bool,
}

impl Reader {
    /// Reads the next message. Returns `false` at the end of the stream.
    async fn read(&mut self) -> bool {
        let mut message = next(&mut self.client).await;
        // Plain copies, between two follows.
        while message["type"] == json!(1) {
            message = next(&mut self.client).await;
        }
        let item = &message["item"];
        if message["type"] == json!(3) {
            // A new follow fails after five seconds without its record.
            let is_expected = message["error"].as_str().is_none_or(|error| error.ends_with("try again."));
            assert!(is_expected, "{message}");
            return false;
        }
        assert_eq!(item.get("reset"), None, "{message} after {:?}", self.seen.last());
        self.seen.push(item["arguments"][0].as_str().unwrap().to_owned());
        self.position = item["position"].as_str().unwrap().to_owned();
        true
    }

    async fn follow_again(&mut self) {
        self.client.send("{\"type\":5,\"invocationId\":\"s\"}\u{1e}").await;
        while self.is_open {
            self.is_open = self.read().await;
        }
        follow(&mut self.client, "s", json!({ "group": "room-1", "after": self.position })).await;
        self.is_open = true;
    }
}

/// Sends numbers one after the other, each until a node accepts it, while nodes are cut off, the store goes away, and
/// followers come back. Each follower must get each number once and in order.
async fn storm(seed: u64) {
    let engine = MemoryEngine::default();
    let mut rooms = rooms(&engine).await;
    rooms.nodes.iter().for_each(|node| node.fixture.apply("[[history]]\nhub = 'bench'\ngroups = 'room-*'"));
    let mut state = seed;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % below).unwrap()
    };
    rooms.follow("room-1").await;
    let reader = |client| Reader { client, seen: Vec::new(), position: "0".into(), is_open: true };
    let mut readers: Vec<_> = rooms.clients.drain(..).map(reader).collect();
    let path = "/api/hubs/bench/groups/room-1/:send";
    let (mut sent, mut cut) = (Vec::new(), None::<usize>);
    for step in 0..80 {
        match random(10) {
            0 => {
                if let Some(node) = cut.take() {
                    rooms.nodes[node].cut(false);
                } else {
                    let node = random(3);
                    rooms.nodes[node].cut(true);
                    cut = Some(node);
                }
            }
            1 => engine.set_away((random(2) == 0).then_some("gone")),
            2 => readers[random(3)].follow_again().await,
            _ => {
                let (text, key) = (step.to_string(), format!("{seed}-{step}"));
                let body = json!({ "target": "Say", "arguments": [text] }).to_string();
                for attempt in 0.. {
                    let node = &rooms.nodes[random(3)];
                    let headers = [("idempotency-key", &*key)];
                    if back_end(node).ask_as("POST", path, &body, &headers).await.status == 202 {
                        break;
                    }
                    if attempt == 5 {
                        engine.set_away(None);
                    }
                    settle().await;
                }
                sent.push(text);
            }
        }
    }
    engine.set_away(None);
    rooms.nodes.iter().for_each(|node| node.cut(false));
    for reader in &mut readers {
        while reader.seen.len() < sent.len() {
            if !reader.read().await {
                reader.is_open = false;
                reader.follow_again().await;
            }
        }
        assert_eq!(reader.seen, sent, "seed {seed}");
    }
}

#[tokio::test(crate = "paused")]
async fn random_storms_lose_double_and_reorder_nothing() {
    for seed in 0..10 {
        storm(seed).await;
    }
}

#[tokio::test(crate = "paused")]
async fn records_that_have_no_room_in_memory_together_are_read_and_deleted_all_the_same() {
    let (engine, count) = (MemoryEngine::default(), 60);
    let history = || HistorySettings { max_bytes: 1 << 20, ..HistorySettings::default() };
    let text = "x".repeat(9_000);
    let path = |number: usize| format!("/api/hubs/bench/groups/room-{number}/history");
    {
        let (_network, nodes) = nodes_with(&engine, 1, history()).await;
        for number in 0..count * 4 {
            let group = format!("groups/room-{}", number % count);
            assert_eq!(send(&back_end(&nodes[0]), &group, &text).await.status, 202);
        }
    }
    let (_network, nodes) = nodes_with(&engine, 1, history()).await;
    let back_end = back_end(&nodes[0]);
    let reads =
        join_all((0..count).map(async |number| back_end.ask("GET", &format!("{}?after=0", path(number)), "").await));
    assert!(reads.await.iter().all(|page| page_texts(page).len() == 4), "each page is whole");
    let deleted = join_all((0..count).map(async |number| back_end.ask("DELETE", &path(number), "").await.status));
    assert_eq!(deleted.await, vec![204; count]);
    assert_eq!(engine.logged(), 0);
}

#[tokio::test(crate = "paused")]
async fn a_message_whose_write_had_no_answer_is_delivered_before_the_next_one() {
    let engine = MemoryEngine::default();
    let mut rooms = rooms(&engine).await;
    let (link, member) = (&mut rooms.links[0], &mut rooms.clients[0]);
    super::followed_records::join(link, member, "room-1").await;
    assert_eq!(send(&back_end(&rooms.nodes[0]), "groups/room-1", "a").await.status, 202);
    let (path, headers) = ("/api/hubs/bench/groups/room-1/:send", [("idempotency-key", "key")]);
    let body = json!({ "target": "Say", "arguments": ["b"] }).to_string();
    engine.lose_answers(true);
    assert_eq!(back_end(&rooms.nodes[1]).ask_as("POST", path, &body, &headers).await.status, 503);
    engine.lose_answers(false);
    assert_eq!(back_end(&rooms.nodes[1]).ask_as("POST", path, &body, &headers).await.status, 202);
    assert_eq!(send(&back_end(&rooms.nodes[2]), "groups/room-1", "c").await.status, 202);
    for text in ["a", "b", "c"] {
        assert_eq!(rooms.clients[0].text().await, said(text));
    }
}

#[tokio::test(crate = "paused")]
async fn followers_notice_nothing_of_a_group_that_was_quiet_for_longer_than_its_messages_are_kept() {
    let engine = MemoryEngine::default();
    let mut rooms = rooms(&engine).await;
    rooms.nodes.iter().for_each(|node| node.fixture.apply("[[history]]\nhub = 'bench'\ngroups = 'room-*'\nage = '1s'"));
    rooms.follow("room-1").await;
    for text in ["a", "b"] {
        assert_eq!(send(&back_end(&rooms.nodes[0]), "groups/room-1", text).await.status, 202);
        for client in &mut rooms.clients {
            assert_eq!(texts(client, 1).await, [text], "no reset");
        }
        std::thread::sleep(Duration::from_millis(1100)); // sleep: messages age by the clock of the machine
        tokio::time::sleep(LONG).await; // sleep: paused
        engine.expire_logs();
    }
}

#[tokio::test(crate = "paused")]
async fn a_position_that_another_recorder_has_given_unnoticed_is_known() {
    let engine = MemoryEngine::default();
    let rooms = rooms(&engine).await;
    assert_eq!(send(&back_end(&rooms.nodes[0]), "groups/room-1", "a").await.status, 202);
    let (_network, others) = nodes(&engine, 1).await;
    let sent = send(&back_end(&others[0]), "groups/room-1", "b").await;
    let position = sent.body["position"].as_str().unwrap();
    for node in &rooms.nodes {
        let page = page(node, &format!("?after={position}")).await;
        assert_eq!((&page.body["reset"], &page.body["newest"]), (&Value::Null, &json!(position)), "{page:?}");
    }
}

#[tokio::test(crate = "paused")]
async fn what_another_recorder_writes_while_nodes_join_is_read_although_nothing_is_heard_of_it() {
    for later in [Duration::ZERO, LONG] {
        let engine = MemoryEngine::default();
        let rooms = rooms(&engine).await;
        let first = send(&back_end(&rooms.nodes[0]), "groups/room-1", "a").await;
        let first = first.body["position"].as_str().unwrap();
        let (_network, others) = nodes(&engine, 1).await;
        assert_eq!(send(&back_end(&others[0]), "groups/room-1", "b").await.status, 202);
        tokio::time::sleep(later).await; // sleep: virtual time, in which nodes agree on recorders
        for node in &rooms.nodes {
            assert_eq!(page_texts(&page(node, &format!("?after={first}")).await), ["b"]);
        }
    }
}
