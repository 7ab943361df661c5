//! Reassignment of a connection to another app server: after a crash, and after a graceful stop.

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use trunkline_protocol::manifest::{ENDED_HEADER, HubManifest, ITEMS_HEADER, MIGRATE_TO_HEADER};
use trunkline_protocol::service::*;

use super::app::to_group;
use super::client::Received;
use super::fixture::{Fixture, paused};
use super::hub_message::{call, cast, flow, handed_over, header, result, stopping};
use super::scene::took_about;

const ITEMS: Option<&str> = Some("the items");

#[tokio::test(crate = "paused")]
async fn a_lost_home_is_replaced_pending_calls_fail_once_and_groups_stay() {
    let (fixture, mut first, mut client) = Fixture::start().with_client().await;
    let mut second = fixture.server("app-2").await;
    first.join(&client.id, "red").await;
    client.send(&call("7", "M")).await;
    first.data().await;
    first.retire().await;
    second.takes_over(&client, "app-1").await;
    let failed = client.text().await;
    assert!(failed.starts_with("{\"type\":3,\"invocationId\":\"7\",\"error\":"), "{failed}");
    second.send(to_group("red", "1")).await;
    assert_eq!(client.text().await, "1");
    client.send(&cast("N")).await;
    assert!(second.data().await.0.contains("\"N\""));
    client.fence(&second).await;
}

#[tokio::test(crate = "paused")]
async fn while_no_app_server_is_there_a_client_is_kept_unread_and_goes_on_when_one_comes() {
    let (fixture, mut first, mut client) = Fixture::start().with_client().await;
    first.retire().await;
    client.send(&cast("Late")).await;
    let mut second = fixture.server("app-2").await;
    second.takes_over(&client, "app-1").await;
    assert!(second.data().await.0.contains("Late"));
}

#[tokio::test(crate = "paused")]
async fn a_client_is_held_for_the_hold_timeout_and_then_asked_to_reconnect() {
    let (fixture, mut first, mut client) = Fixture::start().with_client().await;
    let hold_s = u64::from(fixture.shared.settings.rehoming.hold_timeout_s);
    first.retire().await;
    let begun = Instant::now();
    assert_eq!(client.text().await, "{\"type\":7,\"allowReconnect\":true}");
    took_about(begun, hold_s);
    assert_eq!(client.next().await, Received::End(Some(1000)));
}

#[tokio::test(crate = "paused")]
async fn an_app_server_that_leaves_hands_each_connection_over_with_its_items() {
    let (fixture, mut first, mut client) = Fixture::start().with_client().await;
    let mut second = fixture.server("app-2").await;
    client.send(&call("1", "Slow")).await;
    first.data().await;
    first.send(stopping()).await;
    first.is_asked_to_hand_over(&client).await;
    // The running call completes at the old app server; further messages of the client wait.
    client.send(&cast("Next")).await;
    first.fence().await;
    first.write(&client.id, result("1", "42")).await;
    first.send(handed_over(&client.id, ITEMS)).await;
    let open = second.takes_over(&client, "app-1").await;
    assert_eq!(header(&open.headers, ITEMS_HEADER), ITEMS);
    assert!(second.data().await.0.contains("Next"));
    assert_eq!(client.text().await, "{\"type\":3,\"invocationId\":\"1\",\"result\":42}");
    client.fence(&second).await;
    // New clients are not assigned to the stopping app server.
    for _ in 0..3 {
        second.client().await;
        assert!(matches!(second.next().await, ServiceMessage::CloseConnection(_)));
    }
}

#[tokio::test(crate = "paused")]
async fn a_returning_app_server_is_notified_of_clients_moved_meanwhile() {
    let (fixture, first, client) = Fixture::start().with_client().await;
    let mut second = fixture.server("app-2").await;
    // The link is lost, but the app server is alive.
    let mut one = first.cut();
    second.takes_over(&client, "app-1").await;
    let mut again = one.link().await;
    let told = again.close().await;
    assert_eq!(told.connection_id, client.id);
    assert_eq!(header(&told.headers, MIGRATE_TO_HEADER), Some("app-2"));
    again.fence().await;
}

#[tokio::test(crate = "paused")]
async fn the_close_of_a_client_without_an_app_server_is_sent_to_the_next_one_once() {
    let (fixture, mut first, mut client) = Fixture::start().with_client().await;
    first.retire().await;
    assert_eq!(client.text().await, "{\"type\":7,\"allowReconnect\":true}");
    let mut second = fixture.server("app-2").await;
    let told = second.is_given(&client, "app-1").await;
    assert_eq!(header(&told.headers, ENDED_HEADER), Some("no_app_server"));
    assert_eq!(header(&told.headers, "x-app"), Some("kept"));
    let mut third = fixture.server("app-3").await;
    second.fence().await;
    third.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_client_that_leaves_is_read_on_while_its_app_server_asks_for_it() {
    let (fixture, mut first, mut client) = Fixture::start().with_client().await;
    let mut second = fixture.server("app-2").await;
    first.send(stopping()).await;
    first.is_asked_to_hand_over(&client).await;
    client.send(&result("s1", "1")).await;
    first.fence().await;
    first.send(flow(&client.id, FlowOperation::ReadOn)).await;
    assert!(first.data().await.0.contains("\"s1\""), "the answer comes");
    first.send(flow(&client.id, FlowOperation::EndInput)).await;
    // The request comes behind everything that the client has sent.
    first.is_asked_to_hand_over(&client).await;
    client.send(&cast("Next")).await;
    first.fence().await;
    first.send(handed_over(&client.id, None)).await;
    second.takes_over(&client, "app-1").await;
    assert!(second.data().await.0.contains("Next"));
}

/// Raw endpoint with or without permission to move its clients.
fn feed(is_movable: bool) -> HubManifest {
    HubManifest { is_movable, ..HubManifest::raw("feed", "/feed") }
}

fn raw_data(id: &str, kind: RawKind, payload: &'static str) -> ServiceMessage {
    ServiceMessage::ConnectionData(ConnectionData {
        connection_id: id.into(),
        payload: payload.into(),
        data_type: kind.data_type(),
        is_partial: false,
    })
}

fn fragment(text: &'static str, code: Data, is_final: bool) -> Message {
    Message::Frame(Frame::message(text, OpCode::Data(code), is_final))
}

#[tokio::test(crate = "paused")]
async fn a_raw_client_continues_elsewhere_with_complete_messages_in_order() {
    let (fixture, mut first) = Fixture::start().with_app(feed(true)).await;
    let mut second = fixture.server_with("app-2", feed(true)).await;
    let mut client = first.client().await;
    client.send("up 1").await;
    client.write(fragment("up", Data::Text, false)).await;
    assert_eq!(first.data().await.0, "up 1");
    first.send(stopping()).await;
    first.is_asked_to_hand_over(&client).await;
    client.write(fragment(" 2", Data::Continue, true)).await;
    client.write(Message::binary("up 3")).await;
    first.fence().await;
    first.send(raw_data(&client.id, RawKind::Text, "down 1")).await;
    first.send(handed_over(&client.id, ITEMS)).await;
    let open = second.is_given(&client, "app-1").await;
    assert_eq!(header(&open.headers, ITEMS_HEADER), ITEMS);
    let (text, data) = second.data().await;
    assert_eq!((text.as_str(), data.data_type), ("up 2", RawKind::Text.data_type()), "cut in two, it is one");
    let (text, data) = second.data().await;
    assert_eq!((text.as_str(), data.data_type), ("up 3", RawKind::Binary.data_type()));
    first.send(raw_data(&client.id, RawKind::Text, "too late")).await;
    first.fence().await;
    second.send(raw_data(&client.id, RawKind::Binary, "down 2")).await;
    assert_eq!(client.next().await, Received::Text("down 1".into()));
    assert_eq!(client.next().await, Received::Binary("down 2".into()));
    // The end of its former app server does not affect the client.
    first.retire().await;
    client.send("up 4").await;
    assert_eq!(second.data().await.0, "up 4");
}

#[tokio::test(crate = "paused")]
async fn a_raw_client_that_was_handed_over_waits_for_an_app_server() {
    let (fixture, mut first) = Fixture::start().with_app(feed(true)).await;
    let mut client = first.client().await;
    first.send(stopping()).await;
    first.close().await;
    first.send(handed_over(&client.id, ITEMS)).await;
    first.fence().await;
    first.retire().await;
    client.send("up").await;
    let mut second = fixture.server_with("app-2", feed(true)).await;
    assert_eq!(header(&second.opening().await.headers, ITEMS_HEADER), ITEMS);
    assert_eq!(second.data().await.0, "up");
}

#[tokio::test(crate = "paused")]
async fn a_raw_client_is_closed_when_its_app_server_ends_without_handing_it_over() {
    for is_movable in [false, true] {
        let (fixture, mut first) = Fixture::start().with_app(feed(is_movable)).await;
        let mut second = fixture.server_with("app-2", feed(is_movable)).await;
        let mut client = first.client().await;
        if !is_movable {
            first.send(stopping()).await;
            first.fence().await;
        }
        first.retire().await;
        assert_eq!(client.next().await, Received::End(Some(1001)));
        second.fence().await;
    }
}

#[tokio::test(crate = "paused")]
async fn the_close_of_a_raw_client_between_two_app_servers_is_sent_to_the_next_one() {
    let (fixture, mut first) = Fixture::start().with_app(feed(true)).await;
    let mut client = first.client().await;
    first.send(stopping()).await;
    first.close().await;
    first.send(handed_over(&client.id, ITEMS)).await;
    first.fence().await;
    first.retire().await;
    // No app server connects in time.
    assert_eq!(client.next().await, Received::End(Some(1001)));
    let mut second = fixture.server_with("app-2", feed(true)).await;
    let told = second.is_given(&client, "app-1").await;
    assert_eq!(header(&told.headers, ENDED_HEADER), Some("no_app_server"));
    second.fence().await;
}
