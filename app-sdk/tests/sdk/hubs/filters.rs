//! Tests of filters: their parameters, the calls that they see, and what they can change.

use axum::Extension;
use axum::extract::State;
use trunkline::{Context, Hub, HubCall, HubCallKind, HubError, Items, Methods, Next, Reply};

use super::{Journal, client, error};

async fn journal(State(journal): State<Journal>, ctx: Context, call: HubCall, next: Next) -> Result<Reply, HubError> {
    let (kind, method) = (call.kind(), call.method().to_owned());
    let reply = next.run(call).await;
    let outcome = reply.as_ref().err().map_or_else(|| "ok".to_owned(), |error| error.message().to_owned());
    journal.write(format!("{kind:?} {method} by {}: {outcome}", ctx.user_id().unwrap_or("nobody")));
    reply
}

async fn add(a: u32, b: u32) -> u32 {
    a + b
}

async fn fussy(items: Option<Refusing>) -> bool {
    items.is_none()
}

struct Refusing;

impl<S: Sync> trunkline::FromContext<S> for Refusing {
    async fn from_context(_ctx: &Context, _state: &S) -> Result<Self, HubError> {
        Err(HubError::new("not you"))
    }
}

#[tokio::test]
async fn calls_that_reach_no_method_pass_filters_as_errors() {
    let seen = Journal::default();
    let hub = Hub::new("/hub")
        .filter(journal)
        .method("Add", add)
        .method("Fussy", fussy)
        .method("Refuse", async |_: Refusing| ())
        .with_state(seen.clone());
    let (server, mut ann) = client(hub, "").await;
    assert_eq!(ann.invoke::<u32>("add", (1, 2)).await, Ok(3));
    assert!(ann.invoke::<bool>("Fussy", ()).await.unwrap());
    let unknown = error(&mut ann, "Nonsense", (1,)).await;
    assert_eq!(
        unknown,
        "Failed to invoke 'Nonsense' due to an error on the server. HubException: Method does not exist."
    );
    assert_eq!(error(&mut ann, "Add", (1,)).await, "Failed to invoke 'Add' due to an error on the server.");
    assert_eq!(error(&mut ann, "Add", (1, "x")).await, "Failed to invoke 'Add' due to an error on the server.");
    let refused = error(&mut ann, "Refuse", ()).await;
    assert_eq!(refused, "An unexpected error occurred invoking 'Refuse' on the server. HubException: not you");
    ann.disconnect().await;
    server.shutdown().await;
    assert_eq!(
        seen.take(),
        [
            "Connected on_connected by ann: ok",
            "Method Add by ann: ok",
            "Method Fussy by ann: ok",
            "Method Nonsense by ann: Method does not exist.",
            "Method Add by ann: Invocation provides 1 argument(s) but target expects 2.",
            "Method Add by ann: Error binding arguments. Make sure that the types of the provided values match the types of the hub method being invoked.",
            "Method Refuse by ann: not you",
            "Disconnected on_disconnected by ann: ok",
        ]
    );
}

#[tokio::test]
async fn filters_read_arguments_and_may_refuse_before_the_method() {
    async fn small(call: HubCall, next: Next) -> Result<Reply, HubError> {
        match call.argument::<u32>(0) {
            Some(Ok(number)) if number > 100 => Err(HubError::new(format!("{number} is too much"))),
            Some(Err(_)) => Err(HubError::new("a number, please")),
            _ if call.argument::<u32>(2).is_some() => Err(HubError::new("never")),
            _ => next.run(call).await,
        }
    }
    let (_server, mut ann) = client(Hub::new("/hub").method("Add", add).filter(small), "").await;
    assert_eq!(ann.invoke::<u32>("Add", (100, 1)).await, Ok(101));
    assert!(error(&mut ann, "Add", (101, 1)).await.ends_with("101 is too much"));
    assert!(error(&mut ann, "Add", ("x", 1)).await.ends_with("a number, please"));
}

#[tokio::test]
async fn a_filter_around_the_connect_hook_closes_clients() {
    async fn door(call: HubCall, next: Next) -> Result<Reply, HubError> {
        if call.kind() == HubCallKind::Connected && call.context().query().get("key").is_none() {
            return Err(HubError::new("no key"));
        }
        next.run(call).await
    }
    let seen = Journal::default();
    let welcome = async |State(seen): State<Journal>| seen.write("welcome");
    let hub = || Hub::new("/hub").filter(door).on_connected(welcome).with_state(seen.clone());
    let (_server, mut stranger) = client(hub(), "").await;
    assert!(stranger.closed().await.unwrap().ends_with("HubException: no key"));
    assert!(seen.take().is_empty());
    let (_server, mut guest) = client(hub(), "key=1").await;
    guest.invoke::<()>("Nothing", ()).await.unwrap_err();
    assert_eq!(seen.take(), ["welcome"]);
}

#[tokio::test]
async fn modules_have_filters_of_their_own_inside_those_of_the_hub() {
    fn named(name: &'static str) -> impl trunkline::Filter<Journal, FilterMarker> {
        move |State(journal): State<Journal>, call: HubCall, next: Next| async move {
            if call.kind() == HubCallKind::Method {
                journal.write(name);
            }
            next.run(call).await
        }
    }
    type FilterMarker = (trunkline::call::marker::ViaContext, State<Journal>);
    let inner = Methods::new().method("Inner", async || ()).filter(named("inner"));
    let outer = Methods::new().methods(inner).method("Outer", async || ()).filter(named("outer"));
    let seen = Journal::default();
    let hub =
        Hub::new("/hub").methods(outer).method("Plain", async || ()).filter(named("hub")).with_state(seen.clone());
    let (_server, mut ann) = client(hub, "").await;
    for (method, filters) in
        [("Inner", &["hub", "outer", "inner"][..]), ("Outer", &["hub", "outer"]), ("Plain", &["hub"])]
    {
        ann.invoke::<()>(method, ()).await.unwrap();
        assert_eq!(seen.take(), filters, "{method}");
    }
}

#[tokio::test]
async fn a_filter_gives_its_method_a_transaction() {
    #[derive(Clone)]
    struct Transaction(Journal);

    async fn transaction(State(journal): State<Journal>, call: HubCall, next: Next) -> Result<Reply, HubError> {
        call.insert(Transaction(journal.clone()));
        let reply = next.run(call).await;
        journal.write(if reply.is_ok() { "commit" } else { "roll back" });
        reply
    }

    let seen = Journal::default();
    let work = Methods::new()
        .method("Work", async |Extension(Transaction(journal)): Extension<Transaction>, fails: bool| {
            journal.write("work");
            if fails { Err(HubError::new("no")) } else { Ok(()) }
        })
        .filter(transaction);
    let hub =
        Hub::new("/hub").methods(work).method("Alone", async |_: Extension<Transaction>| ()).with_state(seen.clone());
    let (_server, mut ann) = client(hub, "").await;
    ann.invoke::<()>("Work", (false,)).await.unwrap();
    error(&mut ann, "Work", (true,)).await;
    assert_eq!(seen.take(), ["work", "commit", "work", "roll back"]);
    error(&mut ann, "Alone", ()).await;
}

#[tokio::test]
async fn a_filter_limits_nonsense_too() {
    #[derive(Clone)]
    struct Budget(u32);

    fn spend(items: &Items) -> bool {
        let Budget(left) = items.get().unwrap_or(Budget(2));
        items.insert(Budget(left.saturating_sub(1)));
        left > 0
    }

    async fn limit(ctx: Context, call: HubCall, next: Next) -> Result<Reply, HubError> {
        match call.kind() != HubCallKind::Method || spend(&ctx.items()) {
            true => next.run(call).await,
            false => Err(HubError::new("slow down")),
        }
    }

    let (_server, mut ann) = client(Hub::new("/hub").method("Add", add).filter(limit), "").await;
    assert!(error(&mut ann, "Nonsense", ()).await.ends_with("Method does not exist."));
    assert!(error(&mut ann, "Nonsense", ()).await.ends_with("Method does not exist."));
    assert!(error(&mut ann, "Add", (1, 2)).await.ends_with("slow down"));
}
