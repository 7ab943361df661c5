//! Recordings of a hub's clients: recorded clients, order of lines, and end of a recording.

use std::time::Duration;

use tokio::time::sleep;
use trunkline_protocol::manifest::HubManifest;

use super::client::Client;
use super::fixture::{Fixture, paused, settings};
use super::scene::LinkedApp;
use crate::observer::{HubRecording, PayloadView, RecordingLine, WatchChoice, WatchError, WatchLines};
use crate::watch::WatchSubject;

async fn chat() -> (Fixture, LinkedApp) {
    Fixture::with(settings(), 2).with_chat().await
}

fn choice(hub: &str) -> WatchChoice {
    WatchChoice { hub: Some(hub.into()), subjects: Vec::new(), payloads: PayloadView::Shown, seconds: None }
}

/// Receives this many lines in short form: event, connection, and text or cause.
async fn told(recording: &mut HubRecording, count: usize) -> Vec<(&'static str, String, String)> {
    let short = |line| match line {
        RecordingLine::Header(_) => None,
        RecordingLine::Open(open) => {
            Some((if open.was_open { "present" } else { "open" }, open.connection, open.transport))
        }
        RecordingLine::Up(message) => Some(("up", message.connection, message.text.unwrap_or_default())),
        RecordingLine::Down(message) => Some(("down", message.connection, message.text.unwrap_or_default())),
        RecordingLine::Close(close) => Some(("close", close.connection, close.cause)),
        other => panic!("{other:?}"),
    };
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(recording.next().await.unwrap().into_iter().filter_map(short));
    }
    all
}

const SAY: &str = "{\"type\":1,\"target\":\"Say\",\"arguments\":[]}\u{1e}";

#[tokio::test(crate = "paused")]
async fn a_connection_is_recorded_from_opening_to_close_without_keep_alives() {
    let (fixture, mut link) = chat().await;
    let mut recording = HubRecording::open(&fixture.shared, &choice("/chat")).await.unwrap();
    let mut client = Client::connect(&fixture, &mut link, "/chat?room=1").await;
    let id = client.id.clone();
    client.send("{\"type\":6}\u{1e}").await;
    client.send(SAY).await;
    link.data().await;
    link.write(&id, SAY).await;
    client.text().await;
    client.close().await;
    link.close().await;
    let lines = told(&mut recording, 6).await;
    let expected = [
        ("open", "WebSockets"),
        ("up", "{\"protocol\":\"json\",\"version\":1}\u{1e}"),
        ("down", "{}\u{1e}"),
        ("up", SAY),
        ("down", SAY),
        ("close", "client_closed"),
    ];
    assert_eq!(lines, expected.map(|(event, text)| (event, id.clone(), text.to_owned())));
}

#[tokio::test(crate = "paused")]
async fn clients_of_two_shards_are_recorded_in_the_order_of_time() {
    let (fixture, mut link) = chat().await;
    let mut recording = HubRecording::open(&fixture.shared, &choice("chat")).await.unwrap();
    let mut clients = [link.client().await, link.client().await];
    let mut ids = Vec::new();
    // Start with the second shard: if ordered by shard, its lines would come last.
    for number in [1, 0, 1, 0, 0, 1] {
        // sleep: each message needs its own timestamp in paused time
        sleep(Duration::from_millis(1)).await;
        clients[number].send(SAY).await;
        link.data().await;
        ids.push(clients[number].id.clone());
    }
    let lines = told(&mut recording, 2 * 3 + ids.len()).await;
    let said: Vec<_> = lines.iter().filter(|(_, _, text)| text == SAY).map(|(_, id, _)| id.clone()).collect();
    assert_eq!(said, ids);
}

#[tokio::test(crate = "paused")]
async fn present_clients_are_recorded_and_clients_of_other_hubs_and_users_are_not() {
    let (fixture, mut link) = chat().await;
    let mut news = fixture.server_with("app-2", HubManifest::new("news", "/news")).await;
    let (ann, _ben) = (link.client_of("ann").await, link.client().await);
    let of_user = WatchChoice { subjects: vec![WatchSubject::User("ann".into())], ..choice("chat") };
    let mut recording = HubRecording::open(&fixture.shared, &of_user).await.unwrap();
    let (_other, _late) = (news.client_of("ann").await, link.client().await);
    let again = link.client_of("ann").await;
    let lines = told(&mut recording, 4).await;
    let named: Vec<_> = lines.iter().map(|(event, id, _)| (*event, id.as_str())).collect();
    let again = again.id.as_str();
    assert_eq!(named, [("present", ann.id.as_str()), ("open", again), ("up", again), ("down", again)]);
}

#[tokio::test(crate = "paused")]
async fn recordings_are_bounded_and_one_that_is_dropped_makes_room() {
    let (fixture, _link) = chat().await;
    let mut running = Vec::new();
    let refused = loop {
        match HubRecording::open(&fixture.shared, &choice("chat")).await {
            Ok(recording) => running.push(recording),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, WatchError::TooMany(text) if text.starts_with("4 recordings are already running")));
    assert_eq!(running.len(), 4);
    drop(running.pop());
    assert!(HubRecording::open(&fixture.shared, &choice("chat")).await.is_ok());
    let unknown = HubRecording::open(&fixture.shared, &choice("/talk")).await.unwrap_err();
    assert!(matches!(unknown, WatchError::UnknownHub));
}

#[tokio::test(crate = "paused")]
async fn a_recording_that_is_not_read_loses_messages_and_tells_how_many() {
    let mut settings = settings();
    // The client does not read either, and is not closed.
    settings.outbox.client_bytes = usize::MAX;
    let (fixture, mut link) = Fixture::with(settings, 1).with_chat().await;
    let mut recording = HubRecording::open(&fixture.shared, &choice("chat")).await.unwrap();
    let client = link.client().await;
    let large = format!("{{\"type\":1,\"target\":\"{}\",\"arguments\":[]}}\u{1e}", "x".repeat(500_000));
    let mut lost = 0;
    for _ in 0..20 {
        link.write(&client.id, large.clone()).await;
    }
    // The acknowledgement proves that the shard has processed the messages before it.
    link.join(&client.id, "fence").await;
    for _ in 0..4 {
        for line in recording.next().await.unwrap() {
            if let RecordingLine::Lost(loss) = line {
                lost += loss.messages;
            }
        }
    }
    assert!((1..20).contains(&lost), "{lost}");
}
