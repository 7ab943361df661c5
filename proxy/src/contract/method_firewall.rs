//! Method firewall: calls refused by the operator's rules never reach an app server, and the caller gets an error.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Message;
use trunkline_protocol::hub::{HubMessage, HubProtocol, Invocation, Payload, StreamItem, next_frame};
use trunkline_protocol::manifest::HubManifest;

use super::app::broadcast;
use super::client::{Client, Received};
use super::fixture::{Fixture, paused, settings, token_of};
use super::http::negotiate;
use super::hub_message::{call, cast};
use super::scene::LinkedApp;
use crate::ground::config::Settings;
use crate::ground::routing::Ruleset;

const RULES: &str = "
    [[methods]]
    hub = \"/chat\"
    deny = [\"Debug*\"]
    per-second = { \"Say\" = 2 }
    max-bytes = { \"Note\" = 100 }
";

const DEBUG_REFUSED: &str = "The method 'Debug' can't be called: the server's rules refuse it.";

async fn scene(rules: &str, shards: u16, hub: HubManifest) -> (Fixture, LinkedApp) {
    let rules = Arc::new(Ruleset::parse(rules).unwrap());
    Fixture::with(Settings { rules, ..settings() }, shards).with_app(hub).await
}

async fn chat() -> (Fixture, LinkedApp) {
    scene(RULES, 1, HubManifest::new("chat", "/chat")).await
}

fn error(id: &str, text: &str) -> String {
    format!("{{\"type\":3,\"invocationId\":\"{id}\",\"error\":\"{text}\"}}")
}

#[tokio::test(crate = "paused")]
async fn a_refused_call_is_answered_with_an_error_and_others_go_up_together_in_order() {
    let (fixture, mut link) = chat().await;
    let mut client = link.client().await;
    let messages = [cast("A"), call("1", "B"), call("2", "Debug"), cast("DebugAll"), cast("C"), cast("D")];
    client.send(&messages.concat()).await;
    assert_eq!(link.data().await.0, cast("A") + &call("1", "B"));
    assert_eq!(link.data().await.0, cast("C") + &cast("D"));
    assert_eq!(client.text().await, error("2", DEBUG_REFUSED));
    link.fence().await;
    client.fence(&link).await;
    assert_eq!(fixture.shared.hubs.rules().methods[0].refused.get(), 2);
}

#[tokio::test(crate = "paused")]
async fn what_is_no_call_goes_up_and_what_cannot_be_read_ends_the_connection() {
    let (_, mut link) = chat().await;
    let mut client = link.client().await;
    let result = "{\"type\":3,\"invocationId\":\"q\"}\u{1e}";
    // A lenient app server might parse a method from this message.
    client.send(&format!("{result}{}x\u{1e}", call("1", "Debug").trim_end_matches('\u{1e}'))).await;
    assert_eq!(link.data().await.0, result);
    assert!(link.close().await.error.is_some_and(|error| error.contains("malformed")));
}

#[tokio::test(crate = "paused")]
async fn a_call_that_is_nested_too_deeply_is_judged_by_its_method() {
    let (_, mut link) = chat().await;
    let mut client = link.client().await;
    let deep =
        |id: &str, target: &str| call(id, target).replace("[]", &format!("{}{}", "[".repeat(600), "]".repeat(600)));
    client.send(&(deep("1", "Debug") + &deep("2", "Other"))).await;
    assert_eq!(client.text().await, error("1", DEBUG_REFUSED));
    assert_eq!(link.data().await.0, deep("2", "Other"), "its app server answers it");
    client.fence(&link).await;
}

#[tokio::test(crate = "paused")]
async fn a_message_may_be_as_large_as_its_method_allows() {
    let (_, mut link) = chat().await;
    let mut client = link.client().await;
    let note = |bytes: usize| {
        let rest = call("7", "Note").len();
        call("7", "Note").replace("[]", &format!("[\"{}\"]", "x".repeat(bytes - rest - 2)))
    };
    client.send(&(note(100) + &note(101))).await;
    assert_eq!(link.data().await.0, note(100));
    assert_eq!(
        client.text().await,
        error("7", "The method 'Note' can't be called with a message of more than 100 bytes.")
    );
    link.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_user_has_one_rate_over_all_connections_and_shards_and_others_have_theirs() {
    let (fixture, mut link) = scene(RULES, 2, HubManifest::new("chat", "/chat")).await;
    let target = |user: &str| format!("/chat?access_token={}", token_of(user));
    let mut one = Client::connect(&fixture, &mut link, &target("ann")).await;
    let mut two = Client::connect(&fixture, &mut link, &target("ann")).await;
    let mut ben = Client::connect(&fixture, &mut link, &target("ben")).await;
    let refused = "The method 'Say' can't be called more than 2 times a second: the server's rules limit it.";
    one.send(&call("1", "Say")).await;
    assert_eq!(link.data().await.0, call("1", "Say"));
    two.send(&(call("2", "Say") + &call("3", "Say"))).await;
    assert_eq!(link.data().await.0, call("2", "Say"));
    assert_eq!(two.text().await, error("3", refused));
    one.send(&call("4", "Say")).await;
    assert_eq!(one.text().await, error("4", refused));
    ben.send(&(call("5", "Say") + &call("6", "say"))).await;
    assert_eq!(link.data().await.0, call("5", "Say") + &call("6", "say"));
    // sleep: paused time; half a second refills one call
    tokio::time::sleep(Duration::from_millis(500)).await;
    one.send(&(call("7", "Say") + &call("8", "Say"))).await;
    assert_eq!(link.data().await.0, call("7", "Say"));
    assert_eq!(one.text().await, error("8", refused));
    link.fence().await;
}

#[tokio::test(crate = "paused")]
async fn what_belongs_to_a_refused_call_is_dropped_until_its_streams_end() {
    let (_, mut link) = chat().await;
    let mut client = link.client().await;
    let upload =
        "{\"type\":4,\"invocationId\":\"1\",\"target\":\"Debug\",\"arguments\":[],\"streamIds\":[\"s\"]}\u{1e}";
    let item = |id: &str| format!("{{\"type\":2,\"invocationId\":\"{id}\",\"item\":1}}\u{1e}");
    let end = |id: &str| format!("{{\"type\":3,\"invocationId\":\"{id}\"}}\u{1e}");
    let cancel = "{\"type\":5,\"invocationId\":\"1\"}\u{1e}";
    client.send(&[upload, &item("s"), &item("t"), &item("s"), cancel, &end("s"), &end("s")].concat()).await;
    assert_eq!(link.data().await.0, item("t"));
    assert_eq!(link.data().await.0, end("s"), "the second end is about something else");
    assert_eq!(client.text().await, error("1", DEBUG_REFUSED));
    link.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_client_that_goes_on_sending_to_refused_calls_is_closed_at_a_bound() {
    let (_, mut link) = chat().await;
    let mut client = link.client().await;
    for number in 0..=256 {
        let stream = format!("{{\"type\":1,\"target\":\"Debug\",\"arguments\":[],\"streamIds\":[\"{number}\"]}}\u{1e}");
        client.send(&stream).await;
    }
    let close = client.text().await;
    assert!(close.starts_with("{\"type\":7,"), "{close}");
    assert!(link.close().await.error.unwrap().contains("over 256 streams"));
}

#[tokio::test(crate = "paused")]
async fn a_refusal_waits_for_the_answer_to_the_hub_handshake() {
    let (fixture, mut link) = chat().await;
    let mut client = Client::upgrade(&fixture, "/chat").await.unwrap();
    client.send(&(super::client::JSON_HANDSHAKE.to_owned() + &call("1", "Debug") + &cast("A"))).await;
    client.id = link.opening().await.connection_id.to_string();
    link.data().await;
    assert_eq!(link.data().await.0, cast("A"));
    link.write(&client.id, "{}\u{1e}").await;
    assert_eq!(client.text().await, "{}");
    assert_eq!(client.text().await, error("1", DEBUG_REFUSED));
}

#[tokio::test(crate = "paused")]
async fn refusals_are_kept_and_counted_for_a_client_that_may_come_back() {
    let hub = HubManifest { stateful_reconnect_buffer_bytes: Some(1000), ..HubManifest::new("chat", "/chat") };
    let (fixture, mut link) = scene(RULES, 1, hub).await;
    let (_, token) = negotiate(&fixture, "/chat", "&useStatefulReconnect=true").await;
    let target = format!("/chat?id={token}");
    let mut client = Client::upgrade(&fixture, &target).await.unwrap();
    client.send("{\"protocol\":\"json\",\"version\":2}\u{1e}").await;
    client.accept(&mut link).await;
    client.send(&(cast("A") + &call("1", "Debug"))).await;
    assert_eq!(link.data().await.0, cast("A"));
    assert_eq!(client.text().await, error("1", DEBUG_REFUSED));
    assert_eq!(client.text().await, "{\"type\":8,\"sequenceId\":2}", "the refused call was received");
    drop(client);
    let mut client = Client::upgrade(&fixture, &target).await.unwrap();
    assert_eq!(client.text().await, "{\"type\":9,\"sequenceId\":1}");
    assert_eq!(client.text().await, error("1", DEBUG_REFUSED), "it was not acknowledged");
    client.send(&("{\"type\":9,\"sequenceId\":2}\u{1e}".to_owned() + &call("1", "Debug") + &cast("B"))).await;
    assert_eq!(link.data().await.0, cast("B"), "what was refused and comes again is left out");
    link.send(broadcast("1")).await;
    while client.text().await != "1" {}
}

#[tokio::test(crate = "paused")]
async fn message_pack_is_judged_alike() {
    let (fixture, mut link) = chat().await;
    let mut client = Client::upgrade(&fixture, "/chat").await.unwrap();
    client.write(Message::binary("{\"protocol\":\"messagepack\",\"version\":1}\u{1e}")).await;
    client.id = link.opening().await.connection_id.to_string();
    link.data().await;
    link.write(&client.id, "{}\u{1e}").await;
    client.next().await;
    let encoded = |message: HubMessage| {
        let mut bytes = BytesMut::new();
        HubProtocol::MessagePack.encode(&message, &mut bytes);
        bytes.freeze()
    };
    let argument = Payload::new(Bytes::from_static(b"\x92\x01\xa1x"));
    let call = |id: &'static str, target: &'static str, streams: &[&'static str]| {
        encoded(HubMessage::Invocation(Invocation {
            invocation_id: Some(id.into()),
            target: target.into(),
            arguments: vec![argument.clone()],
            stream_ids: streams.iter().map(|id| (*id).into()).collect(),
            headers: vec![("x".into(), "y".into())],
        }))
    };
    let item = |id: &'static str| {
        let (invocation_id, item) = (id.into(), Payload::new(Bytes::from_static(b"\x01")));
        encoded(HubMessage::StreamItem(StreamItem { headers: Vec::new(), invocation_id, item }))
    };
    let messages = [call("1", "Debug", &["s"]), call("2", "A", &["t"]), item("s"), item("t")];
    client.write(Message::binary(messages.concat())).await;
    assert_eq!(link.data().await.1.payload, call("2", "A", &["t"]));
    assert_eq!(link.data().await.1.payload, item("t"));
    let Received::Binary(answer) = client.next().await else { panic!("no answer") };
    let frame = next_frame(HubProtocol::MessagePack, &answer, 1000).unwrap().unwrap();
    let answer = HubProtocol::MessagePack.decode(&answer.slice(frame.body)).unwrap().unwrap();
    assert!(format!("{answer:?}").contains(DEBUG_REFUSED), "{answer:?}");
}

#[tokio::test(crate = "paused")]
async fn rules_that_change_judge_the_next_message_of_a_client_that_is_there() {
    let (fixture, mut link) = scene("", 1, HubManifest::new("chat", "/chat")).await;
    let mut client = link.client().await;
    client.send(&call("1", "Debug")).await;
    assert_eq!(link.data().await.0, call("1", "Debug"));
    fixture.shared.hubs.apply_rules(&Ruleset::parse(RULES).unwrap());
    client.send(&call("2", "Debug")).await;
    assert_eq!(client.text().await, error("2", DEBUG_REFUSED));
    fixture.shared.hubs.apply_rules(&Ruleset::default());
    client.send(&call("3", "Debug")).await;
    assert_eq!(link.data().await.0, call("3", "Debug"));
}
