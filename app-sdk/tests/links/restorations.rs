//! Tests of lost clients that reconnect: groups and items are back before `on_connected`, once, and only for their
//! owner.

use std::time::Duration;

use serde_json::json;
use trunkline::HubProtocol::Json;
use trunkline::{Context, Hub, HubError, Restored};
use trunkline_protocol::service::*;
use trunkline_protocol::wire::{CAUSE_HEADER, RESTORES_HEADER};

use crate::harness::{App, LinkRequest, ProxyLink, ScriptedClient};

/// Item that can be moved but is never cloned.
#[derive(Clone)]
struct Name(String);

async fn rename(ctx: Context, name: String) {
    ctx.items().insert(Name(name));
}

async fn name(ctx: Context) -> Option<String> {
    ctx.items().get().map(|Name(name)| name)
}

async fn greet(ctx: Context) -> Result<(), HubError> {
    Ok(ctx.clients().caller().send("Hello", (name(ctx.clone()).await,)).await.map(drop)?)
}

async fn restored(ctx: Context, restored: Restored) -> Result<(), HubError> {
    let told = (restored.connection_id(), restored.cause().label(), restored.gone_for().as_secs());
    Ok(ctx.clients().caller().send("Restored", told).await.map(drop)?)
}

fn hub(hub: Hub) -> Hub {
    hub.on_connected(greet).on_restored(restored).method("Rename", rename).method("Name", name)
}

async fn start() -> App {
    App::start_hub(|it| hub(it).restore_groups(Duration::from_secs(60))).await
}

fn opening(client: &ScriptedClient, restores: &str) -> ServiceMessage {
    let ServiceMessage::OpenConnection(mut open) = client.opening("") else { panic!() };
    open.headers.push((RESTORES_HEADER.into(), vec![restores.into()]));
    ServiceMessage::OpenConnection(open)
}

fn lost(id: &'static str, cause: &str) -> ServiceMessage {
    let headers = vec![(CAUSE_HEADER.into(), vec![cause.into()])];
    ServiceMessage::CloseConnection(CloseConnection { connection_id: id.into(), headers, ..Default::default() })
}

/// Reads a request to join a group, and acknowledges it. Returns connection and group.
async fn joined(link: &mut ProxyLink) -> (String, String) {
    let ServiceMessage::JoinGroupWithAck(join) = link.next().await else { panic!() };
    link.send(ServiceMessage::Ack(Ack { ack_id: join.ack_id, ..Ack::default() })).await;
    (join.connection_id.to_string(), join.group.unwrap().to_string())
}

/// Queries whether state of a connection is kept.
async fn is_kept(link: &mut ProxyLink, id: &str) -> bool {
    link.send(ServiceMessage::RestoreQuery(RestoreQuery {
        connection_id: id.into(),
        user_id: Some("ann".into()),
        query_id: 7,
    }))
    .await;
    match link.next().await {
        ServiceMessage::RestoreAnswer(RestoreAnswer { query_id: 7, is_kept }) => is_kept,
        other => panic!("{other:?}"),
    }
}

fn text(arguments: &[trunkline_protocol::hub::Payload]) -> serde_json::Value {
    arguments.iter().map(|it| Json.value::<serde_json::Value>(it).unwrap()).collect()
}

/// Opens a client that has a name, and is in the groups `own` and `given`.
async fn open_named(app: &mut App, link: &mut ProxyLink) -> ScriptedClient {
    let client = link.client("old", Json).await;
    assert_eq!(app.event().await, "connected old");
    assert_eq!(link.called("old").await.target, "Hello");
    link.call(&client, "Rename", "[\"ann\"]").await;
    for group in ["own", "left"] {
        link.send(client.call(Some("7"), "Join", &format!("[\"{group}\"]"))).await;
        assert_eq!(joined(link).await, ("old".into(), group.into()));
        link.data("old").await;
    }
    let change =
        |group: &'static str| GroupChange { connection_id: "old".into(), group: Some(group.into()), ack_id: 0 };
    link.send(ServiceMessage::JoinGroup(change("given"))).await;
    link.send(ServiceMessage::LeaveGroup(change("left"))).await;
    client
}

/// Opens a client that restores another one, and reads the response to its handshake.
async fn begin_anew(link: &mut ProxyLink, id: &'static str, restores: &str) -> ScriptedClient {
    let client = ScriptedClient { id, protocol: Json };
    link.send_all(&[opening(&client, restores), client.handshake()]).await;
    assert_eq!(link.data(id).await.payload, "{}\x1e");
    client
}

#[tokio::test]
async fn a_lost_client_has_its_groups_and_items_before_on_connected() {
    let mut app = start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    open_named(&mut app, &mut link).await;
    assert!(!is_kept(&mut link, "stranger").await);
    link.send(lost("old", "socket_ended")).await;
    assert_eq!(app.event().await, "disconnected old ");
    assert!(is_kept(&mut link, "old").await);
    let client = begin_anew(&mut link, "new", "old").await;
    for group in ["given", "own"] {
        assert_eq!(joined(&mut link).await, ("new".into(), group.into()));
    }
    let hello = link.called("new").await;
    assert_eq!((hello.target.as_ref() as &str, text(&hello.arguments)), ("Hello", json!(["ann"])));
    let told = link.called("new").await;
    assert_eq!((told.target.as_ref() as &str, text(&told.arguments)), ("Restored", json!(["old", "socket_ended", 0])));
    assert_eq!(app.event().await, "connected new");
    assert!(link.call(&client, "Name", "[]").await.contains("\"result\":\"ann\""));
    assert!(app.metric("trunkline_app_connections_restored_total{hub=\"test\"} 1"), "{}", app.handle.metrics_text());

    assert!(!is_kept(&mut link, "old").await, "it was moved");
    begin_anew(&mut link, "thief", "old").await;
    let hello = link.called("thief").await;
    assert_eq!(text(&hello.arguments), json!([null]));
    link.fence_quietly().await;
}

#[tokio::test]
async fn an_undetected_lost_connection_ends_when_its_client_reconnects() {
    let mut app = start().await;
    let (mut dead, mut link) = (ProxyLink::open(&app, "dead", 0).await, ProxyLink::open(&app, "a", 0).await);
    open_named(&mut app, &mut dead).await;
    dead.fence().await;
    assert!(is_kept(&mut link, "old").await, "it is open");
    begin_anew(&mut link, "new", "old").await;
    assert_eq!(app.event().await, "disconnected old ", "before the new one connects");
    joined(&mut link).await;
    joined(&mut link).await;
    assert_eq!(text(&link.called("new").await.arguments), json!(["ann"]));
    let told = text(&link.called("new").await.arguments);
    assert_eq!((&told[0], &told[1]), (&json!("old"), &json!("restored")));
    assert!((30..40).contains(&told[2].as_u64().unwrap()), "{told}: as long as a client may be silent");
    assert_eq!(app.event().await, "connected new");
    let ServiceMessage::ConnectionData(_) = dead.next().await else { panic!("a close message") };
    let ServiceMessage::CloseConnection(close) = dead.next().await else { panic!("a close") };
    assert_eq!(close.connection_id, "old", "whoever still has it there is told");
}

#[tokio::test]
async fn a_restoring_client_waits_for_methods_and_on_disconnected_of_the_lost_one() {
    let mut app = start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let client = open_named(&mut app, &mut link).await;
    link.send(client.call(None, "Block", "[1,\"\"]")).await;
    link.send(lost("old", "link_lost")).await;
    assert!(is_kept(&mut link, "old").await);
    begin_anew(&mut link, "new", "old").await;
    link.fence_quietly().await;
    app.gate.add_permits(1);
    assert_eq!(app.event().await, "unblocked 1");
    assert_eq!(app.event().await, "disconnected old ");
    joined(&mut link).await;
    joined(&mut link).await;
    assert_eq!(app.event().await, "connected new");
}

#[tokio::test]
async fn a_client_that_is_lost_again_before_it_is_connected_has_lost_nothing() {
    let mut app = start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    open_named(&mut app, &mut link).await;
    link.send(lost("old", "link_lost")).await;
    assert_eq!(app.event().await, "disconnected old ");
    begin_anew(&mut link, "new", "old").await;
    for _ in ["given", "own"] {
        let ServiceMessage::JoinGroupWithAck(_) = link.next().await else { panic!("a join, which nobody answers") };
    }
    link.send(lost("new", "link_lost")).await;
    assert!(is_kept(&mut link, "new").await);
    begin_anew(&mut link, "newer", "new").await;
    for group in ["given", "own"] {
        assert_eq!(joined(&mut link).await, ("newer".into(), group.into()));
    }
    assert_eq!(text(&link.called("newer").await.arguments), json!(["ann"]));
    for event in ["connected new", "disconnected new ", "connected newer"] {
        assert_eq!(app.event().await, event);
    }
}

#[tokio::test]
async fn nothing_is_kept_after_a_goodbye_for_another_user_or_without_the_opt_in() {
    let mut app = start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    open_named(&mut app, &mut link).await;
    let client = ScriptedClient { id: "bobs", protocol: Json };
    let ServiceMessage::OpenConnection(mut open) = opening(&client, "old") else { panic!() };
    open.claims = vec![("asrs.s.uid".into(), "bob".into())];
    link.send_all(&[ServiceMessage::OpenConnection(open), client.handshake()]).await;
    assert_eq!(app.event().await, "connected bobs");
    link.data("bobs").await;
    assert_eq!(text(&link.called("bobs").await.arguments), json!([null]));
    assert!(is_kept(&mut link, "old").await, "it is open still");
    link.send(lost("old", "client_closed")).await;
    assert_eq!(app.event().await, "disconnected old ");
    assert!(!is_kept(&mut link, "old").await);

    let mut app = App::start_hub(hub).await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    open_named(&mut app, &mut link).await;
    assert!(!is_kept(&mut link, "old").await);
    begin_anew(&mut link, "new", "old").await;
    assert_eq!(text(&link.called("new").await.arguments), json!([null]));
    assert_eq!(app.event().await, "connected new");
}

#[tokio::test]
async fn the_state_of_a_lost_client_is_dropped_after_its_retention() {
    let mut app = App::start_hub(|it| hub(it).restore_groups(Duration::from_secs(1))).await;
    let mut link = ProxyLink::open_as(&app, LinkRequest::of("a", 0)).await.0;
    link.fence().await;
    open_named(&mut app, &mut link).await;
    link.send(lost("old", "socket_ended")).await;
    assert_eq!(app.event().await, "disconnected old ");
    assert!(is_kept(&mut link, "old").await);
    while is_kept(&mut link, "old").await {
        // sleep: a second of the real clock passes for the client
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
