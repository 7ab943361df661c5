//! Tests of reassigning clients of movable raw endpoints.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::task::JoinHandle;
use trunkline::{HubError, RawConnection, RawEndpoint};
use trunkline_protocol::service::*;
use trunkline_protocol::wire::{ENDED_HEADER, ITEMS_HEADER, MIGRATE_FROM_HEADER, MIGRATE_TO_HEADER};

use crate::harness::{App, LinkRequest, ProxyLink};

const ID: &str = "c1";

/// Echoes messages except commands, and hands over the number of messages.
async fn feed(mut client: RawConnection) -> Result<(), HubError> {
    let mut count: u32 = match client.rehomed() {
        Some(moved) => moved.items()?.unwrap_or_default(),
        None => 0,
    };
    while let Some(message) = client.recv().await {
        count += 1;
        match message.as_text() {
            Some("fail") => return Err(HubError::new("as told")),
            Some("quit") => return Ok(()),
            Some("stay") => client.cancellation().cancelled().await,
            Some("wait") => client.leaving().cancelled().await,
            Some("count") => client.send(count.to_string()).await?,
            Some("too much") => {
                let error = client.hand_over(&"x".repeat(16 * 1024)).unwrap_err();
                client.send(error.message()).await?;
            }
            _ => client.send(message).await?,
        }
    }
    if client.is_leaving() {
        client.hand_over(&count)?;
    }
    Ok(())
}

async fn start(is_movable: bool) -> (App, ProxyLink) {
    let endpoint = RawEndpoint::new("/feed", feed).movable(is_movable);
    let server = |server: trunkline::Server| server.shutdown_timeout(Duration::from_millis(300)).raw_endpoint(endpoint);
    let app = App::start_with(|hub| hub, server).await;
    let mut link = ProxyLink::open_as(&app, LinkRequest { hub: "feed", ..LinkRequest::of("a", 0) }).await.0;
    link.fence().await;
    (app, link)
}

fn opening(headers: &[(&'static str, &str)]) -> ServiceMessage {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), vec![(*value).into()])).collect();
    ServiceMessage::OpenConnection(OpenConnection { connection_id: ID.into(), headers, ..OpenConnection::default() })
}

fn text(payload: &'static str) -> ServiceMessage {
    let data_type = RawKind::Text.data_type();
    ServiceMessage::ConnectionData(ConnectionData {
        connection_id: ID.into(),
        payload: payload.into(),
        data_type,
        is_partial: false,
    })
}

fn reassign_request() -> ServiceMessage {
    let headers = vec![(MIGRATE_TO_HEADER.into(), vec!["".into()])];
    ServiceMessage::CloseConnection(CloseConnection { connection_id: ID.into(), headers, ..Default::default() })
}

/// Begins a shutdown, and requests the client behind these messages as a proxy does.
async fn stop(app: &App, link: &mut ProxyLink, last: &[ServiceMessage]) -> JoinHandle<()> {
    let stopping = app.begin_shutdown();
    link.stop_of_app().await;
    link.send_all(&[last, &[reassign_request()]].concat()).await;
    stopping
}

async fn received(link: &mut ProxyLink) -> String {
    String::from_utf8(link.data(ID).await.payload.to_vec()).unwrap()
}

/// Reads the next frame, which must close the connection. Returns its error, and its items if the connection is
/// handed over.
async fn end(link: &mut ProxyLink) -> (Option<String>, Option<Option<String>>) {
    let ServiceMessage::CloseConnection(close) = link.next().await else { panic!() };
    let value = |wanted: &str| {
        let found = close.headers.iter().find(|(name, _)| name == wanted);
        found.map(|(_, values)| values[0].to_string())
    };
    let items = || value(ITEMS_HEADER).map(|items| String::from_utf8(URL_SAFE_NO_PAD.decode(items).unwrap()).unwrap());
    (close.error.as_ref().map(ToString::to_string), value(MIGRATE_TO_HEADER).map(|_| items()))
}

#[tokio::test]
async fn a_raw_client_is_reassigned_behind_all_that_it_has_sent_and_got() {
    let (app, mut link) = start(true).await;
    link.send_all(&[opening(&[]), text("a")]).await;
    assert_eq!(received(&mut link).await, "a");
    let stopping = stop(&app, &mut link, &[text("b"), text("wait"), text("c")]).await;
    assert_eq!(received(&mut link).await, "b");
    assert_eq!(received(&mut link).await, "c");
    assert_eq!(end(&mut link).await, (None, Some(Some("4".into()))));
    link.closed().await;
    stopping.await.unwrap();
    assert!(app.metric("trunkline_app_connections{hub=\"feed\"} 0"), "{}", app.handle.metrics_text());
}

#[tokio::test]
async fn a_reassigned_raw_client_keeps_its_items() {
    let (app, mut link) = start(true).await;
    let items = URL_SAFE_NO_PAD.encode("41");
    link.send(opening(&[(MIGRATE_FROM_HEADER, "other"), (ITEMS_HEADER, &items)])).await;
    link.send(text("count")).await;
    assert_eq!(received(&mut link).await, "42");
    assert!(app.metric("trunkline_app_connections{hub=\"feed\"} 1"));
    assert!(app.metric("trunkline_app_connections_rehomed_total{hub=\"feed\"} 1"), "{}", app.handle.metrics_text());
}

#[tokio::test]
async fn a_handler_that_ends_its_connection_meanwhile_hands_nothing_over() {
    for (last, error) in [("quit", None), ("fail", Some("HubException: as told".to_owned()))] {
        let (app, mut link) = start(true).await;
        link.send(opening(&[])).await;
        let stopping = stop(&app, &mut link, &[text(last)]).await;
        assert_eq!(end(&mut link).await, (error, None));
        link.closed().await;
        stopping.await.unwrap();
    }
}

#[tokio::test]
async fn a_handler_that_does_not_end_in_time_keeps_its_client_to_the_end() {
    let (app, mut link) = start(true).await;
    link.send_all(&[opening(&[]), text("stay")]).await;
    let stopping = stop(&app, &mut link, &[]).await;
    link.closed().await;
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_raw_client_that_leaves_meanwhile_is_not_reassigned() {
    let (app, mut link) = start(true).await;
    link.send_all(&[opening(&[]), text("stay")]).await;
    let stopping = stop(&app, &mut link, &[]).await;
    let left = CloseConnection { connection_id: ID.into(), ..CloseConnection::default() };
    link.send(ServiceMessage::CloseConnection(left)).await;
    link.closed().await;
    stopping.await.unwrap();
}

#[tokio::test]
async fn items_that_can_not_go_along_are_refused_with_the_reason() {
    let (_app, mut link) = start(true).await;
    link.send_all(&[opening(&[]), text("too much")]).await;
    let reason = "the items have 16386 bytes, but a connection is handed over with at most 16384";
    assert_eq!(received(&mut link).await, reason);
    let (_app, mut link) = start(false).await;
    link.send_all(&[opening(&[]), text("too much")]).await;
    let reason = "clients of this raw endpoint can't be handed over: see RawEndpoint::movable";
    assert_eq!(received(&mut link).await, reason);
}

#[tokio::test]
async fn without_leave_to_move_a_raw_endpoint_announces_no_stop() {
    let (app, mut link) = start(false).await;
    link.send_all(&[opening(&[]), text("a")]).await;
    assert_eq!(received(&mut link).await, "a");
    let stopping = app.begin_shutdown();
    link.closed().await;
    stopping.await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_raw_client_between_two_app_servers_reaches_a_handler() {
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let tidy = move |mut client: RawConnection| {
        let ended = ended.clone();
        async move {
            let from = client.rehomed().map(|moved| moved.from().to_owned());
            let is_over = client.recv().await.is_none() && !client.is_leaving();
            ended.send((client.connection_id().to_owned(), from, is_over)).unwrap();
        }
    };
    let endpoint = RawEndpoint::new("/feed", tidy).movable(true);
    let app = App::start_with(|hub| hub, |server| server.raw_endpoint(endpoint)).await;
    let mut link = ProxyLink::open_as(&app, LinkRequest { hub: "feed", ..LinkRequest::of("a", 0) }).await.0;
    link.send(opening(&[(MIGRATE_FROM_HEADER, "other"), (ENDED_HEADER, "socket_ended")])).await;
    assert_eq!(ends.recv().await.unwrap(), (ID.into(), Some("other".into()), true));
    link.fence_quietly().await;
    assert!(app.metric("trunkline_app_connections{hub=\"feed\"} 0"));
}
