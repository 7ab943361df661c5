//! Tests of the test kit that involve several parts: admission, client results, fleets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::{ConnectInfo, State};
use axum::http::header::SET_COOKIE;
use axum::response::IntoResponse;
use http::{HeaderMap, StatusCode, Uri};
use tokio::sync::mpsc;

use super::*;
use crate::{Cancellation, Context, HubError, Negotiation, Rehomed, User};

/// Accepts clients with a session, and redirects distant clients.
async fn decide(
    user: Option<User>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<impl IntoResponse, (StatusCode, String)> {
    let negotiation = match headers.get("cookie").and_then(|cookie| cookie.to_str().ok()) {
        _ if address.ip().to_string() == "10.0.0.1" => {
            Negotiation::redirect("https://eu.example/club").access_token("t")
        }
        Some("session=ann") => Negotiation::user("ann").claim("role", "member"),
        Some("session=gone") => return Err((StatusCode::FORBIDDEN, format!("no session for {uri}"))),
        _ => Negotiation::new().claim("known", user.map(|user| user.id().to_owned()).unwrap_or_default()),
    };
    Ok(([(SET_COOKIE, "seen=1")], negotiation))
}

async fn who(ctx: Context) -> (Option<String>, Vec<(String, String)>) {
    let claims = ctx.claims().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    (ctx.user_id().map(str::to_owned), claims)
}

fn club() -> TestServer {
    let hub = Hub::new("/Club").require_authentication().on_negotiate(decide).method("Who", who);
    TestServer::new(hub).unwrap()
}

type Who = (Option<String>, Vec<(String, String)>);

fn pairs(claims: &[(&str, &str)]) -> Vec<(String, String)> {
    claims.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_negotiation_names_the_user_and_its_headers_reach_the_client() {
    let server = club();
    let connect = server.connect("/club").negotiate().user("bob").claim("role", "cook");
    let mut ann = connect.header("cookie", "session=ann").await.unwrap();
    let seen: Who = ann.invoke("Who", ()).await.unwrap();
    assert_eq!(seen, (Some("ann".into()), pairs(&[("role", "member")])), "the token's claims don't count");
    assert_eq!(ann.negotiate_headers().get(SET_COOKIE).unwrap(), "seen=1");
    ann.refresh([("role", "owner")]).await;
    assert_eq!(ann.invoke::<Who>("Who", ()).await.unwrap(), (Some("ann".into()), pairs(&[("role", "owner")])));
    let mut bob = server.connect("/club").negotiate().user("bob").claim("role", "cook").await.unwrap();
    let seen: Who = bob.invoke("Who", ()).await.unwrap();
    assert_eq!(seen, (Some("bob".into()), pairs(&[("role", "cook"), ("known", "bob")])));
}

#[tokio::test]
async fn a_negotiation_refuses_and_redirects() {
    let server = club();
    let refused = server.connect("/club").negotiate().header("cookie", "session=gone").query("a=1").await.unwrap_err();
    let body = "no session for /Club/negotiate?a=1&negotiateVersion=1".to_owned();
    assert_eq!(refused, ConnectError::Denied { status: StatusCode::FORBIDDEN, body });
    let redirected = server.connect("/club").negotiate().remote_addr(([10, 0, 0, 1], 1).into()).await.unwrap_err();
    let url = "https://eu.example/club".to_owned();
    assert_eq!(redirected, ConnectError::Redirected { url, access_token: Some("t".into()) });
}

#[tokio::test]
async fn a_client_without_a_user_is_refused_where_one_is_required() {
    let server = club();
    let unknown = ConnectError::Denied { status: StatusCode::UNAUTHORIZED, body: String::new() };
    assert_eq!(server.connect("/club").await.unwrap_err(), unknown);
    assert_eq!(server.connect("/club").negotiate().await.unwrap_err(), unknown);
    server.connect("/club").user("ann").await.unwrap();
}

#[tokio::test]
async fn access_tokens_are_verified_by_the_keys_of_the_server() {
    let server = club();
    let token = server.handle().token("ann").claim("role", "cook").sign().unwrap();
    let mut ann = server.connect("/club").access_token(&token).await.unwrap();
    let (user, claims): Who = ann.invoke("Who", ()).await.unwrap();
    assert_eq!(user.as_deref(), Some("ann"));
    assert!(claims.contains(&("role".into(), "cook".into())), "{claims:?}");
    let refused = server.connect("/club").access_token("rubbish").await.unwrap_err();
    assert!(matches!(refused, ConnectError::Denied { status: StatusCode::UNAUTHORIZED, .. }), "{refused}");
    // A token that only the app understands.
    server.connect("/club").negotiate().access_token("rubbish").header("cookie", "session=ann").await.unwrap();
}

async fn delete(ctx: Context, note: u32) -> Result<bool, HubError> {
    Ok(ctx.clients().caller().invoke("Confirm", (note,)).await?)
}

fn notes() -> Hub {
    Hub::new("/notes")
        .method("Delete", delete)
        .method("Ask", async |ctx: Context, id: String| {
            Ok::<u32, HubError>(ctx.clients().client(id).invoke("Q", ()).await?)
        })
        .method("Wait", async |cancelled: Cancellation| cancelled.cancelled().await)
        .method("Tell", async |ctx: Context| Ok::<_, HubError>(ctx.clients().all().send("Told", (1,)).await.map(drop)?))
}

#[tokio::test]
async fn a_method_may_invoke_its_own_caller() {
    let server = TestServer::new(notes()).unwrap();
    for connect in [server.connect("/notes"), server.connect("/notes").messagepack()] {
        let mut ann = connect.await.unwrap();
        let call = ann.begin("Delete", (7,)).await.unwrap();
        let question = ann.next().await.unwrap();
        assert_eq!(question.arguments::<(u32,)>(), Ok((7,)));
        ann.answer(&question, true).await.unwrap();
        assert_eq!(call.result::<bool>().await, Ok(true));
        let call = ann.begin("Delete", (7,)).await.unwrap();
        let question = ann.next().await.unwrap();
        ann.refuse(&question, "never").await.unwrap();
        assert!(call.result::<bool>().await.unwrap_err().to_string().contains("never"));
        let call = ann.begin("Wait", ()).await.unwrap();
        call.cancel().await;
        assert_eq!(call.result::<()>().await, Ok(()));
    }
}

#[tokio::test]
async fn prepared_answers_are_sent_and_plain_sends_are_received() {
    let server = TestServer::new(notes()).unwrap();
    let mut ann = server.connect("/notes").await.unwrap();
    ann.on("confirm", |(note,): (u32,)| note == 7);
    assert_eq!(ann.invoke("Delete", (7,)).await, Ok(true));
    assert_eq!(ann.invoke("Delete", (8,)).await, Ok(false));
    let told = Arc::new(AtomicU32::new(0));
    let heard = Arc::clone(&told);
    ann.on("Told", move |(number,): (u32,)| {
        heard.fetch_add(number, Ordering::Relaxed);
    });
    ann.invoke::<()>("Tell", ()).await.unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 1);
    ann.on("Confirm", |(_,): (String,)| true);
    assert!(ann.invoke::<bool>("Delete", (7,)).await.is_err(), "the argument is no text");
    ann.on("Confirm", |(_,): (u32,)| -> bool { panic!("on purpose") });
    assert!(ann.invoke::<bool>("Delete", (7,)).await.unwrap_err().to_string().contains("panics"));
    assert!(ann.try_next().is_none());
}

#[tokio::test]
async fn streams_run_beside_calls() {
    let hub = Hub::new("/test")
        .method("Count", async |to: u32| futures_util::stream::iter(1..=to))
        .method("Add", async |a: u32, b: u32| a + b);
    let mut ann = TestServer::new(hub).unwrap().connect("/test").await.unwrap();
    let mut count = ann.stream::<u32>("Count", (2,)).await.unwrap();
    assert_eq!(ann.invoke("Add", (1, 2)).await, Ok(3));
    assert_eq!([count.next().await, count.next().await, count.next().await], [Some(Ok(1)), Some(Ok(2)), None]);
}

#[tokio::test]
async fn app_servers_of_a_fleet_share_their_clients() {
    let server = TestServer::fleet(notes, 2).unwrap();
    assert_ne!(server.handles()[0].instance(), server.handles()[1].instance());
    let mut ann = server.connect("/notes").await.unwrap();
    let mut bob = server.connect("/notes").at(1).await.unwrap();
    ann.invoke::<()>("Tell", ()).await.unwrap();
    assert_eq!(bob.expect::<(u32,)>("Told").await, (1,));
    bob.on("Q", |()| 42);
    assert_eq!(ann.invoke("Ask", (bob.connection_id(),)).await, Ok(42));
    ann.on("Q", |()| 43);
    assert_eq!(bob.invoke("Ask", (ann.connection_id(),)).await, Ok(43));
    let nobody = ann.invoke::<u32>("Ask", ("nobody",)).await.unwrap_err();
    assert!(matches!(nobody, CallError::Failed(_)), "{nobody}");
    assert_eq!(server.connect("/notes").at(2).await.unwrap_err(), ConnectError::NoServer(2));
}

/// Reports connection events with the app server on which they happen.
#[derive(Clone)]
struct Probe {
    server: usize,
    events: mpsc::UnboundedSender<(usize, String)>,
}

impl Probe {
    fn notify(&self, event: impl Into<String>) {
        let _ = self.events.send((self.server, event.into()));
    }
}

async fn rehomed(ctx: Context, moved: Rehomed, State(probe): State<Probe>) -> Result<(), HubError> {
    // sleep: on the paused clock; a hook takes time, and `rehome` waits for it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let name = moved.items::<String>()?;
    probe.notify(format!("rehomed {name:?}"));
    if name.as_deref() == Some("mallory") {
        return Err(HubError::new("not here"));
    }
    name.map(|name| ctx.items().insert(name));
    Ok(())
}

async fn leaving(ctx: Context, State(probe): State<Probe>) -> String {
    probe.notify("leaving");
    ctx.items().get().unwrap_or_default()
}

/// Two app servers, and the events on them.
fn fleet() -> (TestServer, mpsc::UnboundedReceiver<(usize, String)>) {
    let (events, received) = mpsc::unbounded_channel();
    let mut server = 0;
    let make = || {
        let probe = Probe { server, events: events.clone() };
        server += 1;
        Hub::new("/chat")
            .on_rehomed(rehomed)
            .on_leaving(leaving)
            .on_connected(async |State(probe): State<Probe>| probe.notify("connected"))
            .on_disconnected(async |State(probe): State<Probe>| probe.notify("disconnected"))
            .method("Rename", async |ctx: Context, name: String| drop(ctx.items().insert(name)))
            .method("Name", async |ctx: Context| ctx.items().get::<String>())
            .method("Join", async |ctx: Context| Ok::<_, HubError>(ctx.join("g").await?))
            .method("Confirm", async |ctx: Context| {
                Ok::<bool, HubError>(ctx.clients().caller().invoke("Confirm", ()).await?)
            })
            .method("Wait", async |cancelled: Cancellation, State(probe): State<Probe>| {
                probe.notify("waiting");
                cancelled.cancelled().await;
                probe.notify("cancelled");
            })
            .with_state(probe)
    };
    (TestServer::fleet(make, 2).unwrap(), received)
}

async fn next(events: &mut mpsc::UnboundedReceiver<(usize, String)>) -> (usize, String) {
    events.recv().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_client_is_reassigned_with_its_items_and_groups() {
    let (server, mut events) = fleet();
    let mut ann = server.connect("/chat").user("ann").await.unwrap();
    ann.invoke::<()>("Rename", ("ann",)).await.unwrap();
    ann.invoke::<()>("Join", ()).await.unwrap();
    server.rehome(&mut ann, Leaving::Gracefully).await.unwrap();
    assert_eq!(next(&mut events).await, (0, "connected".into()));
    assert_eq!(next(&mut events).await, (0, "leaving".into()));
    assert_eq!(next(&mut events).await, (1, "rehomed Some(\"ann\")".into()));
    assert_eq!(ann.invoke("Name", ()).await, Ok(Some("ann".to_owned())));
    let hub = server.handle().hub("/chat").unwrap();
    hub.clients().group("g").send("M", ()).await.unwrap();
    ann.expect::<()>("M").await;
    server.rehome(&mut ann, Leaving::Gracefully).await.unwrap();
    assert_eq!(next(&mut events).await, (1, "leaving".into()));
    assert_eq!(next(&mut events).await, (0, "rehomed Some(\"ann\")".into()));
    server.shutdown().await;
    assert_eq!(next(&mut events).await, (0, "disconnected".into()));
    assert!(events.try_recv().is_err(), "one connection, one end");
}

#[tokio::test(start_paused = true)]
async fn a_crash_takes_the_items_and_fails_the_calls() {
    let (server, mut events) = fleet();
    let mut ann = server.connect("/chat").await.unwrap();
    ann.invoke::<()>("Rename", ("ann",)).await.unwrap();
    let call = ann.begin("Wait", ()).await.unwrap();
    assert_eq!(next(&mut events).await, (0, "connected".into()));
    assert_eq!(next(&mut events).await, (0, "waiting".into()));
    server.rehome(&mut ann, Leaving::Crash).await.unwrap();
    assert_eq!(next(&mut events).await, (0, "cancelled".into()));
    assert_eq!(next(&mut events).await, (1, "rehomed None".into()));
    let lost = call.result::<()>().await.unwrap_err();
    assert!(lost.to_string().contains("Whether it was carried out is not known"), "{lost}");
    assert_eq!(ann.invoke("Name", ()).await, Ok(None::<String>));
    ann.disconnect().await;
    assert_eq!(next(&mut events).await, (1, "disconnected".into()));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_its_next_app_server_refuses_is_closed() {
    let (server, _events) = fleet();
    let mut mallory = server.connect("/chat").await.unwrap();
    mallory.invoke::<()>("Rename", ("mallory",)).await.unwrap();
    let refused = server.rehome(&mut mallory, Leaving::Gracefully).await.unwrap_err();
    assert!(matches!(&refused, RehomeError::Closed(Some(text)) if text.ends_with("not here")), "{refused}");
    assert!(matches!(server.rehome(&mut mallory, Leaving::Crash).await, Err(RehomeError::Closed(_))));
    let alone = TestServer::new(notes()).unwrap();
    let mut ann = alone.connect("/notes").await.unwrap();
    assert_eq!(alone.rehome(&mut ann, Leaving::Crash).await, Err(RehomeError::NoOther));
    assert_eq!(ann.invoke::<()>("Tell", ()).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_ends_keeps_its_client_from_leaving() {
    let (server, _events) = fleet();
    let mut ann = server.connect("/chat").await.unwrap();
    let call = ann.begin("Wait", ()).await.unwrap();
    assert_eq!(server.rehome(&mut ann, Leaving::Gracefully).await, Err(RehomeError::Timeout));
    drop(call);
}

/// Hub with presence hooks that write their notices to a channel, as words.
fn watched(words: &mpsc::UnboundedSender<String>) -> Hub {
    async fn online(user: crate::UserOnline, State(words): State<mpsc::UnboundedSender<String>>) {
        let _ = words.send(format!("{} online", user.user_id));
    }
    async fn offline(State(words): State<mpsc::UnboundedSender<String>>, user: crate::UserOffline, _: crate::Clients) {
        let _ = words.send(format!("{} offline", user.user_id));
    }
    async fn changed(
        change: crate::GroupChanged,
        hub: crate::HubHandle,
        State(words): State<mpsc::UnboundedSender<String>>,
    ) -> Result<(), HubError> {
        let (joined, left) = (change.joined.len(), change.left.len());
        let counted = *hub.groups().count(&change.group).await?;
        let _ = words.send(format!("{} +{joined} -{left} ={} {counted}", change.group, change.count));
        Err(HubError::new("an error is only logged"))
    }
    Hub::new("/rooms")
        .method("Enter", async |ctx: Context, room: String| -> Result<(), HubError> { Ok(ctx.join(room).await?) })
        .method("Online", async |ctx: Context, user: String| -> Result<(bool, u64, usize), HubError> {
            let users = ctx.users();
            let connections = users.connections(&user).page_size(1).all().await?.len();
            Ok((*users.online(&user).await?, *users.count(&user).await?, connections))
        })
        .on_user_online(online)
        .on_user_offline(offline)
        .on_group_changed(changed)
        .with_state(words.clone())
}

#[tokio::test(start_paused = true)]
async fn one_app_server_of_a_fleet_runs_presence_hooks_for_test_clients() {
    let (words, mut told) = mpsc::unbounded_channel();
    let server = TestServer::fleet(|| watched(&words), 3).unwrap();
    let mut first = server.connect("/rooms").user("ann").await.unwrap();
    assert_eq!(told.recv().await.unwrap(), "ann online");
    let mut second = server.connect("/rooms").user("ann").at(1).await.unwrap();
    first.invoke::<()>("Enter", ("kitchen",)).await.unwrap();
    assert_eq!(told.recv().await.unwrap(), "kitchen +1 -0 =1 1");
    assert_eq!(first.invoke::<(bool, u64, usize)>("Online", ("ann",)).await.unwrap(), (true, 2, 2));
    assert_eq!(first.invoke::<(bool, u64, usize)>("Online", ("bob",)).await.unwrap(), (false, 0, 0));
    first.disconnect().await;
    assert_eq!(told.recv().await.unwrap(), "kitchen +0 -1 =0 0");
    let left_at = tokio::time::Instant::now();
    second.disconnect().await;
    assert_eq!(told.recv().await.unwrap(), "ann offline");
    assert!(left_at.elapsed() >= Duration::from_secs(5), "within the grace she may come back");
    assert!(told.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_crashed_app_server_leaves_its_notices_to_others() {
    let (words, mut told) = mpsc::unbounded_channel();
    let server = TestServer::fleet(|| watched(&words), 2).unwrap();
    let mut ann = server.connect("/rooms").user("ann").at(1).await.unwrap();
    assert_eq!(told.recv().await.unwrap(), "ann online");
    server.handles()[0].shutdown().await;
    ann.disconnect().await;
    while told.recv().await.unwrap() != "ann offline" {}
}

/// Hub with hooks and methods that hang depending on the client's user, and a channel for events.
fn hanging(events: &mpsc::UnboundedSender<String>) -> Hub {
    type Events = State<mpsc::UnboundedSender<String>>;
    async fn online(user: crate::UserOnline, State(events): Events) {
        let _ = events.send(format!("{} online", user.user_id));
        if user.user_id.starts_with("hang") {
            std::future::pending::<()>().await;
        }
    }
    async fn connected(ctx: Context) {
        if ctx.user_id() == Some("stuck") {
            std::future::pending::<()>().await;
        }
    }
    async fn disconnected(ctx: Context, State(events): Events) {
        let _ = events.send(format!("{} left", ctx.user_id().unwrap_or_default()));
        if ctx.user_id() == Some("bye") {
            std::future::pending::<()>().await;
        }
    }
    Hub::new("/hang")
        .on_user_online(online)
        .on_connected(connected)
        .on_disconnected(disconnected)
        // sleep: the method takes as long as its caller requests, in paused time
        .method("Wait", async |seconds: u64| tokio::time::sleep(Duration::from_secs(seconds)).await)
        .with_state(events.clone())
}

#[tokio::test(start_paused = true)]
async fn hooks_of_presence_that_do_not_return_stop_no_others_and_are_ended() {
    let (events, mut told) = mpsc::unbounded_channel();
    let server = TestServer::new(hanging(&events)).unwrap();
    let mut clients = Vec::new();
    let began = tokio::time::Instant::now();
    for number in 0..63 {
        clients.push(server.connect("/hang").user(format!("hang {number}")).await.unwrap());
        assert_eq!(told.recv().await, Some(format!("hang {number} online")));
    }
    let hung_within = began.elapsed();
    clients.push(server.connect("/hang").user("ann").await.unwrap());
    clients.push(server.connect("/hang").user("hang 63").await.unwrap());
    assert_eq!(told.recv().await.unwrap(), "ann online");
    assert_eq!(told.recv().await.unwrap(), "hang 63 online");
    assert!(began.elapsed() - hung_within < Duration::from_secs(1));
    // All 64 workers are busy now, until the first hook is cancelled.
    clients.push(server.connect("/hang").user("bob").await.unwrap());
    assert_eq!(told.recv().await.unwrap(), "bob online");
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(59) && waited < Duration::from_secs(62), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_during_a_method_has_left_30_seconds_later_at_most() {
    let (events, mut told) = mpsc::unbounded_channel();
    let server = TestServer::new(hanging(&events)).unwrap();
    for (user, seconds, left_after) in [("ann", 6, 6), ("bob", 1000, 30)] {
        let mut client = server.connect("/hang").user(user).await.unwrap();
        assert_eq!(told.recv().await, Some(format!("{user} online")));
        let call = client.begin("Wait", (seconds,)).await.unwrap();
        let queued = client.begin("Wait", (seconds,)).await.unwrap();
        tokio::task::yield_now().await;
        let left_at = tokio::time::Instant::now();
        client.send("Wait", (seconds,)).await.unwrap();
        client.disconnect().await;
        assert_eq!(told.recv().await, Some(format!("{user} left")));
        let waited = left_at.elapsed().as_secs();
        // Ann's queued calls run as well.
        let expected = if user == "ann" { 3 * left_after } else { left_after };
        assert_eq!(waited, expected, "{user}");
        drop((call, queued));
    }
    // sleep: shows in paused time that nothing more happens
    tokio::time::sleep(Duration::from_secs(2000)).await;
    assert!(told.try_recv().is_err(), "on_disconnected runs once");
}

#[tokio::test(start_paused = true)]
async fn a_hook_of_a_connection_is_ended_at_its_deadline() {
    let (events, _told) = mpsc::unbounded_channel();
    let server = TestServer::new(hanging(&events).hook_timeout(Duration::from_secs(20))).unwrap();
    let began = tokio::time::Instant::now();
    let mut stuck = server.connect("/hang").user("stuck").await.unwrap();
    let error = stuck.closed().await;
    assert_eq!(began.elapsed().as_secs(), 20, "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_whatever_hooks_and_methods_do() {
    let (events, mut told) = mpsc::unbounded_channel();
    let server = TestServer::new(hanging(&events)).unwrap();
    let bye = server.connect("/hang").user("bye").await.unwrap();
    let mut hang = server.connect("/hang").user("hang").await.unwrap();
    assert_eq!(told.recv().await.unwrap(), "bye online");
    assert_eq!(told.recv().await.unwrap(), "hang online");
    let call = hang.begin("Wait", (1000,)).await.unwrap();
    let began = tokio::time::Instant::now();
    server.handle().shutdown().await;
    let took = began.elapsed();
    assert!(took <= Duration::from_secs(15), "{took:?}");
    let mut left = [told.recv().await.unwrap(), told.recv().await.unwrap()];
    left.sort();
    assert_eq!(left, ["bye left", "hang left"]);
    drop((bye, hang, call));
}
