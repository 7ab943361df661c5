//! Message routes: app servers of several groups serve one connection, each with its own methods.

use trunkline_protocol::manifest::{HubManifest, ITEMS_HEADER, MIGRATE_FROM_HEADER, MIGRATE_TO_HEADER};
use trunkline_protocol::service::*;

use super::app::{AppLink, broadcast, json, to_group};
use super::client::{Client, Received};
use super::fixture::{Fixture, paused};
use super::hub_message::{call, cast, flow, handed_over, header, received, result, stopping};
use super::scene::{LinkedApp, took_about};

const RULES: &str = "
    [groups.admin]
    upstream = [\"http://admin\"]
    [groups.math]
    upstream = [\"http://math\"]
    [[messages]]
    hub = \"/chat\"
    target = \"Admin*\"
    group = \"admin\"
    [[messages]]
    hub = \"/chat\"
    target = [\"Sum\"]
    group = \"math\"
";

struct Scene {
    fixture: Fixture,
    home: LinkedApp,
}

fn manifest() -> HubManifest {
    HubManifest { stateful_reconnect_buffer_bytes: Some(1000), ..HubManifest::new("chat", "/chat") }
}

async fn scene() -> Scene {
    let fixture = Fixture::ruled(RULES);
    let home = fixture.server_with("home", manifest()).await;
    Scene { fixture, home }
}

impl Scene {
    async fn secondary(&self, group: &str, instance: &str) -> LinkedApp {
        self.fixture.server_of(group, instance, manifest()).await
    }

    async fn client(&mut self) -> Client {
        self.home.client().await
    }
}

/// Creates the scene with an app server of the group `math`, and a client.
async fn scene_with_math() -> (Scene, LinkedApp, Client) {
    let mut scene = scene().await;
    let math = scene.secondary("math", "math-1").await;
    let client = scene.client().await;
    (scene, math, client)
}

/// Accepts the first opening of a client at an app server of a group. The client does not see this handshake response.
async fn accept(link: &mut AppLink, client: &Client) {
    let open = link.opening().await;
    assert_eq!(open.connection_id, client.id);
    assert_eq!(header(&open.headers, MIGRATE_FROM_HEADER), None);
    assert_eq!(header(&open.headers, "x-app"), Some("kept"));
    let (handshake, data) = link.data().await;
    assert_eq!((handshake.as_str(), data.data_type), ("{\"protocol\":\"json\",\"version\":1}\u{1e}", 1));
    link.write(&client.id, "{}\u{1e}").await;
}

#[tokio::test(crate = "paused")]
async fn each_app_server_gets_its_methods_in_order_and_all_answers_come_back() {
    let mut scene = scene().await;
    let mut admin = scene.secondary("admin", "admin-1").await;
    let mut math = scene.secondary("math", "math-1").await;
    let mut client = scene.client().await;
    // The connection is opened at all app servers before the first call.
    accept(&mut math, &client).await;
    accept(&mut admin, &client).await;
    let messages =
        [cast("A"), call("1", "Sum"), cast("AdminX"), call("2", "AdminY"), cast("B"), call("3", "C"), cast("Sum")];
    client.send(&messages.concat()).await;
    assert_eq!(scene.home.data().await.0, cast("A"));
    assert_eq!(scene.home.data().await.0, cast("B") + &call("3", "C"));
    assert_eq!(math.data().await.0, call("1", "Sum"));
    assert_eq!(math.data().await.0, cast("Sum"));
    assert_eq!(admin.data().await.0, cast("AdminX") + &call("2", "AdminY"));
    for (link, id) in [(&admin, "2"), (&math, "1"), (&scene.home, "3")] {
        link.write(&client.id, result(id, "5")).await;
        assert_eq!(client.text().await, received(&result(id, "5")));
    }
    scene.home.join(&client.id, "red").await;
    math.send(to_group("red", "1")).await;
    admin.send(broadcast("2")).await;
    assert_eq!([client.text().await, client.text().await].map(|text| text.len()), [1, 1]);
    client.send(&call("4", "adminz")).await;
    assert_eq!(admin.data().await.0, call("4", "adminz"), "it is opened once");
    let id = client.id.clone();
    client.close().await;
    for link in [&mut scene.home, &mut admin, &mut math] {
        assert_eq!(link.close().await.connection_id, id);
        link.fence().await;
    }
}

#[tokio::test(crate = "paused")]
async fn what_belongs_to_a_call_goes_where_the_call_went() {
    let (mut scene, mut math, mut client) = scene_with_math().await;
    let upload = "{\"type\":4,\"invocationId\":\"1\",\"target\":\"Sum\",\"arguments\":[],\"streamIds\":[\"s\"]}\u{1e}";
    let item = |id: &str| format!("{{\"type\":2,\"invocationId\":\"{id}\",\"item\":1}}\u{1e}");
    let end = |id: &str| format!("{{\"type\":3,\"invocationId\":\"{id}\"}}\u{1e}");
    let cancel = |id: &str| format!("{{\"type\":5,\"invocationId\":\"{id}\"}}\u{1e}");
    client.send(&[upload, &item("t"), &item("s"), &end("s"), &end("s"), &cancel("1"), &cancel("2")].concat()).await;
    accept(&mut math, &client).await;
    assert_eq!(math.data().await.0, upload);
    assert_eq!(scene.home.data().await.0, item("t"));
    assert_eq!(math.data().await.0, item("s") + &end("s"));
    assert_eq!(scene.home.data().await.0, end("s"));
    assert_eq!(math.data().await.0, cancel("1"));
    assert_eq!(scene.home.data().await.0, cancel("2"));
}

#[tokio::test(crate = "paused")]
async fn a_result_that_a_secondary_asks_for_comes_back_to_it_once() {
    let (mut scene, mut math, mut client) = scene_with_math().await;
    client.send(&cast("Sum")).await;
    accept(&mut math, &client).await;
    math.data().await;
    let question = |number: &str, from: &'static str| {
        let invocation = format!("{{\"type\":1,\"invocationId\":\"{number}\",\"target\":\"Ask\",\"arguments\":[]}}");
        ServiceMessage::ClientInvocation(ClientInvocation {
            invocation_id: number.into(),
            connection_id: client.id.as_str().into(),
            caller_server_id: from.into(),
            payloads: json(&invocation),
        })
    };
    math.send(question("q-1", "math-1")).await;
    math.fence().await;
    scene.home.send(question("q-2", "home")).await;
    assert!(client.text().await.contains("q-1") && client.text().await.contains("q-2"));
    client.send(&(result("q-2", "2") + &result("q-1", "1") + &result("q-1", "3"))).await;
    assert_eq!(scene.home.data().await.0, result("q-2", "2"), "the home was not told of the other question");
    assert_eq!(math.data().await.0, result("q-1", "1"));
    assert_eq!(scene.home.data().await.0, result("q-1", "3"), "nobody waits for it any more");
    math.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_lost_secondary_fails_its_calls_alone_and_another_app_server_of_the_group_takes_over() {
    let (mut scene, mut first, mut client) = scene_with_math().await;
    client.send(&(call("1", "Sum") + &call("2", "A"))).await;
    accept(&mut first, &client).await;
    first.data().await;
    scene.home.data().await;
    first.fence().await;
    let mut second = scene.secondary("math", "math-2").await;
    first.retire().await;
    second.takes_over(&client, "math-1").await;
    let failed = client.text().await;
    assert!(
        failed.contains("\"invocationId\":\"1\",\"error\":\"The app server that ran this call is gone"),
        "{failed}"
    );
    client.send(&call("3", "Sum")).await;
    assert_eq!(second.data().await.0, call("3", "Sum"));
    second.write(&client.id, result("3", "3")).await;
    assert_eq!(client.text().await, received(&result("3", "3")));
    scene.home.write(&client.id, result("2", "2")).await;
    assert_eq!(client.text().await, received(&result("2", "2")));
}

#[tokio::test(crate = "paused")]
async fn while_a_group_has_no_app_server_its_messages_wait_in_order_and_the_home_is_heard() {
    let mut scene = scene().await;
    let mut client = scene.client().await;
    client.send(&(cast("A") + &cast("Sum") + &call("1", "Sum") + &cast("B"))).await;
    client.send(&(cast("C") + &cast("Sum"))).await;
    assert_eq!(scene.home.data().await.0, cast("A"));
    scene.home.fence().await;
    scene.home.write(&client.id, "\"down\"\u{1e}").await;
    assert_eq!(client.text().await, "\"down\"");
    let mut math = scene.secondary("math", "math-1").await;
    accept(&mut math, &client).await;
    assert_eq!(math.data().await.0, cast("Sum") + &call("1", "Sum"));
    assert_eq!(scene.home.data().await.0, cast("B") + &cast("C"));
    assert_eq!(math.data().await.0, cast("Sum"));
    math.write(&client.id, result("1", "1")).await;
    assert_eq!(client.text().await, received(&result("1", "1")));
}

#[tokio::test(crate = "paused")]
async fn messages_that_wait_arrive_though_their_client_has_closed_behind_them() {
    let mut scene = scene().await;
    let client = scene.client().await;
    let id = client.id.clone();
    let mut closing = client;
    closing.send(&cast("Sum")).await;
    let closed = tokio::task::spawn_local(closing.close());
    scene.home.fence().await;
    let mut math = scene.secondary("math", "math-1").await;
    math.opening().await;
    math.data().await;
    assert_eq!(math.data().await.0, cast("Sum"));
    assert_eq!(math.close().await.connection_id, id);
    assert_eq!(scene.home.close().await.connection_id, id);
    closed.await.unwrap();
}

#[tokio::test(crate = "paused")]
async fn calls_fail_when_no_app_server_of_their_group_comes_in_time_and_work_when_one_is_there() {
    let mut scene = scene().await;
    let mut client = scene.client().await;
    let hold_s = u64::from(scene.fixture.shared.settings.rehoming.hold_timeout_s);
    let begun = tokio::time::Instant::now();
    client.send(&(call("1", "Sum") + &cast("Sum") + &cast("A"))).await;
    let failed = client.text().await;
    let text = "No app server of the group 'math' could be reached in time: the method was not called.";
    assert_eq!(failed, format!("{{\"type\":3,\"invocationId\":\"1\",\"error\":\"{text}\"}}"));
    took_about(begun, hold_s);
    assert_eq!(scene.home.data().await.0, cast("A"));
    client.send(&call("2", "Sum")).await;
    assert!(client.text().await.contains(text));
    assert!(begun.elapsed().as_secs() <= hold_s + 2, "the next one does not wait");
    let mut math = scene.secondary("math", "math-1").await;
    accept(&mut math, &client).await;
    client.send(&call("3", "Sum")).await;
    assert_eq!(math.data().await.0, call("3", "Sum"));
}

#[tokio::test(crate = "paused")]
async fn an_app_server_of_a_group_that_leaves_hands_over_what_it_has_and_nothing_is_lost() {
    let (mut scene, mut first, mut client) = scene_with_math().await;
    client.send(&call("1", "Sum")).await;
    accept(&mut first, &client).await;
    first.data().await;
    let mut second = scene.secondary("math", "math-2").await;
    first.send(stopping()).await;
    assert_eq!(header(&first.close().await.headers, MIGRATE_TO_HEADER), Some(""));
    client.send(&(call("2", "Sum") + &cast("A"))).await;
    first.fence().await;
    scene.home.fence().await;
    first.send(flow(&client.id, FlowOperation::ReadOn)).await;
    assert_eq!(first.data().await.0, call("2", "Sum"), "what is waited for comes");
    assert_eq!(scene.home.data().await.0, cast("A"));
    first.send(flow(&client.id, FlowOperation::EndInput)).await;
    assert_eq!(header(&first.close().await.headers, MIGRATE_TO_HEADER), Some(""), "behind all that was sent");
    client.send(&cast("Sum")).await;
    first.fence().await;
    first.write(&client.id, result("1", "1") + &result("2", "2")).await;
    first.send(handed_over(&client.id, Some("the items"))).await;
    let open = second.takes_over(&client, "math-1").await;
    assert_eq!(header(&open.headers, ITEMS_HEADER), Some("the items"));
    assert_eq!(second.data().await.0, cast("Sum"));
    assert_eq!([client.text().await, client.text().await], ["1", "2"].map(|id| received(&result(id, id))));
    client.fence(&scene.home).await;
}

#[tokio::test(crate = "paused")]
async fn a_secondary_pauses_its_client_and_the_home_does_not_resume_it() {
    let (mut scene, mut math, mut client) = scene_with_math().await;
    client.send(&cast("Sum")).await;
    accept(&mut math, &client).await;
    math.data().await;
    math.send(flow(&client.id, FlowOperation::Pause)).await;
    math.fence().await;
    client.send(&(cast("Sum") + &cast("A"))).await;
    scene.home.send(flow(&client.id, FlowOperation::Resume)).await;
    scene.home.fence().await;
    math.fence().await;
    math.send(flow(&client.id, FlowOperation::Resume)).await;
    assert_eq!(math.data().await.0, cast("Sum"));
    assert_eq!(scene.home.data().await.0, cast("A"));
}

#[tokio::test(crate = "paused")]
async fn a_secondary_that_closes_the_connection_ends_it_everywhere() {
    let mut scene = scene().await;
    let mut math = scene.secondary("math", "math-1").await;
    let mut admin = scene.secondary("admin", "admin-1").await;
    let mut client = scene.client().await;
    client.send(&(cast("Sum") + &cast("Admin"))).await;
    accept(&mut math, &client).await;
    accept(&mut admin, &client).await;
    math.data().await;
    admin.data().await;
    math.write(&client.id, "{\"type\":7}\u{1e}").await;
    math.send(ServiceMessage::CloseConnection(CloseConnection {
        connection_id: client.id.as_str().into(),
        error: None,
        headers: Vec::new(),
    }))
    .await;
    assert_eq!(client.text().await, "{\"type\":7}");
    assert_eq!(client.next().await, Received::End(Some(1000)));
    assert_eq!(scene.home.close().await.connection_id, client.id);
    assert_eq!(admin.close().await.connection_id, client.id);
    math.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_secondary_that_refuses_the_connection_fails_its_calls_and_the_rest_goes_on() {
    let (mut scene, mut math, mut client) = scene_with_math().await;
    client.send(&(call("1", "Sum") + &cast("A"))).await;
    math.opening().await;
    math.data().await;
    math.data().await;
    math.write(&client.id, "{\"error\":\"not here\"}\u{1e}").await;
    let text = "The app server of the group 'math' has refused this connection: the method was not called.";
    assert_eq!(client.text().await, format!("{{\"type\":3,\"invocationId\":\"1\",\"error\":\"{text}\"}}"));
    client.send(&call("2", "Sum")).await;
    assert!(client.text().await.contains(text));
    assert_eq!(scene.home.data().await.0, cast("A"));
    client.fence(&scene.home).await;
    math.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_group_that_no_rule_names_any_more_is_left_when_its_calls_have_ended() {
    let (mut scene, mut math, mut client) = scene_with_math().await;
    client.send(&call("1", "Sum")).await;
    accept(&mut math, &client).await;
    math.data().await;
    scene.fixture.apply("");
    client.send(&cast("Sum")).await;
    assert_eq!(scene.home.data().await.0, cast("Sum"));
    client.send("{\"type\":5,\"invocationId\":\"1\"}\u{1e}").await;
    assert_eq!(math.data().await.0, "{\"type\":5,\"invocationId\":\"1\"}\u{1e}", "its call runs there still");
    // sleep: paused time; the shard checks the rules once a second
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    math.fence().await;
    math.write(&client.id, result("1", "1")).await;
    assert_eq!(client.text().await, received(&result("1", "1")));
    assert_eq!(math.close().await.connection_id, client.id);
    client.send(&cast("B")).await;
    assert_eq!(scene.home.data().await.0, cast("B"));
    client.fence(&scene.home).await;
}

#[tokio::test(crate = "paused")]
async fn a_client_that_comes_back_finds_its_secondaries_and_sends_again_what_has_waited() {
    let mut scene = scene().await;
    let mut math = scene.secondary("math", "math-1").await;
    let (mut client, target) = Client::connect_stateful(&scene.fixture, &mut scene.home, "/chat").await;
    client.send(&cast("Sum")).await;
    accept(&mut math, &client).await;
    math.data().await;
    math.fence().await;
    math.retire().await;
    client.send(&(cast("A") + &cast("Sum") + &cast("B"))).await;
    assert_eq!(scene.home.data().await.0, cast("A"));
    scene.home.fence().await;
    let id = client.id.clone();
    drop(client);
    let mut client = Client::upgrade(&scene.fixture, &target).await.unwrap();
    client.id = id;
    // The third message is held back, so only two are acknowledged.
    let acknowledged = loop {
        let text = client.text().await;
        if text.contains("\"type\":8") {
            break text;
        }
    };
    assert_eq!(acknowledged, "{\"type\":8,\"sequenceId\":2}");
    client.send(&("{\"type\":9,\"sequenceId\":3}\u{1e}".to_owned() + &cast("Sum") + &cast("B"))).await;
    let mut math = scene.secondary("math", "math-2").await;
    math.takes_over(&client, "math-1").await;
    assert_eq!(math.data().await.0, cast("Sum"));
    assert_eq!(scene.home.data().await.0, cast("B"));
}
