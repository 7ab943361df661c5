//! Tests of connections that move between nodes: nothing is lost, duplicated or reordered, and the app does not
//! notice.

use std::pin::pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, poll, stream};
use serde_json::json;
use tokio::sync::Semaphore;
use trunkline::HubProtocol::Json;
use trunkline::{Clients, Hub, HubError, UploadStream};
use trunkline_protocol::service::*;
use trunkline_protocol::wire::MIGRATE_TO_HEADER;

use crate::harness::{App, LinkRequest, ProxyLink, ScriptedClient, json_of};

fn stateful(hub: Hub) -> Hub {
    hub.stateful_reconnect(true)
}

async fn start() -> App {
    App::start_hub(stateful).await
}

async fn open(app: &App, node: &'static str, slot: u32) -> ProxyLink {
    let mut link = ProxyLink::open_as(app, LinkRequest::that_moves(node, slot)).await.0;
    link.fence().await;
    link
}

/// Starts two nodes, with a client on the first one.
async fn start_with_client(app: &mut App) -> (ProxyLink, ProxyLink, ScriptedClient) {
    let (mut a, b) = (open(app, "a", 0).await, open(app, "b", 0).await);
    let client = a.client("c1", Json).await;
    assert_eq!(app.event().await, "connected c1");
    (a, b, client)
}

fn clients(app: &App) -> Clients {
    app.handle.hub("test").unwrap().clients()
}

fn flow(id: &'static str, operation: FlowOperation) -> ServiceMessage {
    let (connection_id, subject) = (id.into(), FlowSubject::Client);
    ServiceMessage::ConnectionFlowControl(ConnectionFlowControl { connection_id, subject, operation })
}

async fn pause(node: &mut ProxyLink) {
    node.send(flow("c1", FlowOperation::Pause)).await;
    assert_eq!(node.flow("c1").await, FlowOperation::PauseAck);
}

async fn resume(node: &mut ProxyLink) {
    node.send(flow("c1", FlowOperation::Resume)).await;
    node.fence_quietly().await;
}

/// Moves the client from one node to the other.
async fn move_client(a: &mut ProxyLink, b: &mut ProxyLink, epoch: i64) {
    pause(a).await;
    ask_to_move(a, epoch).await;
    resume(b).await;
}

async fn ask_to_move(a: &mut ProxyLink, epoch: i64) {
    let connection_id = "c1".into();
    a.send(ServiceMessage::MoveConnection(MoveConnection { connection_id })).await;
    assert_eq!(a.next().await, ServiceMessage::ConnectionMoved(ConnectionMoved { connection_id: "c1".into(), epoch }));
}

/// Reads a stamped send. Returns its epoch and its contents.
async fn stamped(link: &mut ProxyLink) -> (i64, ServiceMessage) {
    let ServiceMessage::Stamped(Stamped { epoch, body }) = link.next().await else { panic!() };
    (epoch, ServiceMessage::decode(&body).unwrap().unwrap())
}

fn number_in(data: &ConnectionData) -> u64 {
    json_of(data)["arguments"][0].as_u64().unwrap()
}

#[tokio::test]
async fn sends_before_a_move_are_plain_and_those_after_it_carry_its_epoch_in_every_copy() {
    let mut app = start().await;
    let (mut a, mut b, _client) = start_with_client(&mut app).await;
    let mut old = ProxyLink::open(&app, "old", 0).await;
    for epoch in 0..3 {
        let clients = clients(&app);
        clients.all().send("M", (epoch,)).await.unwrap();
        clients.clients(["c1", "stranger"]).send("M", (epoch,)).await.unwrap();
        let plain = [old.next().await, old.next().await];
        assert!(matches!(&plain[0], ServiceMessage::BroadcastData(_)));
        for link in [&mut a, &mut b] {
            match epoch {
                0 => {
                    assert_eq!(link.next().await, plain[0]);
                    assert!(matches!(link.next().await, ServiceMessage::MultiConnectionData(_)));
                }
                _ => {
                    assert_eq!(stamped(link).await, (epoch, plain[0].clone()));
                    assert_eq!(stamped(link).await, (epoch, plain[1].clone()));
                }
            }
        }
        ask_to_move(&mut a, epoch + 1).await;
    }
}

#[tokio::test]
async fn questions_to_a_client_elsewhere_are_stamped_too() {
    let app = start().await;
    let (mut a, mut b) = (open(&app, "a", 0).await, open(&app, "b", 0).await);
    ask_to_move(&mut a, 1).await;
    let stranger = clients(&app).client("stranger");
    let mut asking = pin!(stranger.invoke::<u8>("Ask", ()));
    assert!(poll!(asking.as_mut()).is_pending());
    let copies = [stamped(&mut a).await, stamped(&mut b).await];
    assert_eq!(copies[0], copies[1]);
    assert!(matches!(copies[0], (1, ServiceMessage::ClientInvocation(_))));
}

#[tokio::test]
async fn frames_for_one_client_wait_for_its_new_node_in_order() {
    let mut app = start().await;
    let (mut a, mut b, client) = start_with_client(&mut app).await;
    a.send(client.call(Some("1"), "Block", "[1,\"\"]")).await;
    clients(&app).client("c1").send("M", (0,)).await.unwrap();
    assert_eq!(number_in(&a.data("c1").await), 0);
    pause(&mut a).await;
    let clients = clients(&app);
    let mut sending = pin!(async {
        for n in 1..4 {
            clients.client("c1").send("M", (n,)).await.unwrap();
        }
    });
    assert!(poll!(sending.as_mut()).is_pending());
    clients.all().send("ToAll", ()).await.unwrap();
    assert!(matches!(a.next().await, ServiceMessage::BroadcastData(_)), "sends to many don't wait");
    assert!(matches!(b.next().await, ServiceMessage::BroadcastData(_)));
    ask_to_move(&mut a, 1).await;
    b.send(flow("c1", FlowOperation::Resume)).await;
    sending.await;
    for n in 1..4 {
        assert_eq!(number_in(&b.data("c1").await), n);
    }
    app.gate.add_permits(1);
    assert_eq!(app.event().await, "unblocked 1");
    assert_eq!(b.json("c1").await["invocationId"], "1", "its calls go on");
    assert!(b.call(&client, "Add", "[1,1]").await.contains("\"result\":2"));
    a.fence_quietly().await;
}

async fn sum(mut items: UploadStream<u32>) -> Result<u32, HubError> {
    let mut sum = 0;
    while let Some(item) = items.next().await {
        sum += item?;
    }
    Ok(sum)
}

/// Counts as far as it has permits.
async fn count(gate: Arc<Semaphore>) -> impl Stream<Item = u32> {
    stream::iter(0..3).then(move |n| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire_owned().await.unwrap().forget();
            n
        }
    })
}

#[tokio::test]
async fn uploads_streams_and_client_results_continue_at_the_new_node() {
    let gate = Arc::new(Semaphore::new(1));
    let counting = Arc::clone(&gate);
    let hub = |hub: Hub| {
        let count = move || count(Arc::clone(&counting));
        stateful(hub).method("Sum", sum).method("Count", count)
    };
    let mut app = App::start_hub(hub).await;
    let (mut a, mut b, client) = start_with_client(&mut app).await;
    let upload = json!({"type": 1, "invocationId": "1", "target": "Sum", "arguments": [], "streamIds": ["u"]});
    let item = |n: u32| json!({"type": 2, "invocationId": "u", "item": n});
    let stream = json!({"type": 4, "invocationId": "2", "target": "Count", "arguments": []});
    a.send_all(&[client.json(&upload), client.json(&item(40)), client.json(&stream)]).await;
    assert_eq!(a.json("c1").await, json!({"type": 2, "invocationId": "2", "item": 0}));
    let one = clients(&app).client("c1");
    let mut asking = pin!(one.invoke::<u32>("Ask", ()));
    assert!(poll!(asking.as_mut()).is_pending());
    let question = a.json("c1").await;
    move_client(&mut a, &mut b, 1).await;
    let answer = json!({"type": 3, "invocationId": question["invocationId"], "result": 5});
    b.send(client.json(&answer)).await;
    assert_eq!(asking.await.unwrap(), 5);
    b.send_all(&[client.json(&item(2)), client.json(&json!({"type": 3, "invocationId": "u"}))]).await;
    assert_eq!(b.json("c1").await, json!({"type": 3, "invocationId": "1", "result": 42}));
    gate.add_permits(2);
    for n in 1..3 {
        assert_eq!(b.json("c1").await, json!({"type": 2, "invocationId": "2", "item": n}));
    }
    assert_eq!(b.json("c1").await["type"], 3);
    a.fence_quietly().await;
}

#[tokio::test]
async fn a_move_that_fails_leaves_the_client_where_it_was() {
    let mut app = start().await;
    let (mut a, mut b, client) = start_with_client(&mut app).await;
    pause(&mut a).await;
    let one = clients(&app).client("c1");
    let mut sending = pin!(one.send("M", (1,)));
    assert!(poll!(sending.as_mut()).is_pending());
    resume(&mut a).await;
    sending.await.unwrap();
    assert_eq!(number_in(&a.data("c1").await), 1);
    b.send(flow("c1", FlowOperation::Resume)).await;
    let ServiceMessage::CloseConnection(close) = b.next().await else { panic!() };
    assert_eq!(close.connection_id, "c1", "a node that comes too late is told");
    assert!(a.call(&client, "Add", "[1,1]").await.contains("\"result\":2"));
}

#[tokio::test]
async fn a_client_closed_during_a_move_is_notified_by_its_new_node() {
    let mut app = start().await;
    let (mut a, mut b, client) = start_with_client(&mut app).await;
    a.send_all(&[client.call(None, "Block", "[1,\"\"]"), client.call(None, "Abort", "[]")]).await;
    pause(&mut a).await;
    let (clients, mut sends) = (clients(&app), Vec::new());
    for n in 0..2 {
        let one = clients.client("c1");
        sends.push(Box::pin(async move { one.send("M", (n,)).await.unwrap().proxies() }));
        assert!(poll!(sends.last_mut().unwrap()).is_pending());
    }
    app.gate.add_permits(1);
    assert_eq!(app.event().await, "unblocked 1");
    assert_eq!(app.event().await, "disconnected c1 ");
    for send in sends {
        send.await;
    }
    a.fence_quietly().await;
    b.send(flow("c1", FlowOperation::Resume)).await;
    assert_eq!(b.data("c1").await.data_type, DataType::Close.number());
    let ServiceMessage::CloseConnection(close) = b.next().await else { panic!() };
    assert_eq!(close.connection_id, "c1");
    a.fence_quietly().await;
}

#[tokio::test]
async fn a_client_that_has_moved_belongs_to_its_new_node_alone() {
    let mut app = start().await;
    let (mut a, mut b, client) = start_with_client(&mut app).await;
    move_client(&mut a, &mut b, 1).await;
    a.send(client.left(None)).await;
    a.send(flow("c1", FlowOperation::Pause)).await;
    a.fence_quietly().await;
    assert!(b.call(&client, "Add", "[1,1]").await.contains("\"result\":2"));
    a.end_session().await;
    a.closed().await;
    assert!(b.call(&client, "Add", "[1,1]").await.contains("\"result\":2"));
    b.end_session().await;
    assert!(app.event().await.starts_with("disconnected c1 "));
}

#[tokio::test]
async fn a_client_is_not_lost_with_the_links_of_the_node_that_it_leaves() {
    let mut app = start().await;
    let (mut a, mut b, client) = start_with_client(&mut app).await;
    pause(&mut a).await;
    ask_to_move(&mut a, 1).await;
    a.end_session().await;
    a.closed().await;
    resume(&mut b).await;
    assert!(b.call(&client, "Add", "[1,1]").await.contains("\"result\":2"));
    b.send(client.left(None)).await;
    assert_eq!(app.event().await, "disconnected c1 ");
}

#[tokio::test]
async fn the_new_node_is_asked_to_pause_a_paused_client() {
    let mut app = App::start_hub(|hub| stateful(hub).inbox_max_bytes(1000)).await;
    let (mut a, mut b, client) = start_with_client(&mut app).await;
    a.block(&client, 5).await;
    assert_eq!(a.flow("c1").await, FlowOperation::Pause);
    pause(&mut a).await;
    ask_to_move(&mut a, 1).await;
    b.send(flow("c1", FlowOperation::Resume)).await;
    assert_eq!(b.flow("c1").await, FlowOperation::Pause);
    app.gate.add_permits(5);
    assert_eq!(b.flow("c1").await, FlowOperation::Resume);
}

#[tokio::test]
async fn a_client_that_has_moved_is_reassigned_by_its_new_node() {
    let mut app = start().await;
    let (mut a, mut b, client) = start_with_client(&mut app).await;
    move_client(&mut a, &mut b, 1).await;
    let headers = vec![(MIGRATE_TO_HEADER.into(), vec!["".into()])];
    let asked = CloseConnection { connection_id: client.id.into(), headers, ..Default::default() };
    b.send(ServiceMessage::CloseConnection(asked)).await;
    let ServiceMessage::CloseConnection(given) = b.next().await else { panic!() };
    assert_eq!((&*given.connection_id, &*given.headers[0].0), ("c1", MIGRATE_TO_HEADER));
    a.fence_quietly().await;
    app.no_event().await;
}

#[tokio::test]
async fn a_client_moves_on_and_back() {
    let mut app = start().await;
    let (mut a, mut b, client) = start_with_client(&mut app).await;
    move_client(&mut a, &mut b, 1).await;
    move_client(&mut b, &mut a, 2).await;
    clients(&app).client("c1").send("M", (1,)).await.unwrap();
    assert_eq!(number_in(&a.data("c1").await), 1);
    assert!(a.call(&client, "Add", "[1,1]").await.contains("\"result\":2"));
}

#[tokio::test]
async fn clients_of_other_hubs_and_at_nodes_without_moves_stay() {
    let mut app = App::start().await;
    let (mut a, _b, client) = start_with_client(&mut app).await;
    a.send(flow("c1", FlowOperation::Pause)).await;
    a.fence_quietly().await;
    ask_to_move(&mut a, 1).await;
    assert!(a.call(&client, "Add", "[1,1]").await.contains("\"result\":2"));
    clients(&app).client("c1").send("M", (1,)).await.unwrap();
    assert_eq!(a.called("c1").await.target, "M");

    let mut app = start().await;
    let (mut old, client) = ProxyLink::open_with_client(&app).await;
    assert_eq!(app.event().await, "connected c1");
    old.send(flow("c1", FlowOperation::Pause)).await;
    old.fence_quietly().await;
    assert!(old.call(&client, "Add", "[1,1]").await.contains("\"result\":2"));
}
