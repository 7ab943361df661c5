//! Keep-alives: pings of the node, and timeouts of silent clients.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::{FlowOperation, ServiceMessage};

use super::client::{Client, PING, Received};
use super::closes::cause_of;
use super::fixture::{Fixture, paused};
use super::http_transports::poller;
use super::hub_message::flow;
use super::inbound_links::node_with_link;

const SECOND: Duration = Duration::from_secs(1);

/// WebSocket ping intervals of client libraries, in seconds.
const PING_INTERVALS_S: [u32; 5] = [1, 5, 10, 14, 20];

fn fragment(bytes: impl Into<Bytes>, code: Data, is_last: bool) -> Message {
    Message::Frame(Frame::message(bytes, OpCode::Data(code), is_last))
}

/// WebSocket frames without hub message data.
fn transport_frames() -> [Message; 4] {
    let empty = |code| fragment(Bytes::new(), code, false);
    [Message::Ping(Bytes::new()), Message::Pong(Bytes::new()), empty(Data::Continue), Message::Ping("x".into())]
}

/// Starts a hub message to be continued in further frames.
async fn begin_message(client: &mut Client) {
    client.write(fragment(&b"{\"type\":1,\"target\":\""[..], Data::Text, false)).await;
}

#[tokio::test(crate = "paused")]
async fn a_client_that_is_sent_nothing_is_pinged_once_an_interval() {
    let (_, mut link, mut client) = Fixture::start().with_client().await;
    let begun = Instant::now();
    for interval in 1..=4 {
        assert_eq!(client.next().await, Received::Text(PING.into()));
        let seconds = begun.elapsed().as_secs();
        assert!((15 * interval..=16 * interval).contains(&seconds), "{interval}: {seconds}");
    }
    link.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_client_that_never_pinged_may_be_silent_and_one_that_did_is_given_up() {
    let (_, mut link) = Fixture::start().with_chat().await;
    let mut quiet = link.client().await;
    let mut pinging = link.client().await;
    pinging.send(&format!("{PING}\u{1e}")).await;
    let begun = Instant::now();
    let closed = link.close().await;
    assert_eq!(closed.connection_id, pinging.id);
    let cause = cause_of(&closed);
    assert_eq!(cause.as_deref(), Some("keep_alive_timeout"));
    assert!((30..=32).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    // sleep: the test advances paused time
    tokio::time::sleep(Duration::from_secs(120)).await;
    quiet.fence(&link).await;
}

#[tokio::test(crate = "paused")]
async fn the_end_of_a_client_that_is_paused_is_noticed() {
    let (fixture, mut link, mut client) = Fixture::start().with_client().await;
    let (polling, _) = poller(&fixture, &mut link).await;
    for id in [&client.id, &polling] {
        link.send(flow(id, FlowOperation::Pause)).await;
    }
    link.fence().await;
    // The message stays unread.
    client.send("{\"type\":1,\"target\":\"M\",\"arguments\":[]}\u{1e}").await;
    let mut left = vec![client.id.clone(), polling];
    drop(client);
    while !left.is_empty() {
        let closed = timeout(Duration::from_secs(60), link.close()).await.unwrap();
        left.retain(|id| **id != *closed.connection_id);
    }
}

#[tokio::test(crate = "paused")]
async fn the_end_of_a_raw_connection_that_is_paused_is_noticed() {
    let (fixture, mut link) = Fixture::start().with_app(HubManifest::raw("echo", "/echo")).await;
    let mut client = Client::upgrade(&fixture, "/echo").await.unwrap();
    let id = link.opening().await.connection_id;
    link.send(flow(&id, FlowOperation::Pause)).await;
    link.fence().await;
    client.write(Message::text("stays unread")).await;
    drop(client);
    let closed = timeout(Duration::from_secs(60), link.close()).await.unwrap();
    assert_eq!(closed.connection_id, id);
}

#[tokio::test(crate = "paused")]
async fn a_client_that_keeps_pinging_stays() {
    let (_, mut link, mut client) = Fixture::start().with_client().await;
    for _ in 0..10 {
        client.send(&format!("{PING}\u{1e}")).await;
        // sleep: the test advances paused time
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    link.fence().await;
    client.fence(&link).await;
}

#[tokio::test(crate = "paused")]
async fn a_client_that_sends_websocket_pings_is_sent_hub_pings_all_the_same() {
    let (_, mut link) = Fixture::start().with_chat().await;
    for every in PING_INTERVALS_S {
        let mut client = link.client().await;
        let (begun, mut last) = (Instant::now(), Instant::now());
        for beat in 1.. {
            let next = begun + every * beat * SECOND;
            while let Ok(received) = timeout_at(next, client.next()).await {
                assert_eq!(received, Received::Text(PING.into()));
                assert!((14..=16).contains(&last.elapsed().as_secs()), "{every}: {:?}", last.elapsed());
                last = Instant::now();
            }
            assert!(last.elapsed() <= 16 * SECOND, "{every}: no hub ping for {:?}", last.elapsed());
            if begun.elapsed() > 100 * SECOND {
                break;
            }
            client.write(Message::Ping(Bytes::new())).await;
        }
        drop(client);
        link.close().await;
    }
}

#[tokio::test(crate = "paused")]
async fn a_client_that_hangs_is_given_up_though_its_websocket_library_lives() {
    let (_, mut link) = Fixture::start().with_chat().await;
    for (every, frame) in PING_INTERVALS_S.into_iter().flat_map(|every| transport_frames().map(|it| (every, it))) {
        let mut client = link.client().await;
        client.send(&format!("{PING}\u{1e}")).await;
        client.write(fragment(Bytes::new(), Data::Text, false)).await;
        let begun = Instant::now();
        let beats = async {
            while client.try_write(frame.clone()).await {
                // sleep: the test advances paused time
                sleep(every * SECOND).await;
            }
            std::future::pending::<()>().await;
        };
        let closed = tokio::select! {
            closed = link.close() => closed,
            () = beats => unreachable!(),
        };
        assert_eq!(cause_of(&closed).as_deref(), Some("keep_alive_timeout"));
        assert!((30..=32).contains(&begun.elapsed().as_secs()), "{every} {frame:?}: {:?}", begun.elapsed());
    }
}

#[tokio::test(crate = "paused")]
async fn a_message_that_arrives_slowly_shows_that_its_client_lives() {
    let (_, mut link) = Fixture::start()
        .with_app(HubManifest { message_max_bytes: 1 << 20, ..HubManifest::new("chat", "/chat") })
        .await;
    let mut client = link.client().await;
    client.send(&format!("{PING}\u{1e}")).await;
    begin_message(&mut client).await;
    for _ in 0..7 {
        client.write(fragment(vec![b'x'; 20_000], Data::Continue, false)).await;
        sleep(10 * SECOND).await; // sleep: as above
    }
    client.write(fragment(&b"\"}\x1e"[..], Data::Continue, true)).await;
    assert!(link.data().await.0.len() > 140_000);
    client.fence(&link).await;
}

#[tokio::test(crate = "paused")]
async fn an_app_server_that_dials_in_is_pinged_while_a_message_of_its_client_arrives() {
    let (node, mut home) = node_with_link().await;
    let mut client = home.client(&node, "ann").await;
    client.send(&format!("{PING}\u{1e}")).await;
    begin_message(&mut client).await;
    for _ in 0..8 {
        client.write(fragment(vec![b'x'; 2_000], Data::Continue, false)).await;
        sleep(5 * SECOND).await; // sleep: as above
    }
    client.write(fragment(&b"\"}\x1e"[..], Data::Continue, true)).await;
    let mut pings = 0;
    loop {
        match home.next().await {
            ServiceMessage::ConnectionData(data) if data.payload == format!("{PING}\u{1e}") => pings += 1,
            ServiceMessage::ConnectionData(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((4..=6).contains(&pings), "{pings}");
}

#[tokio::test(crate = "paused")]
async fn half_a_message_shows_life_once_whatever_its_websocket_library_sends() {
    let (_, mut link) = Fixture::start().with_chat().await;
    for (pings, is_beating) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut client = link.client().await;
        if pings {
            client.send(&format!("{PING}\u{1e}")).await;
        }
        sleep(10 * SECOND).await; // sleep: as above
        let begun = Instant::now();
        begin_message(&mut client).await;
        let beats = async {
            while is_beating && client.try_write(Message::Ping(Bytes::new())).await {
                sleep(5 * SECOND).await; // sleep: as above
            }
            std::future::pending::<()>().await;
        };
        let closed = tokio::select! {
            closed = link.close() => closed,
            () = beats => unreachable!(),
        };
        let cause = cause_of(&closed).unwrap();
        assert!(["keep_alive_timeout", "message_timeout"].contains(&&*cause), "{cause}");
        assert!((29..=32).contains(&begun.elapsed().as_secs()), "{pings} {is_beating}: {:?}", begun.elapsed());
    }
}

#[tokio::test(crate = "paused")]
async fn any_frame_shows_that_the_client_of_a_raw_endpoint_lives() {
    let (fixture, mut link) = Fixture::start().with_app(HubManifest::raw("echo", "/echo")).await;
    let mut client = Client::upgrade(&fixture, "/echo").await.unwrap();
    client.id = link.opening().await.connection_id.to_string();
    for _ in 0..10 {
        client.write(Message::Pong(Bytes::new())).await;
        sleep(20 * SECOND).await; // sleep: as above
    }
    link.fence().await;
    drop(client);
    assert_eq!(cause_of(&link.close().await).as_deref(), Some("socket_ended"));
}
