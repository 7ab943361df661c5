//! Tests of policies of hubs, modules and methods.

use std::sync::atomic::{AtomicU32, Ordering};

use trunkline::http::StatusCode;
use trunkline::testing::{ConnectError, TestServer};
use trunkline::{Hub, Methods, Negotiation, Policy};

use super::{client, error};

const UNAUTHORIZED: &str = "Failed to invoke 'Clear' because user is unauthorized";

fn admin() -> Methods {
    Methods::new()
        .method("Clear", async || "cleared")
        .guarded("Peek", never(), async || ())
        .require_claim("role", "admin")
}

fn never() -> Policy {
    Policy::new("never", |_| false)
}

#[tokio::test]
async fn methods_of_a_module_require_its_policies() {
    let (server, mut ann) = client(Hub::new("/hub").methods(admin()).method("Read", async || 1), "").await;
    assert_eq!(ann.invoke::<u32>("Read", ()).await, Ok(1));
    assert_eq!(error(&mut ann, "Clear", ()).await, UNAUTHORIZED);
    let mut root = server.connect("/hub").user("root").claim("role", "editor").claim("role", "admin").await.unwrap();
    assert_eq!(root.invoke::<String>("clear", ()).await.unwrap(), "cleared");
    assert!(error(&mut root, "Peek", ()).await.ends_with("because user is unauthorized"));
}

#[tokio::test]
async fn one_method_may_have_a_policy_and_policies_combine() {
    let staff = || Policy::any([Policy::claim("role", "admin"), Policy::claim("role", "editor")]);
    let hub = Hub::new("/hub")
        .guarded("Write", staff(), async || ())
        .guarded("Clear", staff().and(never()), async || ())
        .guarded("Sign", Policy::user(), async || ());
    let (server, mut ann) = client(hub, "").await;
    ann.invoke::<()>("Write", ()).await.unwrap();
    ann.invoke::<()>("Sign", ()).await.unwrap();
    assert_eq!(error(&mut ann, "Clear", ()).await, UNAUTHORIZED);
    let mut nobody = server.connect("/hub").await.unwrap();
    assert!(error(&mut nobody, "Write", ()).await.ends_with("because user is unauthorized"));
    assert!(error(&mut nobody, "Sign", ()).await.ends_with("because user is unauthorized"));
}

#[tokio::test]
async fn a_policy_of_the_hub_keeps_clients_out() {
    let hub = Hub::new("/hub").require_claim("role", "admin").on_connected(async || -> () { panic!("never called") });
    let server = TestServer::new(hub).unwrap();
    let refused = ConnectError::Denied { status: StatusCode::FORBIDDEN, body: String::new() };
    assert_eq!(server.connect("/hub").user("eve").await.unwrap_err(), refused);
    assert_eq!(server.connect("/hub").await.unwrap_err(), refused, "nobody is no admin, either");
    let detailed = Hub::new("/hub").require_claim("role", "admin").detailed_errors();
    let error = TestServer::new(detailed).unwrap().connect("/hub").await.unwrap_err().to_string();
    assert!(error.starts_with("403") && error.contains("claim role = admin"), "{error}");
}

#[tokio::test]
async fn a_policy_that_is_met_at_the_negotiation_only_closes_the_client() {
    let asked = AtomicU32::new(0);
    let first = Policy::new("the first time", move |ctx| {
        let is_first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        assert_eq!(ctx.query().get("room"), Some("kitchen"));
        is_first
    });
    let hub = Hub::new("/hub").require(first).on_connected(async || -> () { panic!("never called") });
    let server = TestServer::new(hub).unwrap();
    let mut eve = server.connect("/hub").query("room=kitchen").await.unwrap();
    assert_eq!(eve.closed().await.unwrap(), "Connection closed because user is unauthorized.");
    assert_eq!(eve.next().await.map(drop), None);
}

#[tokio::test]
async fn policies_see_the_user_admitted_by_on_negotiate() {
    let hub = || Hub::new("/hub").require_claim("role", "admin");
    let as_admin = async || Negotiation::user("ann").claim("role", "admin");
    let server = TestServer::new(hub().on_negotiate(as_admin)).unwrap();
    server.connect("/hub").negotiate().await.unwrap();
    let as_guest = async || Negotiation::user("ann");
    let server = TestServer::new(hub().on_negotiate(as_guest)).unwrap();
    let refused = server.connect("/hub").claim("role", "admin").negotiate().await;
    assert!(matches!(refused, Err(ConnectError::Denied { status: StatusCode::FORBIDDEN, .. })), "{refused:?}");
}

#[test]
fn permissions_are_listed_in_one_table() {
    let hub: Hub = Hub::new("/hub").require(Policy::user()).method("Read", async || ()).methods(admin());
    let table: Vec<_> = hub
        .policies()
        .map(|(method, policies)| {
            (method.to_owned(), policies.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        })
        .collect();
    let row = |method: &str, policies: &str| (method.to_owned(), policies.to_owned());
    let rows = [
        row("Read", "a user"),
        row("Clear", "a user; claim role = admin"),
        row("Peek", "a user; claim role = admin; never"),
    ];
    assert_eq!(table, rows);
}

#[tokio::test]
async fn a_panicking_policy_refuses_only_its_call() {
    let broken = Policy::new("broken", |_| panic!("a policy breaks"));
    let hub = Hub::new("/hub").guarded("Break", broken, async || ()).method("Read", async || 1);
    let (_server, mut ann) = client(hub, "").await;
    assert!(error(&mut ann, "Break", ()).await.starts_with("An unexpected error occurred"));
    assert_eq!(ann.invoke::<u32>("Read", ()).await, Ok(1));
}
