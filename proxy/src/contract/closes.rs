//! Closed connections: notifications to clients and app servers.

use trunkline_protocol::manifest::CAUSE_HEADER;
use trunkline_protocol::service::*;

use super::client::{Client, Received};
use super::fixture::{Fixture, paused, token_until};
use super::http::negotiate;
use super::scene::chat;
use crate::ground::clock::unix_seconds;

pub(super) fn cause_of(close: &CloseConnection) -> Option<String> {
    let header = close.headers.iter().find(|(name, _)| name == CAUSE_HEADER);
    header.and_then(|(_, values)| values.first()).map(ToString::to_string)
}

#[tokio::test(crate = "paused")]
async fn a_close_of_the_app_server_reaches_the_client_behind_what_was_sent_to_it() {
    let (_, mut link, mut client) = Fixture::start().with_client().await;
    link.write(&client.id, "\"last\"\u{1e}").await;
    let close = CloseConnection { connection_id: client.id.as_str().into(), ..CloseConnection::default() };
    link.send(ServiceMessage::CloseConnection(close)).await;
    assert_eq!(client.text().await, "\"last\"");
    assert_eq!(client.next().await, Received::End(Some(1000)));
    link.fence().await;
    // Sends no longer reach the connection.
    let gone = Check { subject: client.id.as_str().into(), ack_id: 3 };
    link.send(ServiceMessage::CheckConnectionExistenceWithAck(gone)).await;
    assert_eq!(link.ack().await, (3, AckStatus::NotFound));
}

#[tokio::test(crate = "paused")]
async fn a_client_that_closes_is_gone_once_with_its_cause() {
    let (fixture, mut link, client) = Fixture::start().with_client().await;
    let id = client.id.clone();
    client.close().await;
    let close = link.close().await;
    assert_eq!((close.connection_id.as_ref(), &close.error), (id.as_str(), &None));
    assert_eq!(cause_of(&close).as_deref(), Some("client_closed"));
    link.fence().await;
    assert_eq!(fixture.shared.sockets(), 0);
}

#[tokio::test(crate = "paused")]
async fn a_socket_that_ends_without_a_goodbye_is_an_end_too_and_gets_none() {
    let (_, mut link, mut client) = Fixture::start().with_client().await;
    link.write(&client.id, "\"last\"\u{1e}").await;
    link.fence().await;
    client.stop_sending().await;
    let close = link.close().await;
    let cause = cause_of(&close);
    assert_eq!((close.connection_id.as_ref(), cause.as_deref()), (client.id.as_str(), Some("socket_ended")));
    assert_eq!(client.text().await, "\"last\"");
    assert_eq!(client.next().await, Received::End(None));
}

#[tokio::test(crate = "paused")]
async fn a_hub_that_wants_it_closes_a_client_with_its_token() {
    let (fixture, mut link) = Fixture::start().with_app(chat(|hub| hub.close_on_token_expiry = true)).await;
    // Token expiry uses the system clock, which tests can't advance. This token has expired, but within the
    // tolerated clock skew.
    let target = format!("/chat?access_token={}", token_until("ann", unix_seconds() - 1));
    let mut client = Client::connect(&fixture, &mut link, &target).await;
    assert!(client.text().await.starts_with("{\"type\":7"));
    assert_eq!(cause_of(&link.close().await).as_deref(), Some("token_expired"));
}

#[tokio::test(crate = "paused")]
async fn why_a_connection_ended_is_remembered_by_its_id() {
    let (fixture, mut link) = Fixture::start().with_chat().await;
    let (id, token) = negotiate(&fixture, "/chat", "").await;
    let client = Client::connect(&fixture, &mut link, &format!("/chat?id={token}")).await;
    assert!(fixture.shared.past(&id).is_none());
    client.close().await;
    link.close().await;
    let past = fixture.shared.past(&id).expect("an end is remembered");
    assert_eq!(past.cause.label(), "client_closed");
    assert_eq!(past.hub.as_deref(), Some("chat"));
}
