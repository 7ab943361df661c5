//! Turns of clients: clients of one app that send much leave time to the clients of other apps.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use trunkline_protocol::service::{CloseConnection, ServiceMessage};

use super::app::{App, AppLink};
use super::client::Client;
use super::fixture::{Fixture, paused};
use super::scene::chat_and_news;
use crate::ground::auth::Signer;
use crate::ground::bounded::TurnSource;

const SECOND: Duration = Duration::from_secs(1);

const MESSAGE: &str = "{\"type\":1,\"target\":\"M\",\"arguments\":[]}\u{1e}";

/// Number of messages that a busy client sends together: as many as fit into its pipe.
const MESSAGES: usize = 1_600;

fn flood() -> String {
    MESSAGE.repeat(MESSAGES)
}

/// Starts a node with the hubs of two apps, and a client of each. Both apps have sent to their clients.
async fn two_apps() -> (Fixture, App, [(AppLink, Client); 2]) {
    let fixture = Fixture::start();
    let (app, [mut chat, mut news]) = fixture.app_of(chat_and_news()).await;
    let busy = Client::connect(&fixture, &mut chat, "/chat").await;
    let other = Client::connect(&fixture, &mut news, "/news").await;
    (fixture, app, [(chat, busy), (news, other)])
}

/// Sends a flood by each client, and returns the clients in the order of their frames, until all has arrived.
async fn order_of_reads(link: &mut AppLink, clients: &mut [Client]) -> Vec<usize> {
    for client in clients.iter_mut() {
        client.send(&flood()).await;
    }
    let (mut order, mut texts) = (Vec::new(), vec![String::new(); clients.len()]);
    while texts.iter().any(|text| text.len() < flood().len()) {
        let (text, data) = link.data().await;
        let number = clients.iter().position(|client| client.id == *data.connection_id).unwrap();
        order.push(number);
        texts[number] += &text;
    }
    assert!(texts.iter().all(|text| *text == flood()), "nothing is lost or out of order");
    order
}

#[tokio::test(crate = "paused")]
async fn clients_that_send_much_leave_time_to_the_clients_of_other_apps() {
    let (fixture, _app, [(mut chat, first), (mut news, mut other)]) = two_apps().await;
    let mut busy = vec![first];
    for _ in 1..16 {
        busy.push(Client::connect(&fixture, &mut chat, "/chat").await);
    }
    for client in &mut busy {
        client.send(&flood()).await;
    }
    other.send(MESSAGE).await;
    assert_eq!(news.data().await.0, MESSAGE);
    let of_all: u64 = fixture.shared.counters_of(0).hubs().map(|hub| hub.messages_up.get()).sum();
    assert!(of_all < MESSAGES as u64 * 2, "{of_all} messages went first, of {}", MESSAGES * busy.len());
}

#[tokio::test(crate = "paused")]
async fn clients_of_an_app_are_read_one_after_the_other() {
    let (fixture, _app, [(mut chat, first), _news]) = two_apps().await;
    let mut busy = vec![first];
    for _ in 1..3 {
        busy.push(Client::connect(&fixture, &mut chat, "/chat").await);
    }
    let order = order_of_reads(&mut chat, &mut busy).await;
    assert_eq!(order, [0, 0, 1, 2, 1, 2, 0, 1, 2, 0], "a small read of each, then turns of growing size");
}

#[tokio::test(crate = "paused")]
async fn a_client_that_waits_for_its_turn_does_not_time_out() {
    let (fixture, _app, [(mut chat, mut busy), _news]) = two_apps().await;
    let hub = fixture.shared.hubs.find("/chat").unwrap();
    let line = fixture.shared.turn_line(&Signer::Fleet, Some(&hub.identity), TurnSource::Clients(0));
    let held = line.begin().await.unwrap();
    busy.send(&flood()).await;
    // sleep: the test advances paused time
    sleep(SECOND * 55).await;
    drop(held);
    let mut text = String::new();
    while text.len() < flood().len() {
        text += &chat.data().await.0;
    }
    assert_eq!(text, flood());
}

#[tokio::test(crate = "paused")]
async fn clients_of_an_app_alone_take_no_turns() {
    let (_, mut chat) = Fixture::start().with_chat().await;
    let mut busy: [Client; 3] = chat.clients().await;
    assert_eq!(order_of_reads(&mut chat, &mut busy).await, [0, 1, 2]);
}

#[tokio::test(crate = "paused")]
async fn a_closed_client_whose_link_is_full_leaves_its_shard_idle() {
    let fixture = Fixture::set(|settings| settings.links.outbox_max_bytes = 1024);
    let (_app, [mut chat, mut news]) = fixture.app_of(chat_and_news()).await;
    let mut busy = Client::connect(&fixture, &mut chat, "/chat").await;
    let mut other = Client::connect(&fixture, &mut news, "/news").await;
    chat.set_reading(false);
    let flood_of_busy = async {
        loop {
            busy.send(&flood()).await;
        }
    };
    other.send(&flood()).await;
    // Virtual time advances only when all tasks wait.
    assert!(timeout(SECOND, flood_of_busy).await.is_err());
    assert!(fixture.shared.turns.are_taken());
    let close = CloseConnection { connection_id: busy.id.as_str().into(), ..CloseConnection::default() };
    chat.send(ServiceMessage::CloseConnection(close)).await;
    // sleep: it ends only if the shard waits for the client's socket.
    sleep(SECOND).await;
}
