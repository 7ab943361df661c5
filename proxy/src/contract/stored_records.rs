//! Records in a store: what outlives nodes, and several nodes that record the same.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::fixture::paused;
use super::fleet_nodes::{FleetNode, linked, peers, until};
use super::followed_records::{RULES, Rooms, back_end, said, send, texts};
use super::inbound_links::settle;
use super::rest_data_plane::Answer;
use crate::features::store::MemoryEngine;
use crate::ground::condition::ConditionKind;
use crate::ground::config::{RelaySettings, Settings};
use crate::ground::net::connector::MemoryNetwork;

const LONG: Duration = Duration::from_secs(60);

async fn nodes(engine: &MemoryEngine, count: u8) -> (MemoryNetwork, Vec<FleetNode>) {
    let (network, all) = (MemoryNetwork::default(), (1..=count).collect::<Vec<_>>());
    let mut nodes = Vec::new();
    for &number in &all {
        let relay = RelaySettings { hop_timeout: Duration::from_secs(5), ..RelaySettings::embedded() };
        let settings = Settings { accepts_dial_in: true, relay, ..peers(&all) };
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
