//! Stateful reconnect: clients that lose their sockets and return to their connections.

use std::time::Duration;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::*;

use super::app::{broadcast, data_for, to_group};
use super::client::{Client, JSON_HANDSHAKE, PING, Received, STATEFUL_HANDSHAKE};
use super::closes::cause_of;
use super::drains::{ANSWER, CALL, LEAVE};
use super::fixture::{Fixture, paused, settings};
use super::http::negotiate;
use super::hub_message::cast;
use super::moves::{call, sequence};
use super::scene::LinkedApp;
use crate::engine::shard::ShardCommand;
use crate::features::inspection::Inspector;
use crate::ground::config::{OutboxLimits, Settings};

const BUFFER_BYTES: usize = 1_000;

struct Scene {
    fixture: Fixture,
    link: LinkedApp,
}

async fn scene_with(fixture: Fixture) -> Scene {
    let hub = HubManifest { stateful_reconnect_buffer_bytes: Some(BUFFER_BYTES), ..HubManifest::new("chat", "/chat") };
    let (fixture, link) = fixture.with_app(hub).await;
    Scene { fixture, link }
}

async fn scene() -> Scene {
    scene_with(Fixture::start()).await
}

/// Creates the scene with a client that uses stateful reconnect. Returns its reconnect target as well.
async fn scene_with_client() -> (Scene, Client, String) {
    let mut scene = scene().await;
    let (client, target) = scene.connect().await;
    (scene, client, target)
}

impl Scene {
    /// State of a connection as shown to operators.
    async fn state(&self, id: &str) -> &'static str {
        let place = self.fixture.shared.routes.find(id).unwrap();
        let (shard, id) = (&self.fixture.shared.shards()[usize::from(place.shard)], id.to_owned());
        shard
            .inspect(move |state| Inspector::at_shard(state).details(place.slot, &id))
            .await
            .flatten()
            .unwrap()
            .row
            .state
    }

    /// Negotiates stateful reconnect; returns the target of the upgrade.
    async fn target(&self) -> String {
        Client::stateful_target(&self.fixture, "/chat").await
    }

    async fn connect(&mut self) -> (Client, String) {
        Client::connect_stateful(&self.fixture, &mut self.link, "/chat").await
    }

    /// Reconnects; returns the new socket and its first sequence message.
    async fn come_back(&self, target: &str) -> (Client, String) {
        let mut client = Client::upgrade(&self.fixture, target).await.unwrap();
        let sequence = client.text().await;
        (client, sequence)
    }
}

fn acknowledgement(number: u64) -> String {
    format!("{{\"type\":8,\"sequenceId\":{number}}}")
}

#[tokio::test(crate = "paused")]
async fn a_lost_socket_loses_and_doubles_nothing_and_the_app_server_is_not_notified() {
    let mut scene = scene_with(Fixture::with(settings(), 2)).await;
    let (mut client, target) = scene.connect().await;
    let id = client.id.clone();
    scene.link.join(&id, "red").await;
    scene.link.write(&id, cast("a")).await;
    scene.link.send(to_group("red", &call("b"))).await;
    assert_eq!([client.text().await, client.text().await], ["a", "b"].map(call));
    client.send(&(cast("1") + &cast("2"))).await;
    assert_eq!(scene.link.data().await.0, cast("1") + &cast("2"));
    client.send(&(acknowledgement(1) + "\u{1e}")).await;
    assert_eq!(client.text().await, acknowledgement(2), "within a second");
    drop(client);
    scene.link.write(&id, cast("c")).await;
    scene.link.send(broadcast(&call("d"))).await;
    scene.link.fence().await;
    assert_eq!(scene.state(&id).await, "away");

    let (mut client, begin) = scene.come_back(&target).await;
    assert_eq!(begin, sequence(2));
    client.send(&(sequence(2) + "\u{1e}" + &cast("2") + &cast("3"))).await;
    assert_eq!([client.text().await, client.text().await, client.text().await], ["b", "c", "d"].map(call));
    assert_eq!(scene.link.data().await.0, cast("3"), "what was sent again is left out");
    assert_eq!(client.text().await, acknowledgement(3));
    scene.link.send(to_group("red", &call("e"))).await;
    assert_eq!(client.text().await, call("e"), "the group is what it was");
    assert_eq!(scene.state(&id).await, "open");
    scene.link.fence().await;
    assert_eq!(scene.fixture.shared.counters().iter().map(|counters| counters.resumed.get()).sum::<u64>(), 1);
}

#[tokio::test(crate = "paused")]
async fn an_acknowledgement_that_was_lost_with_its_socket_comes_again() {
    let (mut scene, mut client, target) = scene_with_client().await;
    client.send(&cast("1")).await;
    assert_eq!((scene.link.data().await.0, client.text().await), (cast("1"), acknowledgement(1)));
    drop(client);
    let (mut client, _) = scene.come_back(&target).await;
    client.send(&(sequence(1) + "\u{1e}" + &cast("1"))).await;
    assert_eq!(client.text().await, acknowledgement(1), "a client whose buffer is full sends nothing before");
    scene.link.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_client_that_does_not_come_back_in_time_is_gone() {
    let (mut scene, client, target) = scene_with_client().await;
    let id = client.id.clone();
    drop(client);
    let begun = Instant::now();
    let close = scene.link.close().await;
    assert!((14..=16).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let cause = cause_of(&close);
    assert_eq!((close.connection_id.as_ref(), cause.as_deref()), (id.as_str(), Some("socket_ended")));
    assert_eq!(Client::upgrade(&scene.fixture, &target).await.err(), Some(404));
    assert_eq!(scene.fixture.shared.counters()[0].replay_bytes.get(), 0);
}

#[tokio::test(crate = "paused")]
async fn a_newer_socket_takes_the_place_of_an_older_one() {
    let (mut scene, mut first, target) = scene_with_client().await;
    let id = first.id.clone();
    let (mut second, begin) = scene.come_back(&target).await;
    assert_eq!((begin, first.next().await), (sequence(1), Received::End(None)));
    let (mut third, begin) = scene.come_back(&target).await;
    assert_eq!((begin, second.next().await), (sequence(1), Received::End(None)));
    third.send(&(sequence(1) + "\u{1e}" + &cast("1"))).await;
    assert_eq!(scene.link.data().await.0, cast("1"));
    scene.link.write(&id, cast("a")).await;
    assert!([third.text().await, third.text().await].contains(&call("a")));
    scene.link.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_goodbye_ends_the_connection_immediately() {
    let mut scene = scene().await;
    for is_hub_close in [true, false] {
        let (mut client, target) = scene.connect().await;
        if is_hub_close {
            client.send("{\"type\":7}\u{1e}").await;
        }
        client.close().await;
        scene.link.close().await;
        assert_eq!(Client::upgrade(&scene.fixture, &target).await.err(), Some(404));
    }
}

#[tokio::test(crate = "paused")]
async fn no_client_resumes_a_connection_closed_by_its_app_server() {
    let mut scene = scene().await;
    for is_away in [false, true] {
        let (client, target) = scene.connect().await;
        let connection_id = client.id.as_str().into();
        let kept = (!is_away).then_some(client);
        scene.link.fence().await;
        let close = CloseConnection { connection_id, ..CloseConnection::default() };
        scene.link.send(ServiceMessage::CloseConnection(close)).await;
        scene.link.fence().await;
        assert_eq!(Client::upgrade(&scene.fixture, &target).await.err(), Some(404), "{}", kept.is_some());
    }
}

#[tokio::test(crate = "paused")]
async fn a_client_that_does_not_ask_for_it_is_an_ordinary_one() {
    let mut scene = scene().await;
    let (_, token) = negotiate(&scene.fixture, "/chat", "").await;
    let asked = scene.target().await;
    // Requested in one place only: by the handshake version, or by negotiate.
    for (target, handshake) in [(format!("/chat?id={token}"), STATEFUL_HANDSHAKE), (asked, JSON_HANDSHAKE)] {
        let mut client = Client::upgrade(&scene.fixture, &target).await.unwrap();
        client.send(handshake).await;
        client.accept(&mut scene.link).await;
        client.send(&cast("1")).await;
        assert_eq!(scene.link.data().await.0, cast("1"));
        drop(client);
        scene.link.close().await;
        assert_eq!(Client::upgrade(&scene.fixture, &target).await.err(), Some(404));
    }
}

#[tokio::test(crate = "paused")]
async fn a_client_whose_sequence_number_is_impossible_is_closed_with_an_error() {
    let mut scene = scene().await;
    for (number, error) in [
        ("2", "Sequence ID greater than amount of messages we've received."),
        ("0", "Sequence ID 0 is not allowed"),
        ("-1", "Expected 'sequenceId' to be of type Number."),
    ] {
        let (client, target) = scene.connect().await;
        drop(client);
        let (mut client, _) = scene.come_back(&target).await;
        client.send(&format!("{{\"type\":9,\"sequenceId\":{number}}}\u{1e}")).await;
        assert!(client.text().await.starts_with("{\"type\":7,\"error\":"));
        let close = scene.link.close().await;
        assert!(close.error.as_ref().unwrap().contains(error), "{close:?}");
        assert_eq!(Client::upgrade(&scene.fixture, &target).await.err(), Some(404));
    }
}

#[tokio::test(crate = "paused")]
async fn what_a_client_does_not_acknowledge_waits_and_then_flows() {
    let (mut scene, mut client, _) = scene_with_client().await;
    let large = call(&"x".repeat(BUFFER_BYTES));
    for text in [&large, &call("1"), &call("2")] {
        scene.link.write(&client.id, format!("{text}\u{1e}")).await;
    }
    scene.link.fence().await;
    assert_eq!(client.text().await, large);
    // sleep: advances paused time to prove that nothing else arrives
    let early = tokio::time::timeout(Duration::from_secs(10), client.next()).await;
    assert!(early.is_err(), "{early:?}");
    client.send(&(acknowledgement(1) + "\u{1e}")).await;
    assert_eq!([client.text().await, client.text().await], ["1", "2"].map(call));
}

#[tokio::test(crate = "paused")]
async fn a_disconnected_client_with_too_many_pending_bytes_is_closed_and_delays_no_other() {
    let outbox = OutboxLimits { client_bytes: 2_000, ..OutboxLimits::default() };
    let mut scene = scene_with(Fixture::with(Settings { outbox, ..settings() }, 1)).await;
    let (gone, target) = scene.connect().await;
    let (mut other, _) = scene.connect().await;
    let gone_id = gone.id.clone();
    drop(gone);
    scene.link.fence().await;
    let text = call(&"y".repeat(400));
    for _ in 0..9 {
        scene.link.send(broadcast(&text)).await;
        assert_eq!(other.text().await, text);
        other.send(&(acknowledgement(u64::MAX) + "\u{1e}")).await;
    }
    let close = scene.link.close().await;
    assert_eq!(close.connection_id, gone_id);
    assert!(close.error.unwrap().contains("--outbox-max-bytes"));
    assert_eq!(Client::upgrade(&scene.fixture, &target).await.err(), Some(404));
}

#[tokio::test(crate = "paused")]
async fn the_first_messages_wait_for_the_first_frame_of_the_client_or_a_moment() {
    let mut scene = scene().await;
    for (is_stateful, pings, waits_ms) in [(true, false, 50), (true, true, 20), (false, false, 0)] {
        let (mut client, target) = match is_stateful {
            true => scene.connect().await,
            false => (Client::connect(&scene.fixture, &mut scene.link, "/chat").await, String::new()),
        };
        let (id, begun) = (client.id.clone(), Instant::now());
        scene.link.write(&id, cast("a")).await;
        scene.link.send(broadcast(&call("b"))).await;
        scene.link.write(&id, cast("c")).await;
        if pings {
            // sleep: advances paused time to prove that nothing arrives unprompted
            let early = tokio::time::timeout(Duration::from_millis(20), client.next()).await;
            assert!(early.is_err(), "{early:?}");
            client.send(&format!("{PING}\u{1e}")).await;
        }
        for text in ["a", "b", "c"] {
            assert_eq!(client.text().await, call(text));
        }
        // Timers have millisecond resolution.
        let waited_ms = begun.elapsed().as_millis();
        assert!((waits_ms..=waits_ms + 1).contains(&waited_ms), "{waited_ms} {target}");
        scene.link.write(&id, cast("d")).await;
        assert_eq!(client.text().await, call("d"));
        assert_eq!(begun.elapsed().as_millis(), waited_ms, "once only");
        client.close().await;
        scene.link.close().await;
    }
    assert_eq!(scene.fixture.shared.counters()[0].replay_bytes.get(), 0);
}

#[tokio::test(crate = "paused")]
async fn what_waits_for_the_first_frame_of_a_client_comes_before_a_goodbye_and_after_a_lost_socket() {
    let (mut scene, mut client, _) = scene_with_client().await;
    scene.link.write(&client.id, cast("a")).await;
    scene.link.write(&client.id, "{\"type\":7}\u{1e}").await;
    let close = CloseConnection { connection_id: client.id.as_str().into(), ..CloseConnection::default() };
    scene.link.send(ServiceMessage::CloseConnection(close)).await;
    assert_eq!([client.text().await, client.text().await], [call("a"), "{\"type\":7}".into()]);
    let (mut client, _) = scene.connect().await;
    scene.link.write(&client.id, cast("b")).await;
    scene.link.fence().await;
    let state = &scene.fixture.shared;
    state.shards()[0].give(vec![ShardCommand::Drain(Duration::ZERO)], 0).await;
    assert_eq!(client.text().await, call("b"), "before the node has closed the link");
    let mut scene = scene_with(Fixture::start()).await;
    let (client, target) = scene.connect().await;
    scene.link.write(&client.id, cast("c")).await;
    scene.link.fence().await;
    drop(client);
    let (mut client, begin) = scene.come_back(&target).await;
    assert_eq!((begin, client.text().await), (sequence(1), call("c")));
}

#[tokio::test(crate = "paused")]
async fn bytes_of_several_messages_in_one_frame_are_counted_one_by_one() {
    let (mut scene, mut client, target) = scene_with_client().await;
    let id = client.id.clone();
    scene.link.send(data_for(&id, cast("a") + "{\"type\":6}\u{1e}" + &cast("b"))).await;
    scene.link.write(&id, cast("c")).await;
    assert_eq!([client.text().await, client.text().await, client.text().await], ["a", "b", "c"].map(call));
    client.send(&(acknowledgement(2) + "\u{1e}" + &cast("1"))).await;
    scene.link.data().await;
    drop(client);
    let (mut client, begin) = scene.come_back(&target).await;
    assert_eq!((begin, client.text().await), (sequence(3), call("c")));
}

#[tokio::test(crate = "paused")]
async fn a_websocket_ping_is_answered_immediately_and_ends_no_hold() {
    let (scene, mut client, _) = scene_with_client().await;
    let begun = Instant::now();
    scene.link.write(&client.id, cast("a")).await;
    client.write(Message::Ping("p".into())).await;
    assert_eq!(client.frames(1).await, [Message::Pong("p".into())]);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(client.text().await, call("a"));
    assert!((50..=51).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}

#[tokio::test(crate = "paused")]
async fn a_mark_is_confirmed_over_a_later_socket() {
    const TEXTS: usize = 200;
    let (mut scene, client, target) = scene_with_client().await;
    let (id, text) = (client.id.clone(), call(&"y".repeat(1000)));
    for _ in 0..TEXTS {
        scene.link.write(&id, text.clone() + "\u{1e}").await;
    }
    let mark = DownMark { connection_id: id.as_str().into(), number: 1 };
    scene.link.send(ServiceMessage::DownMark(mark.clone())).await;
    scene.link.fence().await;
    drop(client);
    scene.link.fence().await;
    let (mut client, begin) = scene.come_back(&target).await;
    client.send(&(begin.clone() + "\u{1e}")).await;
    for number in 1..=TEXTS as u64 {
        assert_eq!(client.text().await, text);
        client.send(&(acknowledgement(number) + "\u{1e}")).await;
    }
    assert_eq!(scene.link.next().await, ServiceMessage::DownDone(mark));
}

#[tokio::test(crate = "paused")]
async fn what_waits_for_an_acknowledgement_comes_before_a_close() {
    for closes in ["message", "order"] {
        let (scene, mut client, _) = scene_with_client().await;
        let large = call(&"x".repeat(BUFFER_BYTES));
        for text in [&large, &call("1"), &call("2")] {
            scene.link.write(&client.id, format!("{text}\u{1e}")).await;
        }
        if closes == "message" {
            scene.link.write(&client.id, "{\"type\":7}\u{1e}").await;
        } else {
            let close = CloseConnection { connection_id: client.id.as_str().into(), ..CloseConnection::default() };
            scene.link.send(ServiceMessage::CloseConnection(close)).await;
        }
        for text in [large, call("1"), call("2")] {
            assert_eq!(client.text().await, text, "{closes}");
        }
        match closes {
            "message" => assert_eq!(client.text().await, "{\"type\":7}"),
            _ => assert_eq!(client.next().await, Received::End(Some(1000))),
        }
    }
}

#[tokio::test(crate = "paused")]
async fn without_other_nodes_a_drain_cuts_no_client_in_a_call() {
    let (mut scene, mut client, _) = scene_with_client().await;
    client.send(CALL).await;
    scene.link.data().await;
    assert_eq!(client.text().await, acknowledgement(1));
    scene.fixture.shared.shards()[0].give(vec![ShardCommand::Drain(Duration::from_secs(25))], 0).await;
    // sleep: advances paused time until the drain has reached the client
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.link.write(&client.id, ANSWER).await;
    for text in [ANSWER, LEAVE] {
        assert_eq!(client.text().await, text.trim_end_matches('\u{1e}'));
    }
    assert_eq!(client.next().await, Received::End(Some(1000)));
}
