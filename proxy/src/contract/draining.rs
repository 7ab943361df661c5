//! A node that stops.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_protocol::manifest::{CAUSE_HEADER, HubManifest};

use super::client::{Client, JSON_HANDSHAKE, Received};
use super::http::exchange;
use super::stage::{Stage, run, settings};
use crate::shard::ShardCommand;

#[test]
fn clients_are_told_to_connect_again_one_by_one_and_their_app_server_hears_of_each() {
    run(async {
        let stage = Stage::with(settings(), 2);
        let mut app = stage.app("app-1", vec![HubManifest::new("chat", "/chat")]);
        let mut link = app.link().await;
        let mut clients = Vec::new();
        for _ in 0..40 {
            clients.push(Client::connect(&stage, &mut link, "/chat").await);
        }
        let begun = Instant::now();
        stage.shared.refuse_clients();
        for shard in stage.shared.shards() {
            shard.give(vec![ShardCommand::Drain(Duration::from_secs(10))], 0).await;
        }
        let mut moments = Vec::new();
        for _ in 0..40 {
            let close = link.close().await;
            assert!(close.headers.iter().any(|(name, values)| name == CAUSE_HEADER && values[0] == "drained"));
            moments.push(begun.elapsed());
        }
        let in_the_first_half = moments.iter().filter(|moment| **moment < Duration::from_secs(2)).count();
        assert!((10..30).contains(&in_the_first_half), "they leave spread out: {moments:?}");
        for client in &mut clients {
            assert_eq!(client.text().await, "{\"type\":7,\"allowReconnect\":true}");
            assert_eq!(client.next().await, Received::End(Some(1000)));
        }
    });
}

#[test]
fn a_node_that_stops_takes_nobody_in() {
    run(async {
        let stage = Stage::start();
        let mut app = stage.app("app-1", vec![HubManifest::new("chat", "/chat")]);
        let mut link = app.link().await;
        let mut late = Client::upgrade(&stage, "/chat").await.unwrap();
        stage.shared.refuse_clients();
        stage.shared.shards()[0].give(vec![ShardCommand::Drain(Duration::ZERO)], 0).await;
        link.fence().await;
        assert_eq!(exchange(&stage, "POST", "/chat/negotiate?negotiateVersion=1", "").await.0, 503);
        assert_eq!(Client::upgrade(&stage, "/chat").await.err(), Some(503));
        // Its socket was let in before: its handshake is answered with a close that sends it elsewhere.
        late.send(JSON_HANDSHAKE).await;
        assert_eq!(late.next().await, Received::Text("{}".into()));
        assert_eq!(late.next().await, Received::Text("{\"type\":7,\"allowReconnect\":true}".into()));
        link.fence().await;
    });
}
