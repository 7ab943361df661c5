//! Clients that send slowly or can't be read: which may stay, and how long a closed one keeps its permit.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::*;

use super::app::AppLink;
use super::client::{Client, PING};
use super::closes::cause_of;
use super::fixture::{Fixture, paused, settings};
use super::scene::LinkedApp;
use crate::ground::config::{FrontendLimits, Settings};

const SECOND: Duration = Duration::from_secs(1);

fn piece(bytes: impl Into<bytes::Bytes>, code: Data, is_last: bool) -> Message {
    Message::Frame(Frame::message(bytes, OpCode::Data(code), is_last))
}

/// Starts a message to be continued in further frames.
async fn begin(client: &mut Client) {
    client.write(piece(&b"{\"type\":1,\"target\":\""[..], Data::Text, false)).await;
}

/// Sends more of a message and waits a second.
async fn send_for_a_second(client: &mut Client, bytes: usize) {
    client.write(piece(vec![b'x'; bytes], Data::Continue, false)).await;
    // sleep: the test advances paused time
    sleep(SECOND).await;
}

/// Starts a node with a budget for unfinished messages, and a hub that accepts large messages.
async fn fixture_with_budget(unfinished_total_bytes: usize) -> (Fixture, LinkedApp) {
    let limits = FrontendLimits { unfinished_total_bytes, ..FrontendLimits::default() };
    let hub = HubManifest { message_max_bytes: 1024 * 1024, ..HubManifest::new("chat", "/chat") };
    Fixture::with(Settings { limits, ..settings() }, 1).with_app(hub).await
}

/// Number of connections at the node, including closing ones.
async fn connection_count(fixture: &Fixture) -> usize {
    fixture.shared.shards()[0].inspect(|state| state.core.connections.everyone().len()).await.unwrap()
}

async fn close_by_app(link: &AppLink, client: &Client) {
    let close = CloseConnection { connection_id: client.id.as_str().into(), ..CloseConnection::default() };
    link.send(ServiceMessage::CloseConnection(close)).await;
}

/// Fills the link with messages of this client, until the node stops reading the client.
async fn fill(link: &AppLink, client: &mut Client) {
    link.set_reading(false);
    let message = format!("{{\"type\":1,\"target\":\"{}\"}}\u{1e}", "x".repeat(10_000));
    let flood = async {
        loop {
            client.send(&message).await;
        }
    };
    // Virtual time advances only when all tasks are waiting.
    assert!(timeout(SECOND, flood).await.is_err());
}

async fn fixture_with_small_links() -> (Fixture, LinkedApp) {
    Fixture::set(|settings| settings.links.outbox_max_bytes = 1024).with_chat().await
}

#[tokio::test(crate = "paused")]
async fn an_upload_over_a_slow_uplink_gets_through_though_its_radio_pauses() {
    let (_, mut link) = fixture_with_budget(256 * 1024 * 1024).await;
    let mut phone = link.client().await;
    begin(&mut phone).await;
    for second in 0..120 {
        send_for_a_second(&mut phone, 8 * 1024).await;
        if second % 40 == 20 {
            sleep(10 * SECOND).await; // sleep: as above
        }
    }
    phone.write(piece(&b"\"}\x1e"[..], Data::Continue, true)).await;
    let (text, data) = link.data().await;
    assert_eq!((text.len() > 900_000, data.connection_id.as_ref()), (true, phone.id.as_str()));
}

#[tokio::test(crate = "paused")]
async fn where_unfinished_messages_take_much_the_slowest_go_and_a_slow_uplink_gets_through() {
    let (_, mut link) = fixture_with_budget(12 * 1024 * 1024).await;
    let mut holders = Vec::new();
    for _ in 0..32 {
        let mut holder = link.client().await;
        begin(&mut holder).await;
        holder.write(piece(vec![b'x'; 100_000], Data::Continue, false)).await;
        holders.push(holder);
    }
    let mut phone = link.client().await;
    begin(&mut phone).await;
    for _ in 0..80 {
        for holder in &mut holders {
            // Some clients are closed during the test.
            holder.try_write(piece(vec![b'x'; 1024], Data::Continue, false)).await;
        }
        send_for_a_second(&mut phone, 8 * 1024).await;
    }
    phone.write(piece(&b"\"}\x1e"[..], Data::Continue, true)).await;
    let mut ended = 0;
    loop {
        match link.next().await {
            ServiceMessage::CloseConnection(close) => {
                assert_eq!(cause_of(&close).as_deref(), Some("message_timeout"));
                ended += 1;
            }
            ServiceMessage::ConnectionData(data) => break assert_eq!(data.connection_id, phone.id),
            other => panic!("{other:?}"),
        }
    }
    assert!((8..16).contains(&ended), "{ended}");
}

#[tokio::test(crate = "paused")]
async fn a_client_whose_link_is_full_is_not_timed_out_while_its_pings_wait_unread() {
    let (fixture, mut link) = fixture_with_small_links().await;
    let mut pinging = link.client().await;
    let mut flooding = link.client().await;
    pinging.send(&format!("{PING}\u{1e}")).await;
    fill(&link, &mut flooding).await;
    for _ in 0..9 {
        pinging.send(&format!("{PING}\u{1e}")).await;
        // sleep: the test advances paused time
        sleep(10 * SECOND).await;
        // The link is alive.
        link.send(ServiceMessage::Ping(Ping::default())).await;
    }
    link.set_reading(true);
    pinging.fence(&link).await;
    assert_eq!(connection_count(&fixture).await, 2);
}

#[tokio::test(crate = "paused")]
async fn a_client_that_does_not_answer_a_close_has_five_seconds() {
    let (fixture, mut link, client) = Fixture::start().with_client().await;
    // sleep: the test advances paused time
    sleep(2 * SECOND).await;
    close_by_app(&link, &client).await;
    link.fence().await;
    let closed = Instant::now();
    while connection_count(&fixture).await > 0 {
        sleep(SECOND / 2).await; // sleep: as above
    }
    assert!((4..=6).contains(&closed.elapsed().as_secs()), "{:?}", closed.elapsed());
}

#[tokio::test(crate = "paused")]
async fn a_client_that_is_closed_while_its_link_is_full_does_not_wait_for_the_link() {
    let (fixture, mut link) = fixture_with_small_links().await;
    let mut flooding = link.client().await;
    fill(&link, &mut flooding).await;
    close_by_app(&link, &flooding).await;
    // sleep: the test advances paused time
    sleep(7 * SECOND).await;
    assert_eq!(connection_count(&fixture).await, 0);
}

#[tokio::test(crate = "paused")]
async fn what_has_begun_of_a_message_goes_with_the_close_of_its_client() {
    let too_large = || piece(vec![b'x'; 40_000], Data::Continue, false);
    let no_frame = || Message::Frame(Frame::message(&b"x"[..], OpCode::Data(Data::Reserved(3)), true));
    for (name, bad) in [("too large", too_large()), ("no frame", no_frame())] {
        let (fixture, mut link, mut client) = Fixture::start().with_client().await;
        begin(&mut client).await;
        client.write(piece(vec![b'x'; 20_000], Data::Continue, false)).await;
        link.fence().await;
        let unfinished = || fixture.shared.counters_of(0).unfinished_bytes.get();
        assert!(unfinished() >= 20_000, "{name}");
        client.write(bad).await;
        assert_eq!(link.close().await.connection_id, client.id);
        assert_eq!(unfinished(), 0, "{name}");
    }
}
