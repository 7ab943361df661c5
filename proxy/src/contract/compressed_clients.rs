//! Compression: what clients with and without it receive and may send.

use std::num::NonZeroU32;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::yield_now;
use trunkline_protocol::manifest::HubManifest;

use super::app::{broadcast, data_for, to_connection, to_group, to_user};
use super::client::{Client, JSON_HANDSHAKE, STATEFUL_HANDSHAKE};
use super::closes::cause_of;
use super::fixture::{Fixture, paused, settings, token_of};
use super::scene::{LinkedApp, chat};
use crate::engine::transport::websocket::{
    CLOSE_NORMAL, CLOSE_PROTOCOL_ERROR, Deflater, Inflater, Opcode, frame, payload_bytes,
};
use crate::features::inspection::Inspector;
use crate::ground::config::Settings;

const OFFER: &str = "permessage-deflate; client_max_window_bits";
const ACCEPTED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

const TEXT: u8 = 0x81;
const TEXT_DEFLATED: u8 = 0xc1;

/// Client with frames written by the tests. Its mask is zero.
struct RawClient {
    id: String,
    pipe: DuplexStream,
    bytes: BytesMut,
}

/// Frame of the node: its first byte, its bytes, and its decompressed payload.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    first: u8,
    length: usize,
    payload: String,
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = frame(Opcode::Text, payload).to_vec();
    let head = out.len() - payload.len();
    (out[0], out[1]) = (first, out[1] | 0x80);
    out.splice(head..head, [0; 4]);
    out
}

fn deflated(payload: &[u8]) -> Vec<u8> {
    let twin = Deflater::default().deflate_frame(&frame(Opcode::Text, payload)).unwrap();
    twin[twin.len() - payload_bytes(&twin)..].to_vec()
}

/// Message as a stored block, for bytes that get no smaller.
fn stored(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    [&[0], &length.to_le_bytes()[..], &(!length).to_le_bytes(), payload, &[0]].concat()
}

fn inflated(payload: &[u8]) -> Vec<u8> {
    let (mut inflater, mut out) = (Inflater::default(), Vec::new());
    inflater.begin_message(payload.to_vec());
    while let Some(length) = inflater.inflate().unwrap() {
        out.extend_from_slice(inflater.piece(length));
    }
    out
}

impl RawClient {
    /// Upgrades with this offer. Returns the accepted extension.
    async fn upgrade(fixture: &Fixture, target: &str, offer: &str) -> (Self, Option<String>) {
        let mut pipe = fixture.dial();
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: node.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Extensions: {offer}\r\n\r\n"
        );
        pipe.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = BytesMut::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
                break end + 4;
            }
            assert_ne!(pipe.read_buf(&mut bytes).await.unwrap(), 0);
        };
        let head = String::from_utf8(bytes.split_to(end).to_vec()).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        let extension = head.lines().find_map(|line| line.strip_prefix("sec-websocket-extensions: "));
        (Self { id: String::new(), pipe, bytes }, extension.map(str::to_owned))
    }

    /// Connects with compression, and compresses its handshake too.
    async fn connect(fixture: &Fixture, link: &mut LinkedApp, target: &str) -> Self {
        let (mut client, extension) = Self::upgrade(fixture, target, OFFER).await;
        assert_eq!(extension.as_deref(), Some(ACCEPTED));
        let handshake = if target.contains("?id=") { STATEFUL_HANDSHAKE } else { JSON_HANDSHAKE };
        client.write(&masked(TEXT_DEFLATED, &stored(handshake.as_bytes()))).await;
        client.accept(link).await;
        client
    }

    async fn accept(&mut self, link: &mut LinkedApp) {
        self.id = link.opening().await.connection_id.to_string();
        link.data().await;
        link.write(&self.id, "{}\u{1e}").await;
        assert_eq!(self.text().await, "{}\u{1e}");
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.pipe.write_all(bytes).await.unwrap();
    }

    /// Next frame; `None` at the end of the socket.
    async fn try_frame(&mut self) -> Option<Frame> {
        loop {
            let head = match self.bytes.get(1) {
                Some(126) => 4,
                Some(127) => 10,
                _ => 2,
            };
            let length = match (self.bytes.get(1), head) {
                (Some(&short), 2) => usize::from(short),
                (_, 4) => self.bytes.get(2..4).map_or(0, |it| usize::from(u16::from_be_bytes([it[0], it[1]]))),
                _ => self.bytes.get(6..10).map_or(0, |it| u32::from_be_bytes(it.try_into().unwrap()) as usize),
            };
            if self.bytes.len() >= head.max(2) && self.bytes.len() >= head + length {
                let frame = self.bytes.split_to(head + length);
                let payload = frame[head..].to_vec();
                let payload = if frame[0] & 0x40 != 0 { inflated(&payload) } else { payload };
                let payload = String::from_utf8_lossy(&payload).into_owned();
                return Some(Frame { first: frame[0], length: frame.len(), payload });
            }
            if self.pipe.read_buf(&mut self.bytes).await.unwrap_or_default() == 0 {
                return None;
            }
        }
    }

    /// Next frame, without pings and acknowledgements.
    async fn frame(&mut self) -> Frame {
        loop {
            let frame = self.try_frame().await.unwrap();
            if ![6, 8].iter().any(|kind| frame.payload.starts_with(&format!("{{\"type\":{kind}"))) {
                return frame;
            }
        }
    }

    async fn text(&mut self) -> String {
        self.frame().await.payload
    }
}

fn compressed(min_bytes: usize) -> Settings {
    let mut settings = settings();
    (settings.outbox.compress, settings.outbox.compress_min_bytes) = (true, min_bytes);
    settings
}

/// Message that gets much smaller.
fn news(bytes: usize) -> String {
    let text = "{\"type\":1,\"target\":\"Said\",\"arguments\":[\"news\"]}\u{1e}";
    text.repeat(bytes.div_ceil(text.len()))
}

/// Message without its terminator, which the sends of the tests append.
fn bare(message: &str) -> &str {
    message.strip_suffix('\u{1e}').unwrap()
}

#[tokio::test(crate = "paused")]
async fn a_broadcast_is_compressed_for_those_who_negotiated_it_and_plain_for_the_others() {
    let (fixture, mut link) = Fixture::with(compressed(256), 2).with_chat().await;
    let mut plain: [Client; 2] = link.clients().await;
    let mut packed = Vec::new();
    for _ in 0..3 {
        packed.push(RawClient::connect(&fixture, &mut link, "/chat").await);
    }
    let text = news(5_000);
    link.send(broadcast(bare(&text))).await;
    for client in &mut packed {
        let Frame { first, length, payload } = client.frame().await;
        assert_eq!((first, payload == text), (TEXT_DEFLATED, true));
        assert!(length < 200, "{length} bytes");
    }
    for client in &mut plain {
        assert_eq!(client.text().await + "\u{1e}", news(1));
    }
    link.send(broadcast("short")).await;
    for client in &mut packed {
        assert_eq!(client.frame().await, Frame { first: TEXT, length: 8, payload: "short\u{1e}".into() });
    }
    let counters = fixture.shared.counters();
    let plain: u64 = counters.iter().map(|counters| counters.hub(0).compression_plain.get()).sum();
    assert_eq!(plain, 3 * (text.len() + 4 + 8) as u64, "with heads");
}

#[tokio::test(crate = "paused")]
async fn sends_to_sets_and_to_one_are_compressed_alike_and_keep_their_order() {
    let (fixture, mut link) = Fixture::with(compressed(1), 1).with_chat().await;
    let target = format!("/chat?access_token={}", token_of("ann"));
    let mut client = RawClient::connect(&fixture, &mut link, &target).await;
    link.join(&client.id.clone(), "red").await;
    let texts: Vec<String> = (1..=6).map(|number| news(number * 100)).collect();
    let id = client.id.clone();
    let data = |text: &str| data_for(&id, text.to_owned());
    link.send_together([
        broadcast(bare(&texts[0])),
        broadcast(bare(&texts[1])),
        to_group("red", bare(&texts[2])),
        data(&texts[3]),
        to_user("ann", bare(&texts[4])),
        to_connection(&id, bare(&texts[5])),
    ])
    .await;
    for text in &texts {
        let frame = client.frame().await;
        assert_eq!((frame.first, &frame.payload), (TEXT_DEFLATED, text));
    }
    // A lone frame of each kind, written directly.
    for message in [broadcast(bare(&texts[1])), data(&texts[1])] {
        link.send(message).await;
        assert_eq!(client.frame().await.first, TEXT_DEFLATED);
    }
}

#[tokio::test(crate = "paused")]
async fn node_and_hub_must_both_permit_it_and_only_hubs_have_it() {
    let accepted = async |settings: Settings, hub: HubManifest, offer: &str| {
        let path = hub.path.clone();
        let (fixture, _link) = Fixture::with(settings, 1).with_app(hub).await;
        RawClient::upgrade(&fixture, &path, offer).await.1
    };
    assert_eq!(accepted(compressed(1), chat(|_| {}), OFFER).await.as_deref(), Some(ACCEPTED));
    assert_eq!(accepted(settings(), chat(|_| {}), OFFER).await, None);
    assert_eq!(accepted(compressed(1), chat(|hub| hub.compress = false), OFFER).await, None);
    assert_eq!(accepted(compressed(1), HubManifest::raw("feed", "/feed"), OFFER).await, None);
    let small = "permessage-deflate; server_max_window_bits=9";
    assert_eq!(accepted(compressed(1), chat(|_| {}), small).await, None);
}

fn call(number: usize, bytes: usize) -> String {
    let filling = "x".repeat(bytes);
    format!("{{\"type\":1,\"target\":\"Say\",\"arguments\":[{number},\"{filling}\"]}}\u{1e}")
}

/// Data that the app server gets, until it has this many bytes.
async fn data(link: &mut LinkedApp, bytes: usize) -> String {
    let mut text = String::new();
    while text.len() < bytes {
        text += &link.data().await.0;
    }
    text
}

#[tokio::test(crate = "paused")]
async fn compressed_messages_go_up_whole_in_fragments_and_beside_plain_ones() {
    let (fixture, mut link) = Fixture::with(compressed(1), 1).with_chat().await;
    let mut client = RawClient::connect(&fixture, &mut link, "/chat").await;
    let calls: Vec<_> = (0..6).map(|number| call(number, 1_000)).collect();
    let parts = deflated((calls[1].clone() + &calls[2]).as_bytes());
    let (first, rest) = parts.split_at(10);
    let (second, last) = rest.split_at(rest.len() / 2);
    // A hub message that is split into two compressed messages.
    let (head, tail) = calls[4].split_at(500);
    let stream = [
        masked(TEXT_DEFLATED, &deflated(calls[0].as_bytes())),
        masked(0x41, first),
        masked(0x89, b"still there?"),
        masked(0x00, second),
        masked(0x80, last),
        masked(TEXT, calls[3].as_bytes()),
        masked(TEXT_DEFLATED, &deflated(head.as_bytes())),
        masked(TEXT_DEFLATED, &deflated(tail.as_bytes())),
        masked(TEXT, calls[5].as_bytes()),
    ]
    .concat();
    for size in [stream.len(), 7] {
        for piece in stream.chunks(size) {
            client.write(piece).await;
        }
        assert_eq!(client.frame().await, Frame { first: 0x8a, length: 14, payload: "still there?".into() });
        assert_eq!(data(&mut link, calls.concat().len()).await, calls.concat(), "in pieces of {size}");
    }
    assert_eq!(fixture.shared.counters_of(0).unfinished_bytes.get(), 0);
}

#[tokio::test(crate = "paused")]
async fn a_long_compressed_message_is_read_in_steps_and_what_follows_comes_behind_it() {
    let hub = chat(|hub| hub.message_max_bytes = 1024 * 1024);
    let (fixture, mut link) = Fixture::with(compressed(1), 1).with_app(hub).await;
    let mut client = RawClient::connect(&fixture, &mut link, "/chat").await;
    let (long, many) = (call(0, 900_000), (1..8_000).map(|number| call(number, 40)).collect::<String>());
    let last = call(9, 1);
    client
        .write(
            &[
                masked(TEXT_DEFLATED, &deflated(long.as_bytes())),
                masked(TEXT_DEFLATED, &deflated(many.as_bytes())),
                masked(TEXT, last.as_bytes()),
            ]
            .concat(),
        )
        .await;
    let all = long + &many + &last;
    assert!(data(&mut link, all.len()).await == all);
    assert_eq!(fixture.shared.counters_of(0).unfinished_bytes.get(), 0);
}

#[tokio::test(crate = "paused")]
async fn a_bomb_and_corrupt_data_close_only_their_client() {
    let bomb = deflated(&[b'x'; 10_000_000]);
    let pings = deflated("{\"type\":6}\u{1e}".repeat(500_000).as_bytes());
    let truncated = deflated(news(5_000).as_bytes())[..20].to_vec();
    for (payload, cause, code) in [
        (bomb, "message_too_large", CLOSE_NORMAL),
        (pings, "message_too_large", CLOSE_NORMAL),
        (truncated, "websocket_protocol", CLOSE_PROTOCOL_ERROR),
        (vec![0xff, 0xff, 0xff], "websocket_protocol", CLOSE_PROTOCOL_ERROR),
        (vec![], "websocket_protocol", CLOSE_PROTOCOL_ERROR),
    ] {
        let (fixture, mut link) = Fixture::with(compressed(1), 1).with_chat().await;
        let mut client = RawClient::connect(&fixture, &mut link, "/chat").await;
        let mut other = RawClient::connect(&fixture, &mut link, "/chat").await;
        client.write(&masked(TEXT_DEFLATED, &payload)).await;
        let end = link.close().await;
        assert_eq!((&*end.connection_id, cause_of(&end).as_deref()), (&*client.id, Some(cause)), "{code}");
        other.write(&masked(TEXT_DEFLATED, &deflated(call(1, 100).as_bytes()))).await;
        assert_eq!(link.data().await.0, call(1, 100), "the inflater serves the next client");
        drop(client);
        link.fence().await;
        assert_eq!(fixture.shared.counters_of(0).unfinished_bytes.get(), 0);
    }
}

#[tokio::test(crate = "paused")]
async fn an_endless_compressed_message_is_closed_before_it_takes_memory() {
    let hub = chat(|hub| hub.message_max_bytes = 1024);
    let (fixture, mut link) = Fixture::with(compressed(1), 1).with_app(hub).await;
    let mut client = RawClient::connect(&fixture, &mut link, "/chat").await;
    client.write(&masked(0x41, &[0; 10_000])).await;
    let unfinished = || fixture.shared.counters_of(0).unfinished_bytes.get();
    while unfinished() < 10_000 {
        yield_now().await;
    }
    assert!(unfinished() < 20_000, "{} bytes", unfinished());
    client.write(&masked(0x00, &[0; 10_000])).await;
    let end = link.close().await;
    assert_eq!(cause_of(&end).as_deref(), Some("message_too_large"));
    link.fence().await;
    assert_eq!(fixture.shared.counters_of(0).unfinished_bytes.get(), 0);
}

#[tokio::test(crate = "paused")]
async fn the_decompressor_of_a_message_that_waits_counts_as_memory() {
    let mut settings = compressed(1);
    settings.limits.bytes_per_second = NonZeroU32::new(100_000);
    let hub = chat(|hub| hub.message_max_bytes = 1024 * 1024);
    let (fixture, mut link) = Fixture::with(settings, 1).with_app(hub).await;
    let mut client = RawClient::connect(&fixture, &mut link, "/chat").await;
    let many: String = (1..8_000).map(|number| call(number, 40)).collect();
    client.write(&masked(TEXT_DEFLATED, &deflated(many.as_bytes()))).await;
    let unfinished = || fixture.shared.counters_of(0).unfinished_bytes.get();
    while unfinished() < 64 * 1024 {
        yield_now().await;
    }
    assert!(data(&mut link, many.len()).await == many);
    assert_eq!(unfinished(), 0);
}

#[tokio::test(crate = "paused")]
async fn a_mark_without_negotiation_is_an_error() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let (mut client, extension) = RawClient::upgrade(&fixture, "/chat", OFFER).await;
    assert_eq!(extension, None);
    client.write(&masked(TEXT, JSON_HANDSHAKE.as_bytes())).await;
    client.accept(&mut link).await;
    client.write(&masked(TEXT_DEFLATED, &deflated(call(1, 100).as_bytes()))).await;
    assert_eq!(cause_of(&link.close().await).as_deref(), Some("websocket_protocol"));
}

#[tokio::test(crate = "paused")]
async fn a_replay_is_plain_and_each_socket_has_what_it_negotiated() {
    let hub = chat(|hub| hub.stateful_reconnect_buffer_bytes = Some(100_000));
    let (fixture, mut link) = Fixture::with(compressed(1), 1).with_app(hub).await;
    let target = Client::stateful_target(&fixture, "/chat").await;
    let mut client = RawClient::connect(&fixture, &mut link, &target).await;
    let [a, b, c] = ["a", "b", "c"]
        .map(|name| format!("{{\"type\":1,\"target\":\"{name}\",\"arguments\":[\"{}\"]}}\u{1e}", "x".repeat(500)));
    // Its first data ends the hold of a new client.
    client.write(&masked(TEXT, call(1, 1).as_bytes())).await;
    link.data().await;
    link.send(broadcast(bare(&a))).await;
    assert_eq!(client.frame().await, Frame { first: TEXT_DEFLATED, ..twin_of(&a) });
    let id = client.id.clone();
    drop(client);
    link.write(&id, b.clone()).await;
    link.fence().await;

    let (mut client, extension) = RawClient::upgrade(&fixture, &target, OFFER).await;
    assert!(extension.is_some());
    assert!(client.text().await.starts_with("{\"type\":9,\"sequenceId\":1}"));
    for text in [&a, &b] {
        let frame = client.frame().await;
        assert_eq!((frame.first, &frame.payload), (TEXT, text));
    }
    let begin = "{\"type\":9,\"sequenceId\":2}\u{1e}".to_owned();
    client.write(&masked(TEXT_DEFLATED, &deflated((begin.clone() + &call(2, 500)).as_bytes()))).await;
    assert_eq!(link.data().await.0, call(2, 500));
    link.send(broadcast(bare(&c))).await;
    assert_eq!(client.frame().await.first, TEXT_DEFLATED);
    drop(client);

    let (mut client, _) = RawClient::upgrade(&fixture, &target, "none").await;
    client.text().await;
    for text in [&a, &b, &c] {
        assert_eq!(&client.text().await, text);
    }
    client.write(&masked(TEXT, begin.as_bytes())).await;
    link.send(broadcast(bare(&a))).await;
    assert_eq!(client.frame().await.first, TEXT);
}

#[tokio::test(crate = "paused")]
async fn a_large_message_is_compressed_before_it_reaches_the_shards_and_keeps_its_place() {
    let (fixture, mut link) = Fixture::with(compressed(2), 2).with_chat().await;
    let mut plain = link.client().await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(RawClient::connect(&fixture, &mut link, "/chat").await);
    }
    let text = |name: &str, length: u64| {
        let numbers: String = (0..length / 6).map(|at| format!("{:05},", at * 7_919 % 99_991)).collect();
        format!("{{\"type\":1,\"target\":\"{name}\",\"arguments\":[[{numbers}0]]}}\u{1e}")
    };
    let (large, small) = (text("large", 1_000_000), text("small", 600));
    link.send(broadcast(bare(&large))).await;
    link.send(broadcast(bare(&small))).await;
    for client in &mut clients {
        let frame = client.frame().await;
        assert!((frame.first, &frame.payload) == (TEXT_DEFLATED, &large) && frame.length < large.len());
        let frame = client.frame().await;
        assert_eq!((frame.first, &frame.payload), (TEXT_DEFLATED, &small));
    }
    assert!(plain.text().await == bare(&large));
    plain.text().await;

    let answer = text("answer", 200_000);
    link.write(&clients[1].id, answer.clone()).await;
    link.write(&clients[1].id, small.clone()).await;
    link.write(&plain.id, answer.clone()).await;
    let frame = clients[1].frame().await;
    assert!((frame.first, &frame.payload) == (TEXT_DEFLATED, &answer) && frame.length < answer.len());
    assert_eq!(clients[1].frame().await.payload, small);
    assert!(plain.text().await == bare(&answer));
}

#[tokio::test(crate = "paused")]
async fn a_client_that_comes_back_with_compression_gets_large_messages_compressed() {
    let hub = chat(|hub| hub.stateful_reconnect_buffer_bytes = Some(1_000_000));
    let (fixture, mut link) = Fixture::with(compressed(1), 1).with_app(hub).await;
    let target = Client::stateful_target(&fixture, "/chat").await;
    let (mut client, _) = RawClient::upgrade(&fixture, &target, "none").await;
    client.write(&masked(TEXT, STATEFUL_HANDSHAKE.as_bytes())).await;
    client.accept(&mut link).await;
    client.write(&masked(TEXT, call(1, 1).as_bytes())).await;
    link.data().await;
    let id = client.id.clone();
    drop(client);
    link.fence().await;
    let (mut client, _) = RawClient::upgrade(&fixture, &target, OFFER).await;
    assert!(client.text().await.starts_with("{\"type\":9"));
    client.write(&masked(TEXT, b"{\"type\":9,\"sequenceId\":2}\x1e")).await;
    let large = format!("{{\"type\":1,\"target\":\"large\",\"arguments\":[\"{}\"]}}\u{1e}", "x".repeat(200_000));
    link.send(broadcast(bare(&large))).await;
    link.write(&id, large.clone()).await;
    for _ in 0..2 {
        let frame = client.frame().await;
        assert!((frame.first, &frame.payload) == (TEXT_DEFLATED, &large));
    }
}

fn twin_of(text: &str) -> Frame {
    let length = deflated(text.as_bytes()).len() + 2;
    Frame { first: 0, length, payload: text.to_owned() }
}

#[tokio::test(crate = "paused")]
async fn the_observer_shows_who_negotiated_it() {
    let (fixture, mut link) = Fixture::with(compressed(1), 1).with_chat().await;
    let plain = link.client().await;
    let packed = RawClient::connect(&fixture, &mut link, "/chat").await;
    let is_compressed = async |id: &str| {
        let (slot, id) = (fixture.shared.routes.find(id).unwrap().slot, id.to_owned());
        let shown = fixture.shared.shards()[0].inspect(move |state| Inspector::at_shard(state).details(slot, &id));
        shown.await.flatten().unwrap().row.is_compressed
    };
    assert_eq!((is_compressed(&plain.id).await, is_compressed(&packed.id).await), (false, true));
}
