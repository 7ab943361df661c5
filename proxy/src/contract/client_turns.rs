//! Turns of clients: clients of one app that send much leave time to the clients of other apps.

use trunkline_protocol::manifest::HubManifest;

use super::app::{App, AppLink};
use super::client::Client;
use super::fixture::{Fixture, run};

const MESSAGE: &str = "{\"type\":1,\"target\":\"M\",\"arguments\":[]}\u{1e}";

/// Messages that a busy client sends at once: as many as fit into its pipe.
const MESSAGES: usize = 1_600;

fn flood() -> String {
    MESSAGE.repeat(MESSAGES)
}

/// Starts a node with the hubs of two apps, and a client of each. Both apps have sent to their clients.
async fn two_apps() -> (Fixture, App, [(AppLink, Client); 2]) {
    let fixture = Fixture::start();
    let mut app = fixture.app("app-1", vec![HubManifest::new("chat", "/chat"), HubManifest::new("news", "/news")]);
    let (mut chat, mut news) = (app.link().await, app.link().await);
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

#[test]
fn clients_that_send_much_leave_time_to_the_clients_of_other_apps() {
    run(async {
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
    });
}

#[test]
fn clients_of_an_app_are_read_one_after_the_other() {
    run(async {
        let (fixture, _app, [(mut chat, first), _news]) = two_apps().await;
        let mut busy = vec![first];
        for _ in 1..3 {
            busy.push(Client::connect(&fixture, &mut chat, "/chat").await);
        }
        let order = order_of_reads(&mut chat, &mut busy).await;
        assert_eq!(order, [0, 0, 1, 2, 1, 2, 0, 1, 2, 0], "a small read of each, then turns of growing size");
    });
}

#[test]
fn clients_of_an_app_alone_take_no_turns() {
    run(async {
        let (fixture, _app, mut chat) = Fixture::start().with_chat().await;
        let mut busy = Vec::new();
        for _ in 0..3 {
            busy.push(Client::connect(&fixture, &mut chat, "/chat").await);
        }
        assert_eq!(order_of_reads(&mut chat, &mut busy).await, [0, 1, 2]);
    });
}
