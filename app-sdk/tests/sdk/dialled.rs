//! Tests of an app server that dials a scripted service: server connections, clients, shutdown.

mod negotiation;
mod service;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use http::StatusCode;
use tokio::sync::{Semaphore, mpsc};
use trunkline::{
    BuildError, CloseReason, Context, Hub, HubError, NotAcknowledged, NotAcknowledgedReason, Server, ServerHandle,
};
use trunkline_protocol::access_token::{AccessTokenError, verify};
use trunkline_protocol::key::{AccessKey, AccessKeys};
use trunkline_protocol::service::*;
use trunkline_protocol::unix_time::unix_seconds;

use service::{KEY, ServerConnection, Service, Welcome, in_time};

/// State of the hub under test.
#[derive(Clone)]
struct Probe {
    events: mpsc::UnboundedSender<String>,
    /// Gate of `Block`, which takes a permit.
    gate: Arc<Semaphore>,
}

struct App {
    handle: ServerHandle,
    router: Router,
    gate: Arc<Semaphore>,
    events: mpsc::UnboundedReceiver<String>,
}

async fn connected(ctx: Context, State(probe): State<Probe>) {
    probe.report("connected", &ctx, String::new());
}

async fn disconnected(ctx: Context, State(probe): State<Probe>, CloseReason(reason): CloseReason) {
    probe.report("disconnected", &ctx, reason.unwrap_or_default());
}

async fn rehomed(ctx: Context, State(probe): State<Probe>) {
    probe.report("rehomed", &ctx, String::new());
}

async fn block(State(probe): State<Probe>) -> &'static str {
    probe.gate.acquire().await.unwrap().forget();
    "done"
}

async fn who_am_i(ctx: Context) -> String {
    let claims: Vec<_> = ctx.claims().iter().map(|(name, value)| format!("{name}={value}")).collect();
    let headers: Vec<_> = ctx.headers().keys().map(ToString::to_string).collect();
    let (user, room) = (ctx.user_id().unwrap_or("nobody").to_owned(), ctx.query().get("room").map(str::to_owned));
    let address = ctx.remote_addr().map(|address| address.ip());
    format!("{user} {claims:?} {headers:?} {room:?} {address:?}")
}

async fn announce(ctx: Context) -> Result<(), HubError> {
    ctx.clients().caller().send("M", (1,)).await?;
    ctx.clients().all().send("M", (2,)).await?;
    ctx.clients().group("g").send("M", (3,)).await?;
    Ok(())
}

async fn join(ctx: Context, group: String) -> Result<(), HubError> {
    Ok(ctx.join(group).await?)
}

impl Probe {
    fn report(&self, event: &str, ctx: &Context, more: String) {
        let _ = self.events.send(format!("{event} {} {more}", ctx.connection_id()).trim_end().to_owned());
    }
}

impl App {
    fn start(service: &Service) -> Self {
        Self::start_with(service, |hub| hub)
    }

    fn start_with(service: &Service, hub_with: impl FnOnce(Hub) -> Hub) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let hub = Hub::new("/Test")
            .on_connected(connected)
            .on_disconnected(disconnected)
            .on_rehomed(rehomed)
            .method("Echo", async |text: String| text)
            .method("Block", block)
            .method("WhoAmI", who_am_i)
            .method("Announce", announce)
            .method("Join", join)
            .with_state(Probe { events: sender, gate: Arc::clone(&gate) });
        let server = Server::new().hub(hub_with(hub)).dial(service.connection_string());
        let handle = server.handle();
        Self { handle, router: server.into_router().unwrap(), gate, events }
    }

    async fn event(&mut self) -> String {
        in_time(self.events.recv()).await.unwrap()
    }
}

async fn service_and_app() -> (Service, App, [ServerConnection; 5]) {
    let mut service = Service::start().await;
    let app = App::start(&service);
    let connections = service.next_many().await;
    (service, app, connections)
}

fn target_ping(instance: &'static str) -> ServiceMessage {
    ServiceMessage::Ping(Ping { pairs: vec![("target".into(), instance.into())] })
}

fn close(id: &'static str, moves_to: Option<&'static str>) -> ServiceMessage {
    let headers = moves_to.map(|to| ("Asrs-Migrate-To".into(), vec![to.into()])).into_iter().collect();
    ServiceMessage::CloseConnection(CloseConnection { connection_id: id.into(), headers, ..CloseConnection::default() })
}

#[tokio::test]
async fn a_hub_opens_five_server_connections_as_azures_sdk_does() {
    let (_service, app, connections) = service_and_app().await;
    let keys = AccessKeys::new(vec![AccessKey::new(KEY).unwrap()]).unwrap();
    let now_s = unix_seconds(std::time::SystemTime::now());
    let mut ids: Vec<_> = connections.iter().filter_map(|connection| connection.query("cid")).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5, "each has an id of its own");
    for connection in &connections {
        assert_eq!((connection.uri.path(), connection.query("hub").as_deref()), ("/server/", Some("test")));
        assert_eq!(connection.headers["x-asrs-server-id"], app.handle.instance());
        let token = connection.headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
        assert_eq!(verify(token, &keys, now_s), Err(AccessTokenError::Audience), "it is signed, and no user's");
        let LinkHandshakeRequest { version, kind, migration_level, .. } = &connection.request;
        assert_eq!((*version, *kind, *migration_level), (1, LinkKind::Default, 1));
        assert!(!connection.request.allow_stateful_reconnects);
    }
}

#[tokio::test]
async fn a_service_is_notified_of_stateful_reconnect() {
    let mut service = Service::start().await;
    let _app = App::start_with(&service, |hub| hub.stateful_reconnect(true));
    let connections: [_; 5] = service.next_many().await;
    assert!(connections.iter().all(|connection| connection.request.allow_stateful_reconnects));
}

#[tokio::test]
async fn a_client_is_served_over_the_connection_that_opened_it() {
    let (_service, mut app, [mut first, mut second, ..]) = service_and_app().await;
    second.open_new("c1").await;
    assert_eq!(app.event().await, "connected c1");
    second.call("c1", "1", "Echo", "[\"hello\"]").await;
    assert_eq!(second.result("c1", "1").await, "hello");
    second.call("c1", "2", "Join", "[\"g\"]").await;
    let ServiceMessage::JoinGroupWithAck(joined) = second.next().await else { panic!("a join") };
    assert_eq!((&*joined.connection_id, joined.group.as_deref()), ("c1", Some("g")));
    second.send(ServiceMessage::Ack(Ack { ack_id: joined.ack_id, ..Ack::default() })).await;
    assert!(second.result("c1", "2").await.is_null());
    second.send(close("c1", None)).await;
    assert_eq!(app.event().await, "disconnected c1");
    first.fence().await;
}

#[tokio::test]
async fn sends_of_a_call_use_its_clients_connection_and_a_broadcast_is_sent_once() {
    let (_service, app, mut connections) = service_and_app().await;
    for (connection, id) in connections.iter_mut().zip(["c0", "c1", "c2", "c3", "c4"]) {
        connection.open_new(id).await;
        connection.call(id, "1", "Announce", "[]").await;
        assert!(matches!(connection.next().await, ServiceMessage::MultiConnectionData(_)));
        assert!(matches!(connection.next().await, ServiceMessage::BroadcastData(_)));
        assert!(matches!(connection.next().await, ServiceMessage::GroupBroadcastData(_)));
        connection.result(id, "1").await;
    }
    let sent = app.handle.hub("Test").unwrap().clients().all().send("M", (1,)).await.unwrap();
    assert_eq!(sent.proxies(), 1);
    in_time(app.handle.linked()).await;
    assert_eq!(app.handle.hub("Test").unwrap().proxies(), 1);
    let NotAcknowledged::Proxies(silent) = in_time(sent.acknowledged()).await.unwrap_err() else {
        panic!("it was sent")
    };
    assert_eq!(silent.iter().map(|(_, reason)| *reason).collect::<Vec<_>>(), [NotAcknowledgedReason::Service]);
    let mut broadcasts = 0;
    for connection in &mut connections {
        let echo = Ping { pairs: vec![("echo".into(), "2".into())] };
        connection.send(ServiceMessage::Ping(echo.clone())).await;
        loop {
            match connection.next_of_any_kind().await.unwrap() {
                ServiceMessage::Ping(ping) if ping == echo => break,
                ServiceMessage::Ping(_) => {}
                ServiceMessage::BroadcastData(_) => broadcasts += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(broadcasts, 1);
}

#[tokio::test]
async fn a_hub_sees_its_client_as_behind_a_proxy() {
    let (_service, _app, [mut connection, ..]) = service_and_app().await;
    connection
        .open("c1", &[("X-Forwarded-For", "10.1.2.3, 10.0.0.1"), ("Asrs-Instance-Id", "n1"), ("User-Agent", "me")])
        .await;
    connection.next_data("c1").await;
    connection.call("c1", "1", "WhoAmI", "[]").await;
    let expected = r#"ann ["role=cook", "iss=me"] ["x-forwarded-for", "user-agent"] Some("7") Some(10.1.2.3)"#;
    assert_eq!(connection.result("c1", "1").await, expected);
}

#[tokio::test]
async fn clients_are_pinged_because_a_service_does_not() {
    let mut service = Service::start().await;
    let _app = App::start_with(&service, |hub| hub.keep_alive_interval(Duration::from_millis(50)));
    let mut connection = service.next().await;
    connection.open_new("c1").await;
    for _ in 0..2 {
        let ping = connection.next_data("c1").await;
        assert_eq!((ping.data_type, &ping.payload[..]), (3, &b"{\"type\":6}\x1e"[..]));
    }
}

#[tokio::test]
async fn a_lost_connection_ends_its_clients_and_is_dialled_again() {
    let (mut service, mut app, [mut lost, mut other, ..]) = service_and_app().await;
    lost.open_new("c1").await;
    other.open_new("c2").await;
    assert_eq!((app.event().await, app.event().await), ("connected c1".into(), "connected c2".into()));
    drop(lost);
    assert_eq!(app.event().await, "disconnected c1 The link to the proxy was lost.");
    // The service moves the client. The handshake was answered before, so there is no second response.
    other.open("c1", &[("Asrs-Migrate-From", "this one")]).await;
    assert_eq!(app.event().await, "rehomed c1");
    other.call("c1", "1", "Echo", "[\"again\"]").await;
    assert_eq!(other.result("c1", "1").await, "again");
    let mut back = service.next().await;
    back.open_new("c3").await;
    assert_eq!(app.event().await, "connected c3");
}

#[tokio::test]
async fn a_client_moves_to_another_connection_without_its_hub_noticing() {
    let (_service, mut app, [mut old, mut new, ..]) = service_and_app().await;
    old.open_new("c1").await;
    assert_eq!(app.event().await, "connected c1");
    old.call("c1", "1", "Block", "[]").await;
    old.flow("c1", FlowOperation::Pause).await;
    let ServiceMessage::ConnectionFlowControl(answer) = old.next().await else { panic!("an answer") };
    assert_eq!((&*answer.connection_id, answer.operation), ("c1", FlowOperation::PauseAck));
    app.gate.add_permits(1);
    old.fence().await;
    new.flow("c1", FlowOperation::Resume).await;
    assert_eq!(new.result("c1", "1").await, "done");
    drop(old);
    new.call("c1", "2", "Echo", "[\"x\"]").await;
    assert_eq!(new.result("c1", "2").await, "x");
    new.send(close("c1", None)).await;
    assert_eq!(app.event().await, "disconnected c1", "and no other event");
}

#[tokio::test]
async fn an_instance_gets_a_connection_on_request_unless_it_refuses() {
    let (mut service, mut app, [mut first, ..]) = service_and_app().await;
    service.set_welcome(Welcome::Refuse("not this node"));
    first.send(target_ping("node 7")).await;
    assert!(service.next_refused().await.query().unwrap().ends_with("&target=node+7"));
    service.set_welcome(Welcome::Accept);
    first.send(target_ping("node 7")).await;
    let mut more = service.next().await;
    assert_eq!((more.query("target").as_deref(), more.request.kind), (Some("node 7"), LinkKind::OnDemand));
    assert_eq!(more.request.target, "");
    more.open_new("c1").await;
    assert_eq!(app.event().await, "connected c1");
    drop(more);
    assert!(app.event().await.starts_with("disconnected c1"));
    first.fence().await;
}

#[tokio::test]
async fn a_stopping_app_server_announces_it_and_its_clients_are_reassigned() {
    let (_service, mut app, mut connections) = service_and_app().await;
    connections[0].open_new("c1").await;
    assert_eq!(app.event().await, "connected c1");
    let handle = app.handle.clone();
    let stopping = tokio::spawn(async move { handle.shutdown().await });
    let [first, others @ ..] = &mut connections;
    first.ping("shutdown", "fin:1").await;
    first.send(ServiceMessage::Ping(Ping { pairs: vec![("shutdown".into(), "finack".into())] })).await;
    first.send(close("c1", Some("another"))).await;
    for connection in others {
        connection.ping("shutdown", "fin:1").await;
        let end = loop {
            if let Err(end) = connection.next_of_any_kind().await {
                break end;
            }
        };
        assert!(matches!(end, trunkline_link::LinkEnd::Closed), "its code is the normal one: {end:?}");
    }
    in_time(stopping).await.unwrap();
    assert!(app.events.try_recv().is_err(), "the hub is not told of a client that goes on");
}

#[tokio::test]
async fn a_call_that_runs_when_the_app_server_stops_is_answered_before_its_client_moves() {
    let (_service, mut app, [mut connection, ..]) = service_and_app().await;
    connection.open_new("c1").await;
    assert_eq!(app.event().await, "connected c1");
    connection.call("c1", "1", "Block", "[]").await;
    connection.fence().await;
    let handle = app.handle.clone();
    let stopping = tokio::spawn(async move { handle.shutdown().await });
    connection.ping("shutdown", "fin:1").await;
    // sleep: longer than the app server waits for clients without a call
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    connection.fence().await;
    app.gate.add_permits(1);
    assert_eq!(connection.result("c1", "1").await, "done");
    connection.send(close("c1", Some("another"))).await;
    in_time(stopping).await.unwrap();
    assert!(app.events.try_recv().is_err());
}

#[tokio::test]
async fn while_the_service_refuses_one_connection_tries_and_the_others_follow() {
    let mut service = Service::start().await;
    service.set_welcome(Welcome::Status(StatusCode::SERVICE_UNAVAILABLE, "later"));
    let _app = App::start(&service);
    for _ in 0..5 {
        service.next_refused().await;
    }
    service.next_refused().await;
    assert_eq!(service.refused_now(), 0, "one tries alone");
    service.set_welcome(Welcome::Accept);
    let _all: [ServerConnection; 5] = service.next_many().await;
}

#[tokio::test]
async fn mistakes_are_errors_of_the_router() {
    let error = |server: Server| server.into_router::<()>().unwrap_err();
    let wrong = error(Server::new().dial("Endpoint=proxy;AccessKey=0123456789abcdef"));
    assert!(matches!(&wrong, BuildError::ConnectionString(_)));
    assert!(wrong.to_string().contains("'Endpoint' of the connection string is 'proxy'"), "{wrong}");
    let place = "Endpoint=http://127.0.0.1:9;AccessKey=0123456789abcdef";
    assert!(matches!(error(Server::new().dial(place).dial(place)), BuildError::DuplicateService(_)));
    assert!(matches!(error(Server::new().dial(place).embedded()), BuildError::EmbeddedAndDialled));
    let parameter = Server::new().hub(Hub::new("/a/:b")).dial(place);
    assert!(matches!(error(parameter), BuildError::DialledPath(_)));
}

#[test]
fn a_router_that_dials_needs_a_runtime() {
    let place = "Endpoint=http://127.0.0.1:9;AccessKey=0123456789abcdef";
    assert!(matches!(Server::new().dial(place).into_router::<()>(), Err(BuildError::NoRuntime)));
}
