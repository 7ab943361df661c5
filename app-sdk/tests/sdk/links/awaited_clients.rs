//! Tests of reassigning clients with pending results or uploads, and of closes that no app server has handled.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use trunkline::HubProtocol::Json;
use trunkline::{Context, Hub, HubError, InvokeError, UploadStream};
use trunkline_protocol::service::*;
use trunkline_protocol::wire::{
    CAUSE_HEADER, ENDED_ERROR_HEADER, ENDED_HEADER, MIGRATE_FROM_HEADER, MIGRATE_TO_HEADER,
};

use crate::harness::{App, LinkRequest, ProxyLink, ScriptedClient};

const STOPPING: &str = "HubException: this app server is stopping, call again";

async fn ask_caller(ctx: Context) -> Result<u32, HubError> {
    Ok(ctx.clients().caller().invoke("Ask", ()).await?)
}

async fn sum(mut numbers: UploadStream<i64>) -> Result<i64, HubError> {
    let mut sum = 0;
    while let Some(number) = numbers.next().await {
        sum += number?;
    }
    Ok(sum)
}

async fn start(shutdown_timeout_ms: u64) -> App {
    let timeout = Duration::from_millis(shutdown_timeout_ms);
    let hub = |hub: Hub| hub.method("AskCaller", ask_caller).method("Sum", sum);
    App::start_with(hub, |server| server.shutdown_timeout(timeout)).await
}

/// Opens a link of a proxy that can keep reading from clients, and a client on it.
async fn open(app: &App) -> (ProxyLink, ScriptedClient) {
    let mut link = ProxyLink::open_as(app, LinkRequest { can: "causes, handovers", ..LinkRequest::of("a", 0) }).await.0;
    link.fence().await;
    let client = link.client("c1", Json).await;
    (link, client)
}

fn completion(id: &str, result: Value) -> Value {
    json!({"type": 3, "invocationId": id, "result": result})
}

fn reassign_request(client: &ScriptedClient, instance: &str) -> ServiceMessage {
    let headers = vec![(MIGRATE_TO_HEADER.into(), vec![instance.into()])];
    ServiceMessage::CloseConnection(CloseConnection { connection_id: client.id.into(), headers, ..Default::default() })
}

fn rehomed(client: &ScriptedClient, from: &str, headers: &[(&'static str, &str)]) -> ServiceMessage {
    let ServiceMessage::OpenConnection(mut open) = client.opening("") else { panic!() };
    open.headers.push((MIGRATE_FROM_HEADER.into(), vec![from.into()]));
    open.headers.extend(headers.iter().map(|(name, value)| ((*name).into(), vec![(*value).into()])));
    ServiceMessage::OpenConnection(open)
}

/// Begins a shutdown, and requests the client as a proxy does.
async fn stop(app: &App, link: &mut ProxyLink, client: &ScriptedClient) -> JoinHandle<()> {
    let stopping = app.begin_shutdown();
    link.stop_of_app().await;
    link.send(reassign_request(client, "")).await;
    stopping
}

/// Begins a shutdown of an app server with one link, and confirms that no new connections are opened.
async fn announce_stop(app: &App, link: &mut ProxyLink) -> JoinHandle<()> {
    let stopping = app.begin_shutdown();
    link.answers_fences = false;
    assert!(matches!(link.next().await, ServiceMessage::ConnectionFlowControl(_)));
    for _ in 0..2 {
        let announced = link.fence_of_app().await;
        link.acknowledge(&announced).await;
    }
    stopping
}

fn request_of_another(client: &ScriptedClient) -> ServiceMessage {
    ServiceMessage::ClientInvocation(ClientInvocation {
        invocation_id: "sanother-1".into(),
        connection_id: client.id.into(),
        caller_server_id: "another".into(),
        payloads: Payloads::default(),
    })
}

/// Stops reading from the client as the app server requests, and waits until it is handed over.
async fn end_input(link: &mut ProxyLink, client: &ScriptedClient) {
    assert_eq!(link.flow("c1").await, FlowOperation::EndInput);
    link.send(reassign_request(client, "")).await;
    given_away(link).await;
}

async fn given_away(link: &mut ProxyLink) {
    let ServiceMessage::CloseConnection(close) = link.next().await else { panic!() };
    assert!(
        close.connection_id == "c1" && close.headers.iter().any(|(name, _)| name == MIGRATE_TO_HEADER),
        "{close:?}"
    );
}

#[tokio::test]
async fn a_client_is_read_on_until_it_has_answered_and_its_calls_meanwhile_run() {
    let mut app = start(60_000).await;
    let (mut link, client) = open(&app).await;
    assert_eq!(app.event().await, "connected c1");
    link.send(client.call(Some("1"), "AskCaller", "[]")).await;
    let question = link.called("c1").await.invocation_id.unwrap();
    let stopping = stop(&app, &mut link, &client).await;
    assert_eq!(link.flow("c1").await, FlowOperation::ReadOn);
    link.send(client.call(Some("2"), "Add", "[1,1]")).await;
    assert_eq!(link.json("c1").await, completion("2", json!(2)));
    link.send(client.json(&completion(&question, json!(7)))).await;
    assert_eq!(link.flow("c1").await, FlowOperation::EndInput);
    assert_eq!(link.json("c1").await, completion("1", json!(7)));
    // Messages that the client sent before the pause are still processed here.
    link.send_all(&[client.call(Some("3"), "Add", "[2,2]"), reassign_request(&client, "")]).await;
    assert_eq!(link.json("c1").await, completion("3", json!(4)));
    given_away(&mut link).await;
    link.closed().await;
    stopping.await.unwrap();
    app.no_event().await;
}

#[tokio::test]
async fn an_upload_completes_before_a_stop() {
    let app = start(60_000).await;
    let (mut link, client) = open(&app).await;
    link.send(
        client.json(&json!({"type": 1, "invocationId": "1", "target": "Sum", "arguments": [], "streamIds": ["u"]})),
    )
    .await;
    let stopping = stop(&app, &mut link, &client).await;
    assert_eq!(link.flow("c1").await, FlowOperation::ReadOn);
    for number in [1, 2] {
        link.send(client.json(&json!({"type": 2, "invocationId": "u", "item": number}))).await;
    }
    link.send(client.json(&json!({"type": 3, "invocationId": "u"}))).await;
    assert_eq!(link.flow("c1").await, FlowOperation::EndInput);
    assert_eq!(link.json("c1").await, completion("1", json!(3)));
    link.send(reassign_request(&client, "")).await;
    given_away(&mut link).await;
    link.closed().await;
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_question_from_outside_holds_the_client_too() {
    let app = start(60_000).await;
    let (mut link, client) = open(&app).await;
    let asking = app.ask("c1");
    let question = link.called("c1").await.invocation_id.unwrap();
    let stopping = stop(&app, &mut link, &client).await;
    assert_eq!(link.flow("c1").await, FlowOperation::ReadOn);
    link.send(client.json(&completion(&question, json!(5)))).await;
    end_input(&mut link, &client).await;
    assert_eq!(asking.await.unwrap().unwrap(), 5);
    link.closed().await;
    stopping.await.unwrap();
}

#[tokio::test]
async fn when_the_time_is_up_a_question_fails_by_name_for_the_method_its_caller_and_another_app_server() {
    let app = start(200).await;
    let (mut link, client) = open(&app).await;
    let asking = app.ask("c1");
    link.called("c1").await;
    link.send(client.call(Some("1"), "AskCaller", "[]")).await;
    link.called("c1").await;
    link.send(request_of_another(&client)).await;
    let stopping = stop(&app, &mut link, &client).await;
    assert_eq!(link.flow("c1").await, FlowOperation::ReadOn);
    let ServiceMessage::ErrorCompletion(refusal) = link.next().await else { panic!() };
    assert_eq!((&*refusal.invocation_id, &*refusal.error), ("sanother-1", "this app server is stopping"));
    assert!(matches!(asking.await.unwrap(), Err(InvokeError::Leaving)));
    let mut answer = None;
    for _ in 0..2 {
        match link.next().await {
            ServiceMessage::ConnectionFlowControl(flow) => assert_eq!(flow.operation, FlowOperation::EndInput),
            ServiceMessage::ConnectionData(data) => answer = Some(crate::harness::json_of(&data)),
            other => panic!("{other:?}"),
        }
    }
    let error = answer.unwrap()["error"].as_str().unwrap().to_owned();
    assert!(error.ends_with(STOPPING), "{error}");
    link.send(reassign_request(&client, "")).await;
    given_away(&mut link).await;
    link.closed().await;
    stopping.await.unwrap();
}

#[tokio::test]
async fn waits_fail_immediately_at_a_proxy_without_extended_reading() {
    let app = start(60_000).await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    link.send(client.call(Some("1"), "AskCaller", "[]")).await;
    link.called("c1").await;
    let stopping = stop(&app, &mut link, &client).await;
    let answer = link.json("c1").await;
    assert!(answer["error"].as_str().unwrap().ends_with(STOPPING), "{answer}");
    given_away(&mut link).await;
    link.closed().await;
    stopping.await.unwrap();
}

#[tokio::test]
async fn an_answer_to_the_app_server_before_is_no_answer_here_and_is_passed_on() {
    let (old, new) = (start(1_000).await, start(1_000).await);
    let (mut link, client) = open(&old).await;
    link.send(client.call(Some("1"), "AskCaller", "[]")).await;
    let first = link.called("c1").await.invocation_id.unwrap();
    let mut link = ProxyLink::open(&new, "a", 0).await;
    link.send_all(&[rehomed(&client, old.handle.instance(), &[]), client.handshake()]).await;
    link.send(client.call(Some("2"), "AskCaller", "[]")).await;
    let second = link.called("c1").await.invocation_id.unwrap();
    assert_ne!(first, second);
    link.send(client.json(&completion(&first, json!(1)))).await;
    let ServiceMessage::ClientCompletion(passed_on) = link.next().await else { panic!() };
    assert_eq!((&*passed_on.caller_server_id, &passed_on.invocation_id), (old.handle.instance(), &first));
    link.send(client.json(&completion(&second, json!(2)))).await;
    assert_eq!(link.json("c1").await, completion("2", json!(2)));
}

#[tokio::test]
async fn a_late_answer_is_dropped_and_counted() {
    let app = start(1_000).await;
    let (mut link, client) = open(&app).await;
    let own = format!("s{}-99", app.handle.instance());
    link.send(client.json(&completion(&own, json!(1)))).await;
    link.send(client.json(&completion("17", json!(1)))).await;
    assert!(link.call(&client, "Add", "[1,1]").await.contains("\"result\":2"), "the client stays");
    assert!(app.metric("trunkline_app_client_results_dropped_total{hub=\"test\"} 1"));
}

#[tokio::test]
async fn the_end_of_an_unassigned_client_is_reported_once() {
    let mut app = start(1_000).await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let client = ScriptedClient { id: "c1", protocol: Json };
    let ended = [(ENDED_HEADER, "keep_alive_timeout"), (ENDED_ERROR_HEADER, "silent")];
    link.send(rehomed(&client, "gone", &ended)).await;
    assert_eq!(app.event().await, "disconnected c1 silent");
    link.send(client.left(None)).await;
    link.fence().await;
    link.quiet().await;
    app.no_event().await;
    for line in ["connections", "connections_opened_total", "connections_rehomed_total"] {
        assert!(app.metric(&format!("trunkline_app_{line}{{hub=\"test\"}} 0")), "{line}");
    }
}

#[tokio::test]
async fn a_reported_end_of_a_present_connection_ends_it() {
    let mut app = start(1_000).await;
    let (mut link, client) = open(&app).await;
    assert_eq!(app.event().await, "connected c1");
    link.send(rehomed(&client, "gone", &[(ENDED_HEADER, "socket_ended")])).await;
    assert_eq!(app.event().await, "disconnected c1 ");
    assert!(app.metric("trunkline_app_connections_closed_total{cause=\"socket_ended\",hub=\"test\"} 1"));
    app.no_event().await;
}

#[tokio::test]
async fn a_connection_taken_over_elsewhere_is_released_immediately() {
    let mut app = start(1_000).await;
    let (mut link, client) = open(&app).await;
    assert_eq!(app.event().await, "connected c1");
    let named = (CAUSE_HEADER.into(), vec!["client_closed".into()]);
    link.send(client.call(Some("1"), "AskCaller", "[]")).await;
    link.called("c1").await;
    link.send(reassign_request(&client, "another")).await;
    link.fence().await;
    link.quiet().await;
    let ServiceMessage::CloseConnection(mut close) = client.left(None) else { panic!() };
    close.headers.push(named);
    link.send(ServiceMessage::CloseConnection(close)).await;
    link.fence().await;
    app.no_event().await;
}

#[tokio::test]
async fn a_connection_that_is_opened_while_a_stop_is_announced_is_reassigned_with_its_call_done() {
    let mut app = start(60_000).await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    link.answers_fences = false;
    let stopping = app.begin_shutdown();
    assert!(matches!(link.next().await, ServiceMessage::ConnectionFlowControl(_)));
    let announced = link.fence_of_app().await;
    // Another shard has just chosen this app server.
    let client = ScriptedClient { id: "c1", protocol: Json };
    let call = client.call(Some("1"), "Add", "[1,1]");
    link.send_all(&[client.opening(""), client.handshake(), call, reassign_request(&client, "")]).await;
    link.acknowledge(&announced).await;
    link.answers_fences = true;
    assert_eq!(link.data("c1").await.data_type, 1);
    assert_eq!(link.json("c1").await, completion("1", json!(2)));
    given_away(&mut link).await;
    link.closed().await;
    stopping.await.unwrap();
    assert_eq!(app.event().await, "connected c1");
    app.no_event().await;
}

#[tokio::test]
async fn links_end_only_behind_the_acknowledgement_of_the_last_answers() {
    let app = start(60_000).await;
    let (mut sends, client) = open(&app).await;
    let mut other = ProxyLink::open(&app, "a", 1).await;
    let reading = tokio::spawn(async move {
        other.closed().await;
    });
    let stopping = announce_stop(&app, &mut sends).await;
    sends.send_all(&[client.call(Some("1"), "Add", "[1,1]"), reassign_request(&client, "")]).await;
    assert_eq!(sends.json("c1").await, completion("1", json!(2)));
    given_away(&mut sends).await;
    let last = sends.fence_of_app().await;
    sends.fence_quietly().await;
    assert!(!reading.is_finished() && !stopping.is_finished());
    sends.acknowledge(&last).await;
    sends.closed().await;
    reading.await.unwrap();
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_request_after_the_reassignment_is_left_to_the_next_app_server() {
    let app = start(60_000).await;
    let (mut link, client) = open(&app).await;
    let stopping = announce_stop(&app, &mut link).await;
    link.send(reassign_request(&client, "")).await;
    given_away(&mut link).await;
    let last = link.fence_of_app().await;
    link.send(request_of_another(&client)).await;
    link.fence_quietly().await;
    link.acknowledge(&last).await;
    link.closed().await;
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_request_during_on_leaving_is_answered_before_the_reassignment() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let leaving = move || {
        let held = Arc::clone(&held);
        async move { held.acquire().await.map(SemaphorePermit::forget).is_ok() }
    };
    let app = App::start_hub(|hub| hub.on_leaving(leaving)).await;
    let (mut link, client) = open(&app).await;
    let stopping = announce_stop(&app, &mut link).await;
    link.send_all(&[reassign_request(&client, ""), request_of_another(&client)]).await;
    link.fence_quietly().await;
    gate.add_permits(2);
    assert_eq!(link.flow("c1").await, FlowOperation::ReadOn);
    link.send(client.json(&completion("sanother-1", json!(5)))).await;
    assert!(
        matches!(link.next().await, ServiceMessage::ClientCompletion(answer) if answer.caller_server_id == "another")
    );
    link.answers_fences = true;
    end_input(&mut link, &client).await;
    link.closed().await;
    stopping.await.unwrap();
}
