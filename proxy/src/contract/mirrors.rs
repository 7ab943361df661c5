//! Mirrors: copies of client messages, with all responses discarded.

use trunkline_protocol::manifest::MIGRATE_FROM_HEADER;
use trunkline_protocol::service::*;

use super::app::{broadcast, membership, to_group};
use super::client::Client;
use super::fixture::{Fixture, paused};
use super::hub_message::flow;
use super::scene::LinkedApp;

const RULES: &str = "[groups.audit]\nupstream = \"http://audit\"\n[[mirrors]]\nhub = \"/chat\"\ngroup = \"audit\"\n";

const CALL: &str = "{\"type\":1,\"invocationId\":\"1\",\"target\":\"Sum\",\"arguments\":[]}\u{1e}";

struct Scene {
    fixture: Fixture,
    primary: LinkedApp,
    mirror: LinkedApp,
    client: Client,
}

impl Scene {
    async fn with(rules: &str) -> Self {
        let fixture = Fixture::ruled(rules);
        let (mut primary, mut mirror) = (fixture.server("app").await, fixture.server_in("audit", "audit").await);
        let client = primary.client().await;
        let open = mirror.opening().await;
        assert_eq!(open.connection_id, client.id);
        assert!(open.headers.iter().all(|(name, _)| name != MIGRATE_FROM_HEADER));
        let (_, handshake) = mirror.data().await;
        assert_eq!(handshake.data_type, 1);
        Self { fixture, primary, mirror, client }
    }

    fn counted(&self) -> (u64, u64) {
        let counters = self.fixture.shared.hubs.rules().mirrors[0].counters.clone();
        (counters.sent.get(), counters.dropped.get())
    }
}

fn result(value: &str) -> String {
    format!("{{\"type\":3,\"invocationId\":\"1\",\"result\":{value}}}\u{1e}")
}

#[tokio::test(crate = "paused")]
async fn a_mirror_gets_what_a_client_sends_and_the_end_and_nothing_that_it_sends_arrives() {
    let mut scene = Scene::with(RULES).await;
    scene.client.send(CALL).await;
    assert!(scene.primary.data().await.0.contains("Sum"));
    assert!(scene.mirror.data().await.0.contains("Sum"));
    let id = scene.client.id.clone();
    scene.mirror.write(&id, "{}\u{1e}").await;
    scene.mirror.write(&id, result("7")).await;
    scene.mirror.send(broadcast("from the mirror")).await;
    scene.mirror.join(&id, "red").await;
    scene.mirror.send(ServiceMessage::JoinGroup(membership(&id, "red", 0))).await;
    scene.mirror.fence().await;
    scene.primary.send(to_group("red", "to the group")).await;
    scene.client.fence(&scene.primary).await;
    assert_eq!(scene.counted(), (1, 0));
    scene.client.close().await;
    assert_eq!(scene.primary.close().await.connection_id, id);
    assert_eq!(scene.mirror.close().await.connection_id, id);
}

#[tokio::test(crate = "paused")]
async fn a_mirror_that_invokes_a_client_gets_an_error_and_the_client_gets_nothing() {
    let mut scene = Scene::with(RULES).await;
    let request = ClientInvocation {
        invocation_id: "9".into(),
        connection_id: scene.client.id.as_str().into(),
        ..ClientInvocation::default()
    };
    scene.mirror.send(ServiceMessage::ClientInvocation(request)).await;
    match scene.mirror.next().await {
        ServiceMessage::ErrorCompletion(error) => assert!(error.error.contains("copies"), "{}", error.error),
        other => panic!("{other:?}"),
    }
    scene.client.fence(&scene.primary).await;
}

#[tokio::test(crate = "paused")]
async fn a_mirror_that_closes_a_connection_ends_its_copy_alone() {
    let mut scene = Scene::with(RULES).await;
    let close = CloseConnection { connection_id: scene.client.id.as_str().into(), ..CloseConnection::default() };
    scene.mirror.send(ServiceMessage::CloseConnection(close)).await;
    scene.mirror.fence().await;
    scene.client.send(CALL).await;
    scene.primary.data().await;
    scene.client.fence(&scene.primary).await;
    scene.mirror.fence().await;
    assert_eq!(scene.counted(), (0, 1));
}

#[tokio::test(crate = "paused")]
async fn a_mirror_that_sends_a_frame_which_it_must_not_send_closes_no_client() {
    let mut scene = Scene::with(RULES).await;
    let open = OpenConnection { connection_id: scene.client.id.as_str().into(), ..OpenConnection::default() };
    scene.mirror.send(ServiceMessage::OpenConnection(open)).await;
    scene.mirror.fence().await;
    scene.client.fence(&scene.primary).await;
}

#[tokio::test(crate = "paused")]
async fn a_mirror_that_pauses_or_is_gone_misses_messages_and_gets_the_later_ones() {
    let mut scene = Scene::with(RULES).await;
    let id = scene.client.id.clone();
    scene.mirror.send(flow(&id, FlowOperation::Pause)).await;
    scene.mirror.fence().await;
    scene.client.send(CALL).await;
    scene.primary.data().await;
    scene.mirror.send(flow(&id, FlowOperation::Resume)).await;
    scene.mirror.fence().await;
    scene.client.send(&CALL.replace("Sum", "Second")).await;
    assert!(scene.mirror.data().await.0.contains("Second"));
    scene.primary.data().await;
    scene.mirror.retire().await;
    scene.client.send(&CALL.replace("Sum", "Third")).await;
    assert!(scene.primary.data().await.0.contains("Third"));
    assert_eq!(scene.counted(), (1, 2));
    let mut next = scene.fixture.server_in("audit", "next").await;
    // sleep: paused time; the node searches for an app server once per tick
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    scene.client.send(&CALL.replace("Sum", "Fourth")).await;
    next.takes_over(&scene.client, "app").await;
    assert!(next.data().await.0.contains("Fourth"));
    assert_eq!(scene.counted(), (2, 2));
    assert!(scene.primary.data().await.0.contains("Fourth"));
}

#[tokio::test(crate = "paused")]
async fn a_frozen_mirror_delays_no_client() {
    let mut scene = Scene::with(RULES).await;
    scene.mirror.set_reading(false);
    let long = CALL.replace("[]", &format!("[\"{}\"]", "x".repeat(30_000)));
    for _ in 0..400 {
        scene.client.send(&long).await;
        scene.primary.data().await;
    }
    scene.client.fence(&scene.primary).await;
    let (sent, dropped) = scene.counted();
    assert!(sent + dropped == 400 && dropped > 100, "{sent} sent, {dropped} dropped");
}

#[tokio::test(crate = "paused")]
async fn a_mirror_gets_what_app_servers_call_at_the_client_if_it_is_told_to() {
    let mut scene = Scene::with(&format!("{RULES}down = true\n")).await;
    let id = scene.client.id.clone();
    scene.mirror.write(&id, "{}\u{1e}").await;
    let call = "{\"type\":1,\"target\":\"newMessage\",\"arguments\":[]}";
    scene.primary.send(broadcast(call)).await;
    assert_eq!(scene.client.text().await, call);
    assert!(scene.mirror.data().await.0.contains("newMessage"));
    scene.primary.write(&id, format!("{}\u{1e}", call.replace("new", "own"))).await;
    assert!(scene.mirror.data().await.0.contains("ownMessage"));
    scene.primary.write(&id, result("1")).await;
    scene.primary.fence().await;
    scene.mirror.fence().await;
    assert_eq!(scene.counted(), (2, 0), "an answer is no call");
}

#[tokio::test(crate = "paused")]
async fn a_mirror_begins_and_ends_with_the_rules() {
    let mut scene = Scene::with(RULES).await;
    scene.fixture.apply("[groups.audit]\nupstream = \"http://audit\"\n");
    assert_eq!(scene.mirror.close().await.connection_id, scene.client.id);
    scene.client.send(CALL).await;
    scene.primary.data().await;
    scene.fixture.apply(RULES);
    let open = scene.mirror.opening().await;
    assert_eq!(open.connection_id, scene.client.id);
    scene.mirror.data().await;
    scene.client.send(CALL).await;
    assert!(scene.mirror.data().await.0.contains("Sum"));
}
