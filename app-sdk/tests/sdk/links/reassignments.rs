//! Tests of reassigning connections: no hook sees a close or an open that the client did not see.

use trunkline::HubProtocol::Json;
use trunkline::{Context, Hub, HubError, Naming, Rehomed};
use trunkline_protocol::service::*;
use trunkline_protocol::wire::{ITEMS_HEADER, MANIFEST_PATH, MIGRATE_FROM_HEADER, MIGRATE_TO_HEADER};

use crate::harness::{App, KEY, ProxyLink, ScriptedClient};

#[derive(Clone)]
struct Name(String);

async fn rename(ctx: Context, name: String) {
    ctx.items().insert(Name(name));
}

async fn name(ctx: Context) -> Option<String> {
    ctx.items().get().map(|Name(name)| name)
}

async fn rehomed(ctx: Context, moved: Rehomed) -> Result<(), HubError> {
    if let Some(Some(name)) = moved.items::<Option<String>>()? {
        ctx.items().insert(Name(name));
    }
    ctx.clients().caller().send("Rehomed", (moved.from(), ctx.headers().len())).await?;
    Ok(())
}

fn hub(hub: Hub) -> Hub {
    hub.on_rehomed(rehomed).on_leaving(name).method("Rename", rename).method("Name", name)
}

async fn start() -> App {
    App::start_hub(hub).await
}

fn with_headers(client: &ScriptedClient, headers: &[(&'static str, &str)]) -> ServiceMessage {
    let ServiceMessage::OpenConnection(mut open) = client.opening("") else { panic!() };
    open.headers.extend(headers.iter().map(|(name, value)| ((*name).into(), vec![(*value).into()])));
    ServiceMessage::OpenConnection(open)
}

fn moved_to(client: &ScriptedClient, instance: &str) -> ServiceMessage {
    let headers = vec![(MIGRATE_TO_HEADER.into(), vec![instance.into()])];
    ServiceMessage::CloseConnection(CloseConnection { connection_id: client.id.into(), headers, ..Default::default() })
}

/// Reads the next frame, which must hand over a connection, and returns the items.
async fn given_away(link: &mut ProxyLink, client: &ScriptedClient) -> Option<String> {
    let ServiceMessage::CloseConnection(close) = link.next().await else { panic!() };
    assert_eq!(close.connection_id, client.id);
    let value =
        |wanted: &str| close.headers.iter().find(|(name, _)| name == wanted).map(|(_, values)| values[0].to_string());
    assert!(value(MIGRATE_TO_HEADER).is_some());
    value(ITEMS_HEADER)
}

#[tokio::test]
async fn a_reassigned_connection_gets_no_handshake_response_and_only_on_rehomed_runs() {
    let mut app = start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let client = ScriptedClient { id: "c1", protocol: Json };
    link.send_all(&[with_headers(&client, &[(MIGRATE_FROM_HEADER, "old")]), client.handshake()]).await;
    let rehomed = link.called("c1").await;
    assert_eq!(rehomed.target, "Rehomed");
    assert_eq!(Json.value::<String>(&rehomed.arguments[0]).unwrap(), "old");
    assert_eq!(Json.value::<usize>(&rehomed.arguments[1]).unwrap(), 0, "the app sees none of these headers");
    assert!(link.call(&client, "Name", "[]").await.contains("\"result\":null"));
    app.no_event().await;
    link.send(client.left(None)).await;
    assert_eq!(app.event().await, "disconnected c1 ", "its end is one");
}

#[tokio::test]
async fn items_go_from_one_app_server_to_the_next() {
    let (mut old, new) = (start().await, start().await);
    let mut link = ProxyLink::open(&old, "a", 0).await;
    let client = link.client("c1", Json).await;
    assert_eq!(old.event().await, "connected c1");
    link.call(&client, "Rename", "[\"ann\"]").await;
    link.send(moved_to(&client, "")).await;
    let items = given_away(&mut link, &client).await.unwrap();
    old.no_event().await;

    let mut link = ProxyLink::open(&new, "a", 0).await;
    let headers = [(MIGRATE_FROM_HEADER, old.handle.instance()), (ITEMS_HEADER, &items)];
    link.send_all(&[with_headers(&client, &headers), client.handshake()]).await;
    let rehomed = link.called("c1").await;
    assert_eq!(Json.value::<String>(&rehomed.arguments[0]).unwrap(), old.handle.instance());
    assert!(link.call(&client, "Name", "[]").await.contains("\"result\":\"ann\""));
}

#[tokio::test]
async fn items_have_serdes_names_for_any_naming_of_clients() {
    /// serde reads it from a buffer, without .NET names.
    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    #[serde(tag = "kind")]
    enum Place {
        Room { room_name: String },
    }
    async fn rehomed(ctx: Context, moved: Rehomed) -> Result<(), HubError> {
        ctx.clients().caller().send("Rehomed", (moved.items::<Place>()?,)).await?;
        Ok(())
    }
    let hub = |hub: Hub| {
        let leaving = async || Place::Room { room_name: "kitchen".into() };
        hub.naming(Naming::DotNet).on_leaving(leaving).on_rehomed(rehomed)
    };
    let app = App::start_hub(hub).await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let client = link.client("c1", Json).await;
    link.send(moved_to(&client, "")).await;
    let items = given_away(&mut link, &client).await.unwrap();
    let headers = [(MIGRATE_FROM_HEADER, "old"), (ITEMS_HEADER, &items)];
    link.send_all(&[with_headers(&client, &headers), client.handshake()]).await;
    let rehomed = link.called("c1").await;
    let sent: serde_json::Value = Json.value(&rehomed.arguments[0]).unwrap();
    assert_eq!(sent, serde_json::json!({ "kind": "Room", "roomName": "kitchen" }));
}

#[tokio::test]
async fn another_link_of_the_proxy_keeps_items_and_cancels_calls() {
    let mut app = start().await;
    let (mut first, mut second) = (ProxyLink::open(&app, "a", 0).await, ProxyLink::open(&app, "a", 1).await);
    let client = first.client("c1", Json).await;
    assert_eq!(app.event().await, "connected c1");
    first.call(&client, "Rename", "[\"ann\"]").await;
    first.send(client.call(Some("1"), "WaitForEnd", "[]")).await;
    assert_eq!(app.event().await, "waiting");
    let open = with_headers(&client, &[(MIGRATE_FROM_HEADER, app.handle.instance())]);
    second.send_all(&[open, client.handshake()]).await;
    assert_eq!(app.event().await, "cancelled");
    // All frames to clients use the send link: the greeting, and no result of the call.
    assert_eq!(first.called("c1").await.target, "Rehomed");
    second.send(client.call(Some("2"), "Name", "[]")).await;
    assert!(String::from_utf8_lossy(&first.data("c1").await.payload).contains("\"result\":\"ann\""));
    app.no_event().await;
}

#[tokio::test]
async fn a_connection_is_reassigned_after_its_calls() {
    let mut app = start().await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    assert_eq!(app.event().await, "connected c1");
    link.send_all(&[client.call(Some("1"), "Block", "[1,\"\"]"), moved_to(&client, "")]).await;
    link.fence().await;
    link.quiet().await;
    app.gate.add_permits(1);
    assert_eq!(link.json("c1").await["invocationId"], "1");
    given_away(&mut link, &client).await.unwrap();
    assert_eq!(app.event().await, "unblocked 1");
    app.no_event().await;
}

#[tokio::test]
async fn a_client_that_leaves_during_its_reassignment_is_disconnected() {
    let mut app = start().await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    assert_eq!(app.event().await, "connected c1");
    link.send_all(&[client.call(Some("1"), "Block", "[1,\"\"]"), moved_to(&client, ""), client.left(None)]).await;
    link.fence().await;
    app.gate.add_permits(1);
    assert_eq!(app.event().await, "unblocked 1");
    assert_eq!(app.event().await, "disconnected c1 ");
}

#[tokio::test]
async fn a_shutdown_hands_clients_to_proxies_and_waits_for_calls_until_its_deadline() {
    let mut app = App::start_with(hub, |server| server.shutdown_timeout(std::time::Duration::from_millis(200))).await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let (idle, busy) = (link.client("c1", Json).await, link.client("c2", Json).await);
    assert_eq!((app.event().await, app.event().await), ("connected c1".into(), "connected c2".into()));
    link.send(busy.call(Some("1"), "Block", "[1,\"\"]")).await;
    link.fence().await;
    let stopping = app.begin_shutdown();
    link.stop_of_app().await;
    let (status, _) = app.get(MANIFEST_PATH, KEY).await;
    assert_eq!(status, 503, "no proxy begins with it any more");
    link.send_all(&[moved_to(&idle, ""), moved_to(&busy, "")]).await;
    given_away(&mut link, &idle).await.unwrap();
    given_away(&mut link, &busy).await.unwrap();
    link.closed().await;
    app.gate.add_permits(1);
    stopping.await.unwrap();
    assert_eq!(app.event().await, "unblocked 1");
    app.no_event().await;
}
