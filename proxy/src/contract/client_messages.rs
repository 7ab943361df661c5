//! Messages of clients: delivery of complete messages in order, and limits.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::*;

use super::client::{Client, PING, Received};
use super::closes::cause_of;
use super::fixture::{Fixture, paused, settings};
use super::hub_message::{flow, result};
use super::scene::chat;
use crate::ground::config::{FrontendLimits, Settings};
use crate::ground::metrics::Limit;

fn call(id: u32) -> String {
    format!("{{\"type\":1,\"invocationId\":\"{id}\",\"target\":\"M\",\"arguments\":[]}}\u{1e}")
}

#[tokio::test(crate = "paused")]
async fn pings_end_at_the_node_and_all_else_goes_up_in_order() {
    let (_, mut link, mut client) = Fixture::start().with_client().await;
    client.send(&format!("{PING}\u{1e}{}{}", call(1), call(2))).await;
    client.send(&format!("{PING}\u{1e}")).await;
    client.send(&call(3)).await;
    let mut text = String::new();
    while text.len() < call(1).len() * 3 {
        let (piece, data) = link.data().await;
        assert_eq!(data.connection_id, client.id);
        text += &piece;
    }
    assert_eq!(text, format!("{}{}{}", call(1), call(2), call(3)));
    link.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_message_in_pieces_goes_up_when_it_is_whole() {
    let (_, mut link, mut client) = Fixture::start().with_client().await;
    let whole = call(1);
    let (head, tail) = whole.split_at(20);
    client.send(head).await;
    link.fence().await;
    client.send(tail).await;
    assert_eq!(link.data().await.0, whole);
}

#[tokio::test(crate = "paused")]
async fn a_message_over_the_hubs_limit_closes_its_client_and_both_sides_get_the_reason() {
    let hub = HubManifest { message_max_bytes: 100, detailed_errors: true, ..HubManifest::new("chat", "/chat") };
    let (_, mut link) = Fixture::start().with_app(hub).await;
    let mut client = link.client().await;
    client.send(&format!("{{\"type\":1,\"target\":\"{}\"}}\u{1e}", "x".repeat(200))).await;
    let Received::Text(close) = client.next().await else { panic!("no close message") };
    assert!(close.starts_with("{\"type\":7,\"error\":\"Connection closed with an error."), "{close}");
    assert!(close.contains("100"), "{close}");
    let end = link.close().await;
    assert_eq!(end.connection_id, client.id);
    let cause = cause_of(&end);
    assert_eq!(cause.as_deref(), Some("message_too_large"));
}

#[tokio::test(crate = "paused")]
async fn a_message_that_does_not_end_closes_only_its_client() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let (mut late, mut idle) = (link.client().await, link.client().await);
    idle.send(&call(1)).await;
    assert_eq!(link.data().await.0, call(1));
    late.send("{\"type\":1,\"target\":").await;
    let end = timeout(Duration::from_secs(120), link.close()).await.unwrap();
    assert_eq!((&*end.connection_id, cause_of(&end).as_deref()), (&*late.id, Some("message_timeout")));
    assert_eq!(fixture.shared.counters_of(0).limit(Limit::MessageTime).get(), 1);
    idle.fence(&link).await;
}

#[tokio::test(crate = "paused")]
async fn a_message_whose_client_is_not_read_has_its_time_for_later() {
    let (fixture, mut link, mut client) = Fixture::start().with_client().await;
    let whole = call(1);
    let (head, tail) = whole.split_at(20);
    client.send(head).await;
    link.fence().await;
    link.send(flow(&client.id, FlowOperation::Pause)).await;
    // sleep: the test advances paused time
    tokio::time::sleep(Duration::from_secs(120)).await;
    link.send(flow(&client.id, FlowOperation::Resume)).await;
    client.send(tail).await;
    assert_eq!(link.data().await.0, whole);
    assert_eq!(fixture.shared.counters_of(0).unfinished_bytes.get(), 0);
}

#[tokio::test(crate = "paused")]
async fn of_many_unfinished_messages_the_largest_goes_when_all_are_over_their_budget() {
    let limits = FrontendLimits { unfinished_total_bytes: 1024 * 1024, ..FrontendLimits::default() };
    let hub = HubManifest { message_max_bytes: 1024 * 1024, ..HubManifest::new("chat", "/chat") };
    let (_, mut link) = Fixture::with(Settings { limits, ..settings() }, 1).with_app(hub).await;
    let mut clients: [Client; 3] = link.clients().await;
    for (client, bytes) in clients.iter_mut().zip([100_000, 700_000, 400_000]) {
        client.send(&format!("{{\"type\":1,\"target\":\"{}", "x".repeat(bytes))).await;
    }
    let end = timeout(Duration::from_secs(10), link.close()).await.unwrap();
    assert_eq!((&*end.connection_id, cause_of(&end).as_deref()), (&*clients[1].id, Some("unfinished_total")));
    clients[0].send("\",\"arguments\":[]}\u{1e}").await;
    let (text, data) = link.data().await;
    assert_eq!((&*data.connection_id, text.ends_with("[]}\u{1e}")), (&*clients[0].id, true));
}

#[tokio::test(crate = "paused")]
async fn a_close_message_of_a_client_is_its_end_and_no_error() {
    let (_, mut link, mut client) = Fixture::start().with_client().await;
    client.send("{\"type\":7}\u{1e}").await;
    let end = link.close().await;
    assert_eq!((end.connection_id, end.error), (client.id.as_str().into(), None));
    link.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_paused_client_is_not_read_until_it_is_resumed() {
    let (_, mut link, mut client) = Fixture::start().with_client().await;
    link.send(flow(&client.id, FlowOperation::Pause)).await;
    link.fence().await;
    client.send(&call(1)).await;
    link.fence().await;
    // Deliveries to the client continue.
    client.fence(&link).await;
    link.send(flow(&client.id, FlowOperation::Resume)).await;
    assert_eq!(link.data().await.0, call(1));
}

#[tokio::test(crate = "paused")]
async fn a_client_with_as_many_calls_as_may_be_pending_is_read_on_when_one_is_answered() {
    let fixture = Fixture::set(|settings| settings.rehoming.pending_calls_max = 2);
    let (_, mut link, mut client) = fixture.with_client().await;
    for id in 1..=2 {
        client.send(&call(id)).await;
        assert_eq!(link.data().await.0, call(id));
    }
    client.send(&call(3)).await;
    link.fence().await;
    link.write(&client.id, result("1", "1")).await;
    assert_eq!(link.data().await.0, call(3));
}

#[tokio::test(crate = "paused")]
async fn a_raw_endpoint_forwards_complete_messages_marked_as_text_or_binary() {
    let (fixture, mut link) = Fixture::start().with_app(HubManifest::raw("echo", "/echo")).await;
    let mut client = Client::upgrade(&fixture, "/echo").await.unwrap();
    let open = link.opening().await;
    client.write(Message::text("hello")).await;
    client.write(Message::binary(vec![1, 2, 3])).await;
    let (text, data) = link.data().await;
    assert_eq!((text.as_str(), data.data_type), ("hello", RawKind::Text.data_type()));
    let (_, data) = link.data().await;
    assert_eq!((&data.payload[..], data.data_type), (&[1, 2, 3][..], RawKind::Binary.data_type()));
    for (kind, payload) in [(RawKind::Text, "back"), (RawKind::Binary, "bytes")] {
        link.send(ServiceMessage::ConnectionData(ConnectionData {
            connection_id: open.connection_id.clone(),
            payload: payload.into(),
            data_type: kind.data_type(),
            is_partial: false,
        }))
        .await;
    }
    assert_eq!(client.next().await, Received::Text("back".into()));
    assert_eq!(client.next().await, Received::Binary("bytes".into()));
}

#[tokio::test(crate = "paused")]
async fn a_raw_text_that_is_not_utf8_is_closed_with_1007_and_one_too_large_with_1009() {
    let hub = HubManifest { message_max_bytes: 64, ..HubManifest::raw("echo", "/echo") };
    let (fixture, mut link) = Fixture::start().with_app(hub).await;
    for (bytes, code) in [(vec![0xff, 0xfe], 1007), (vec![b'x'; 65], 1009)] {
        let mut client = Client::upgrade(&fixture, "/echo").await.unwrap();
        let open = link.opening().await;
        client.write(frame(bytes, OpCode::Data(Data::Text), true)).await;
        assert_eq!(client.next().await, Received::End(Some(code)));
        assert_eq!(link.close().await.connection_id, open.connection_id);
    }
}

fn frame(bytes: impl Into<bytes::Bytes>, code: OpCode, is_last: bool) -> Message {
    Message::Frame(Frame::message(bytes, code, is_last))
}

#[tokio::test(crate = "paused")]
async fn frames_that_bring_no_message_count_against_the_rate_of_messages() {
    let piece = |bytes: &'static [u8], is_last| frame(bytes, OpCode::Data(Data::Continue), is_last);
    let begin = || frame(&b" "[..], OpCode::Data(Data::Text), false);
    let pong = || Message::Pong(bytes::Bytes::new());
    let floods: [(&str, Vec<Message>); 3] = [
        ("pongs", (0..200).map(|_| pong()).collect()),
        ("empty fragments", [begin()].into_iter().chain((0..200).map(|_| piece(b"", false))).collect()),
        ("tiny fragments", [begin()].into_iter().chain((0..200).map(|_| piece(b" ", false))).collect()),
    ];
    for (name, flood) in floods {
        let (fixture, mut link, mut client) =
            Fixture::set(|settings| settings.limits.messages_per_second = NonZeroU32::new(10)).with_client().await;
        let in_message = name != "pongs";
        let begun = tokio::time::Instant::now();
        for message in flood {
            client.write(message).await;
        }
        match in_message {
            true => client.write(frame(call(1), OpCode::Data(Data::Continue), true)).await,
            false => client.send(&call(1)).await,
        }
        assert_eq!(link.data().await.0.trim_start(), call(1));
        // The next read happens only after the rate limit has covered the previous one.
        client.send(&call(2)).await;
        assert_eq!(link.data().await.0.trim_start(), call(2));
        // 200 frames at 10 per second, in virtual time.
        assert!(begun.elapsed() > Duration::from_secs(15), "{name}: {:?}", begun.elapsed());
        assert!(fixture.shared.counters_of(0).limit(Limit::Messages).get() > 0, "{name}");
    }
}

#[tokio::test(crate = "paused")]
async fn large_fragments_of_an_honest_client_are_no_messages() {
    let fixture = Fixture::set(|settings| settings.limits.messages_per_second = NonZeroU32::new(10));
    let (fixture, mut link) = fixture.with_app(chat(|hub| hub.message_max_bytes = 1024 * 1024)).await;
    let mut client = link.client().await;
    let begun = tokio::time::Instant::now();
    client.write(frame(&b"{\"type\":1,\"target\":\""[..], OpCode::Data(Data::Text), false)).await;
    for _ in 0..100 {
        client.write(frame(vec![b'x'; 4096], OpCode::Data(Data::Continue), false)).await;
    }
    client.write(frame(&b"\"}\x1e"[..], OpCode::Data(Data::Continue), true)).await;
    assert!(link.data().await.0.len() > 400_000);
    assert_eq!(fixture.shared.counters_of(0).limit(Limit::Messages).get(), 0);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(crate = "paused")]
async fn a_message_that_never_gets_longer_is_closed_with_1002() {
    let (_, mut link, mut client) = Fixture::start().with_client().await;
    client.write(frame(&b"{"[..], OpCode::Data(Data::Text), false)).await;
    for _ in 0..1001 {
        client.write(frame(&b""[..], OpCode::Data(Data::Continue), false)).await;
    }
    let close = client.text().await;
    assert!(close.starts_with("{\"type\":7,\"error\""), "{close}");
    assert_eq!(client.next().await, Received::End(Some(1002)));
    assert_eq!(link.close().await.connection_id, client.id);
}

#[tokio::test(crate = "paused")]
async fn each_ping_of_a_read_is_answered_in_order() {
    let (_, mut link, mut client) = Fixture::start().with_client().await;
    for number in 0..100_u8 {
        client.write(Message::Ping(vec![number].into())).await;
    }
    let pongs: Vec<_> = (0..100).map(|number| Message::Pong(vec![number].into())).collect();
    assert_eq!(client.frames(100).await, pongs);
    link.fence().await;
}

#[tokio::test(crate = "paused")]
async fn pings_without_a_handshake_end_before_its_time_out() {
    let (fixture, _link) = Fixture::start().with_chat().await;
    let mut client = Client::upgrade(&fixture, "/chat").await.unwrap();
    let begun = tokio::time::Instant::now();
    for _ in 0..1500 {
        client.write(Message::Ping(vec![0; 100].into())).await;
    }
    assert_eq!(client.next().await, Received::Text("{\"error\":\"Handshake was canceled.\"}".into()));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(crate = "paused")]
async fn message_pack_clients_are_read_by_the_same_rules() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let mut client = Client::upgrade(&fixture, "/chat").await.unwrap();
    client.write(Message::binary("{\"protocol\":\"messagepack\",\"version\":1}\u{1e}")).await;
    let open = link.opening().await;
    assert_eq!(open.protocol.as_deref(), Some(HubProtocol::MessagePack.name()));
    link.data().await;
    link.write(&open.connection_id, "{}\u{1e}").await;
    assert_eq!(client.next().await, Received::Binary("{}\u{1e}".into()));
    // A ping, followed by the invocation [1, {}, nil, "M", []].
    let call = [0x07, 0x95, 0x01, 0x80, 0xc0, 0xa1, b'M', 0x90];
    client.write(Message::binary([&[0x02, 0x91, 0x06][..], &call].concat())).await;
    let (_, data) = link.data().await;
    assert_eq!(&data.payload[..], call);
    link.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_link_that_takes_nothing_stops_its_clients_from_being_read_and_loses_nothing() {
    let fixture = Fixture::set(|settings| settings.links.outbox_max_bytes = 1024);
    let (_, mut link, mut client) = fixture.with_client().await;
    // Calls without a response: the number of pending calls with a response is limited.
    let calls: Vec<String> = (0..4000).map(|n| format!("{{\"type\":1,\"target\":\"{n:0>200}\"}}\u{1e}")).collect();
    let all = calls.concat();
    link.set_reading(false);
    let sent = Cell::new(0);
    let mut sending = Box::pin(async {
        for call in &calls {
            client.send(call).await;
            sent.set(sent.get() + 1);
        }
    });
    // Virtual time advances only when all tasks are waiting.
    assert!(timeout(Duration::from_secs(1), &mut sending).await.is_err(), "all was read");
    assert!(sent.get() < calls.len());
    link.set_reading(true);
    let receiving = async {
        let mut text = String::new();
        while text.len() < all.len() {
            text += &link.data().await.0;
        }
        text
    };
    let ((), text) = tokio::join!(sending, receiving);
    assert_eq!(text, all);
}
