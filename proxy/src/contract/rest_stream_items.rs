//! Stream items by REST: a back end that waits for each response sends no faster than its client reads.

use std::time::Duration;

use serde_json::json;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep};
use trunkline_protocol::service::{CloseConnection, ServiceMessage};

use super::client::Client;
use super::fixture::{Fixture, paused};
use super::fleet_nodes::{linked, nodes};
use super::rest_data_plane::{Answer, BackEnd, alone, served};
use super::scene::LinkedApp;
use crate::engine::shard::ShardCommand;
use crate::ground::config::{RestSettings, Settings};

/// Pipe capacity of a client.
const PIPE_BYTES: usize = 1024;

/// More than may be queued for a client without a wait.
const LARGE: usize = 150_000;

/// Requests that may wait for one client, and for all clients.
const WAITS: (usize, usize) = (64, 256);

struct SlowReader {
    fixture: Fixture,
    link: LinkedApp,
    client: Client,
    back_end: BackEnd,
}

impl SlowReader {
    async fn connect(settings: Settings) -> Self {
        let (fixture, mut link) = Fixture::with(settings, 1).with_chat().await;
        let client = Client::connect_over(fixture.dial_with(PIPE_BYTES), &mut link, "/chat").await;
        let back_end = alone(&fixture);
        Self { fixture, link, client, back_end }
    }

    fn send(&self, bytes: usize) -> JoinHandle<Answer> {
        send(&self.back_end, &self.client, bytes)
    }
}

fn send(back_end: &BackEnd, client: &Client, bytes: usize) -> JoinHandle<Answer> {
    let (back_end, path) = (back_end.clone(), format!("/connections/{}/streams/s1/:send", client.id));
    spawn_local(async move { back_end.ask("POST", &path, &format!("\"{}\"", "x".repeat(bytes))).await })
}

async fn pass(seconds: u64) {
    // sleep: paused time; other tasks run as far as they can
    sleep(Duration::from_secs(seconds)).await;
}

async fn answered(sending: JoinHandle<Answer>) {
    let answer = sending.await.unwrap();
    assert_eq!((answer.status, &answer.body["clients"]), (202, &json!(1)), "{answer:?}");
}

#[tokio::test(crate = "paused")]
async fn responses_wait_until_the_client_has_read_most_of_its_data() {
    let mut reader = SlowReader::connect(served()).await;
    let begun = Instant::now();
    let (large, small) = (reader.send(LARGE), reader.send(10));
    pass(7).await;
    assert!(!large.is_finished() && !small.is_finished());
    assert!(reader.client.text().await.len() > LARGE);
    answered(large).await;
    answered(small).await;
    assert_eq!(begun.elapsed().as_secs(), 7);
    assert!(reader.client.text().await.contains("xxxxxxxxxx"));
    answered(reader.send(LARGE / 2)).await;
    assert_eq!(begun.elapsed().as_secs(), 7, "little data is not waited for");
}

#[tokio::test(crate = "paused")]
async fn a_response_waits_for_a_client_of_another_node() {
    let (_network, mut nodes) = nodes(3).await;
    let node = &mut nodes[1];
    let mut client = Client::connect_over(node.fixture.dial_with(PIPE_BYTES), &mut node.link, "/chat").await;
    linked(&nodes).await;
    let back_end = BackEnd::of(&nodes[0].fixture, nodes[0].fleet.clone());
    let begun = Instant::now();
    let sending = send(&back_end, &client, LARGE);
    pass(7).await;
    assert!(!sending.is_finished());
    assert!(client.text().await.len() > LARGE);
    answered(sending).await;
    assert_eq!(begun.elapsed().as_secs(), 7);
    let sending = send(&back_end, &client, LARGE);
    pass(2).await;
    drop(client);
    answered(sending).await;
    assert!((9..12).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[tokio::test(crate = "paused")]
async fn a_wait_ends_with_its_time_and_a_client_that_reads_nothing_is_closed() {
    let reader = SlowReader::connect(served()).await;
    let begun = Instant::now();
    for end in [10, 20, 30] {
        answered(reader.send(LARGE)).await;
        assert!((end..end + 2).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    }
    pass(3).await;
    assert_eq!(reader.send(1).await.unwrap().body["clients"], 0);
}

#[tokio::test(crate = "paused")]
async fn each_end_of_the_client_ends_the_wait() {
    for end in ["socket", "app server", "drain"] {
        let SlowReader { fixture, link, client, back_end } = SlowReader::connect(served()).await;
        let (begun, sending) = (Instant::now(), send(&back_end, &client, LARGE));
        pass(2).await;
        assert!(!sending.is_finished());
        match end {
            "socket" => drop(client),
            "app server" => {
                let close = CloseConnection { connection_id: client.id.as_str().into(), ..Default::default() };
                link.send(ServiceMessage::CloseConnection(close)).await;
            }
            _ => fixture.shared.shards()[0].give(vec![ShardCommand::Drain(Duration::ZERO)], 0).await,
        }
        answered(sending).await;
        assert!((2..5).contains(&begun.elapsed().as_secs()), "{end}: {:?}", begun.elapsed());
    }
}

#[tokio::test(crate = "paused")]
async fn waits_hold_no_permit_of_requests_and_are_limited() {
    let rest = RestSettings { requests_max: 1.try_into().unwrap(), ..served().rest };
    let mut reader = SlowReader::connect(Settings { rest, ..served() }).await;
    let mut clients = Vec::new();
    for _ in 1..WAITS.1 / WAITS.0 + 2 {
        let pipe = reader.fixture.dial_with(PIPE_BYTES);
        clients.push(Client::connect_over(pipe, &mut reader.link, "/chat").await);
    }
    let mut waiting = Vec::new();
    let under_way = |waiting: &[JoinHandle<Answer>]| waiting.iter().filter(|one| !one.is_finished()).count();
    let begun = Instant::now();
    for number in 0..=WAITS.0 {
        waiting.push(reader.send(if number == 0 { LARGE } else { 1 }));
        // sleep: paused time; the request has its permit only until its item is delivered
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(under_way(&waiting), WAITS.0, "a further request ends the longest wait");
    for client in &clients {
        for number in 0..WAITS.0 {
            waiting.push(send(&reader.back_end, client, if number == 0 { LARGE } else { 1 }));
            // sleep: paused time, as above
            sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(under_way(&waiting), WAITS.1, "further requests don't wait");
    assert_eq!(reader.back_end.status("HEAD", "/users/ann").await, 404);
    assert!(begun.elapsed() < Duration::from_secs(1));
    for sending in waiting {
        answered(sending).await;
    }
}
