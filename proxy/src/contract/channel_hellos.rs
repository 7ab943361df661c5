//! Hellos of channels at the client port, and the cost of unauthenticated ones.

use std::time::Duration;

use http::Request;
use tokio::io::{AsyncReadExt, duplex};
use tokio::task::spawn_local;
use tokio::time::Instant;
use trunkline_channel::{Dialled, open_channel};
use trunkline_protocol::key::{AccessKey, AccessKeys, PeerKind};
use trunkline_protocol::wire::{CHANNEL_PATH, HELLO_HEADER, KEY_TAG_HEADER};

use super::fixture::{Fixture, KEY, paused};
use super::http::HttpConnection;
use super::hub_separation::{APP_KEY, two_hubs};
use super::inbound_links::ONE;
use crate::ground::auth::{AccessSettings, AppKey};
use crate::ground::config::SecretLine;

/// Creates the hello and the tag of a sender with this key.
async fn hello(key: &str, peer_kind: PeerKind) -> (String, String) {
    let keys = AccessKeys::new(vec![AccessKey::new(key).unwrap()]).unwrap();
    let (near, mut far) = duplex(4096);
    let mut near = Some(near);
    let dial = move || std::future::ready(near.take().ok_or_else(|| std::io::ErrorKind::Other.into()));
    let sending = spawn_local(async move { open_channel(dial, Dialled { peer_kind, name: ONE }, &keys).await.err() });
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(far.read_u8().await.unwrap());
    }
    sending.abort();
    let head = String::from_utf8(head).unwrap();
    let value = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_default().to_owned()
    };
    (value(HELLO_HEADER), value(KEY_TAG_HEADER))
}

async fn ask(fixture: &Fixture, hello: &str, tag: Option<&str>) -> u16 {
    ask_from(fixture, 1, (hello, tag)).await
}

/// Sends a hello from the address with this last number.
async fn ask_from(fixture: &Fixture, last: u8, (hello, tag): (&str, Option<&str>)) -> u16 {
    let mut request = Request::get(CHANNEL_PATH).header("host", ONE).header("connection", "upgrade");
    request = request.header("upgrade", "websocket").header("sec-websocket-version", "13");
    request = request.header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==").header(HELLO_HEADER, hello);
    if let Some(tag) = tag {
        request = request.header(KEY_TAG_HEADER, tag);
    }
    let pipe = fixture.dial_from(([192, 0, 2, last], 40_000).into(), 4096);
    let answer = HttpConnection::over(pipe).await.begin(request.body(String::new()).unwrap()).await;
    answer.status().as_u16()
}

fn of_many_apps() -> Fixture {
    let others: String =
        (1..250).map(|number| format!("app{number}=the key of app {number} of many;hub{number}\n")).collect();
    let app_keys = AppKey::lines(&format!("chat={APP_KEY}\n{others}")).unwrap();
    let (settings, access) = two_hubs();
    Fixture::with((settings, AccessSettings { app_keys, ..access }), 1)
}

#[tokio::test(crate = "paused")]
async fn a_hello_is_tried_with_the_key_of_its_tag_and_one_without_with_none() {
    let fixture = of_many_apps();
    for (key, peer_kind) in [(KEY, PeerKind::NodeClients), (KEY, PeerKind::DialIn), (APP_KEY, PeerKind::DialIn)] {
        let (good, tag) = hello(key, peer_kind).await;
        let (_, other) = hello("the key of app 7 of many", PeerKind::DialIn).await;
        assert_eq!(ask(&fixture, &good, None).await, 404, "without a tag");
        assert_eq!(ask(&fixture, &good, Some("nonsense")).await, 404);
        assert_eq!(ask(&fixture, &good, Some(&other)).await, 404, "with the tag of another key");
        assert_eq!(ask(&fixture, &good, Some(&tag)).await, 101, "{peer_kind:?}");
    }
}

/// Hello and tag of a node with [`KEY`], recorded at 03:40 on 28 November 2026.
const RECORDED: (&str, &str) =
    ("PcpLGDRxLX3HdEw2Des8Uz0CAlnH0f-_MqDWeG1b-nOFmDSYHN-wnPoAGk_wbBRpzObDbYtYsNB1zay4O8QCoUFQvg", "BxficWEdwTn5k4ay");

#[tokio::test(crate = "paused")]
async fn a_hello_of_another_time_is_refused_and_the_difference_of_the_clocks_noted() {
    let fixture = of_many_apps();
    assert_eq!(ask(&fixture, RECORDED.0, Some(RECORDED.1)).await, 425);
    let seen = fixture.shared.reports.clocks.recent(Instant::now());
    assert!(matches!(seen[..], [(from, ahead)] if from.to_string() == "192.0.2.1" && ahead.abs() > 5), "{seen:?}");
}

/// Ten failed hellos of an address are answered immediately, and each further one after this time.
const SLOW_ANSWER: Duration = Duration::from_secs(3);

#[tokio::test(crate = "paused")]
async fn rubbish_that_names_no_key_is_refused_at_once_and_rubbish_that_names_one_waits() {
    let fixture = of_many_apps();
    let (rubbish, (_, tag)) = ("A".repeat(72), hello(APP_KEY, PeerKind::DialIn).await);
    let named = |number: u32| format!("{number:0>3}{}", "A".repeat(69));
    let timed = async |last: u8, hello: &str, tag: Option<&str>| {
        let begun = Instant::now();
        (ask_from(&fixture, last, (hello, tag)).await, begun.elapsed())
    };
    for number in 0..10 {
        let (status, took) = timed(1, &named(number), Some(&tag)).await;
        assert!(status == 404 && took < SLOW_ANSWER, "{number}: {status} {took:?}");
    }
    for number in 10..15 {
        let (status, took) = timed(1, &named(number), Some(&tag)).await;
        assert!(status == 404 && took >= SLOW_ANSWER, "{number}: {status} {took:?}");
    }
    for unnamed in [None, Some("A".repeat(16))] {
        let (status, took) = timed(1, &rubbish, unnamed.as_deref()).await;
        assert!(status == 404 && took < SLOW_ANSWER, "no key is tried: {status} {took:?}");
    }
    let (good, tag) = hello(APP_KEY, PeerKind::DialIn).await;
    assert_eq!(ask(&fixture, &good, Some(&tag)).await, 101, "nobody is locked out");
    let (good, tag) = hello(APP_KEY, PeerKind::DialIn).await;
    let (status, took) = timed(2, &good, Some(&tag)).await;
    assert!(status == 101 && took < SLOW_ANSWER, "another address: {status} {took:?}");
}
