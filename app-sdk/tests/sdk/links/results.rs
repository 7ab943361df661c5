//! Tests of client results: requested here, from clients of another app server, and by another app server.

use std::time::Duration;

use serde_json::{Value, json};
use trunkline::HubProtocol::Json;
use trunkline::{Context, Hub, HubError, InvokeError, UploadStream};
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::service::*;

use crate::harness::{App, ProxyLink, ScriptedClient, invocation, json_of};

async fn ask(ctx: Context, connection_id: String, question: String) -> Result<u32, HubError> {
    Ok(ctx.clients().client(connection_id).invoke("Ask", (question,)).await?)
}

async fn ask_caller(ctx: Context) -> Result<u32, HubError> {
    Ok(ctx.clients().caller().invoke("Ask", ()).await?)
}

fn asking(hub: Hub) -> Hub {
    hub.method("Ask", ask).method("AskCaller", ask_caller)
}

async fn start() -> App {
    App::start_hub(asking).await
}

fn answer(id: &str, result: Value) -> Value {
    json!({"type": 3, "invocationId": id, "result": result})
}

fn failure(target: &str, rest: &str) -> Value {
    let error = format!("An unexpected error occurred invoking '{target}' on the server.{rest}");
    json!({"type": 3, "invocationId": "1", "error": error})
}

async fn client(link: &mut ProxyLink, id: &'static str) -> ScriptedClient {
    link.client(id, Json).await
}

#[tokio::test]
async fn a_client_that_is_here_gives_its_result() {
    let app = start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let (one, two) = (client(&mut link, "c1").await, client(&mut link, "c2").await);
    link.send(one.call(Some("1"), "Ask", "[\"c2\",\"how many?\"]")).await;
    let question = link.called("c2").await;
    let id = question.invocation_id.unwrap();
    assert_eq!((&*question.target, &*id), ("Ask", &*format!("s{}-1", app.handle.instance())));
    assert_eq!(Json.value::<String>(&question.arguments[0]).unwrap(), "how many?");
    assert!(app.metric("trunkline_app_client_results_waiting{hub=\"test\"} 1"));
    link.send(two.json(&answer(&id, json!(12)))).await;
    assert_eq!(link.json("c1").await, answer("1", json!(12)));
    link.send(two.json(&answer(&id, json!(13)))).await;
    link.quiet().await;
    assert!(app.metric("trunkline_app_client_results_total{hub=\"test\",outcome=\"ok\"} 1"));
    assert!(app.metric("trunkline_app_client_results_waiting{hub=\"test\"} 0"));
}

#[tokio::test]
async fn a_method_that_waits_for_its_caller_lets_other_calls_run() {
    let app = start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let client = client(&mut link, "c1").await;
    link.send_all(&[client.call(Some("1"), "AskCaller", "[]"), client.call(Some("2"), "Add", "[1,1]")]).await;
    let question = link.called("c1").await;
    assert_eq!(link.json("c1").await, answer("2", json!(2)));
    let id = question.invocation_id.unwrap();
    link.send(client.json(&answer(&id, json!(7)))).await;
    assert_eq!(link.json("c1").await, answer("1", json!(7)));
}

#[tokio::test]
async fn an_error_of_the_client_is_shown_and_a_result_of_another_type_is_not() {
    let app = start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let client = client(&mut link, "c1").await;
    let answers = [
        (json!({"error": "Error: nope"}), " HubException: Error: nope"),
        (json!({"error": "Client didn't provide a result."}), " HubException: Client didn't provide a result."),
        (
            json!({"result": 1, "error": "both"}),
            " HubException: The 'error' and 'result' properties are mutually exclusive.",
        ),
        (json!({"result": "seven"}), ""),
        (json!({"result": null}), ""),
        (json!({}), ""),
    ];
    for (mut outcome, text) in answers {
        link.send(client.call(Some("1"), "AskCaller", "[]")).await;
        let id = link.called("c1").await.invocation_id.unwrap();
        outcome["type"] = json!(3);
        outcome["invocationId"] = json!(&*id);
        link.send(client.json(&outcome)).await;
        assert_eq!(link.json("c1").await, failure("AskCaller", text));
    }
    assert!(link.call(&client, "Add", "[1,1]").await.contains("\"result\":2"), "the connection stays up");
}

#[tokio::test]
async fn a_client_that_leaves_fails_its_requests() {
    let app = start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let (asked, _) = (client(&mut link, "c1").await, client(&mut link, "c2").await);
    let asking = app.ask("c1");
    link.called("c1").await;
    link.send(asked.left(None)).await;
    let error = asking.await.unwrap().unwrap_err();
    assert!(matches!(&error, InvokeError::Disconnected(id) if id == "c1"));
    assert_eq!(error.to_string(), "Connection 'c1' disconnected.");
}

#[tokio::test]
async fn a_result_before_the_close_counts() {
    let app = start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let asked = client(&mut link, "c1").await;
    let asking = app.ask("c1");
    let id = link.called("c1").await.invocation_id.unwrap();
    link.send_all(&[asked.json(&answer(&id, json!(1))), asked.left(None)]).await;
    assert_eq!(asking.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_result_after_the_timeout_is_ignored() {
    let app = App::start_hub(|hub| asking(hub).client_result_timeout(Duration::from_millis(50))).await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let asked = client(&mut link, "c1").await;
    let asking = app.ask("c1");
    let first = link.called("c1").await.invocation_id.unwrap();
    assert!(matches!(asking.await.unwrap(), Err(InvokeError::Timeout(_))));
    let receiver = app.handle.hub("test").unwrap().clients().client("c1").timeout(Duration::from_secs(60));
    let asking = tokio::spawn(async move { receiver.invoke::<u32>("Ask", ()).await });
    let second = link.called("c1").await.invocation_id.unwrap();
    asking.abort();
    assert!(asking.await.is_err());
    assert!(app.metric("trunkline_app_client_results_waiting{hub=\"test\"} 0"));
    for id in [first, second] {
        link.send(asked.json(&answer(&id, json!(1)))).await;
    }
    assert!(link.call(&asked, "Add", "[1,1]").await.contains("\"result\":2"), "late answers are ignored");
}

#[tokio::test]
async fn a_result_from_another_client_is_ignored() {
    let app = start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let (asked, liar) = (client(&mut link, "c1").await, client(&mut link, "c2").await);
    let asking = app.ask("c1");
    let id = link.called("c1").await.invocation_id.unwrap();
    link.send(liar.json(&answer(&id, json!(666)))).await;
    assert!(link.call(&liar, "Add", "[1,1]").await.contains("\"result\":2"), "it stays");
    assert!(app.metric("trunkline_app_client_results_dropped_total{hub=\"test\"} 1"));
    link.send(asked.json(&answer(&id, json!(1)))).await;
    assert_eq!(asking.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn no_result_can_be_requested_before_the_caller_is_connected() {
    let app = App::start_hub(|hub| {
        hub.on_connected(async |ctx: Context| {
            ctx.clients().caller().invoke::<u32>("Ask", ()).await?;
            Ok::<_, HubError>(())
        })
        .detailed_errors()
    })
    .await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    link.client("c1", Json).await;
    let text = "Connection closed with an error. InvokeError: Client results inside OnConnectedAsync Hub methods are not allowed.";
    assert_eq!(link.json("c1").await, json!({"type": 7, "error": text}));
}

#[tokio::test]
async fn awaited_results_are_bounded() {
    let app = App::start_hub(|hub| asking(hub).client_results_max(1)).await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    client(&mut link, "c1").await;
    let receiver = app.handle.hub("test").unwrap().clients().client("c1");
    let another = receiver.clone();
    let _asking = tokio::spawn(async move { receiver.invoke::<u32>("Ask", ()).await });
    link.called("c1").await;
    let error = another.invoke::<u32>("Ask", ()).await.unwrap_err();
    assert!(error.to_string().contains("Hub::client_results_max"), "{error}");
}

/// Reads the request that every proxy gets for a client of another app server.
async fn client_invocation(link: &mut ProxyLink) -> ClientInvocation {
    match link.next().await {
        ServiceMessage::ClientInvocation(question) => question,
        other => panic!("{other:?}"),
    }
}

fn refusal(question: &ClientInvocation, error: &str) -> ServiceMessage {
    ServiceMessage::ErrorCompletion(ErrorCompletion {
        invocation_id: question.invocation_id.clone(),
        connection_id: question.connection_id.clone(),
        caller_server_id: question.caller_server_id.clone(),
        error: error.into(),
    })
}

#[tokio::test]
async fn a_remote_client_is_requested_by_way_of_every_proxy() {
    let app = start().await;
    let (mut a, mut b) = (ProxyLink::open(&app, "a", 0).await, ProxyLink::open(&app, "b", 0).await);
    let asker = client(&mut a, "c1").await;
    a.send(asker.call(Some("1"), "Ask", "[\"stranger\",\"?\"]")).await;
    let (question, same) = (client_invocation(&mut a).await, client_invocation(&mut b).await);
    assert_eq!(question, same);
    assert_eq!((&*question.connection_id, &*question.caller_server_id), ("stranger", app.handle.instance()));
    for protocol in HubProtocol::ALL {
        let call = invocation(protocol, question.payloads.get(protocol).unwrap());
        assert_eq!(call.invocation_id.as_deref(), Some(&*question.invocation_id));
    }
    a.send(refusal(&question, "Connection 'stranger' does not exist.")).await;
    a.quiet().await;
    let completion = json!({"type": 3, "invocationId": &*question.invocation_id, "result": 3});
    b.send(ServiceMessage::ClientCompletion(ClientCompletion {
        invocation_id: question.invocation_id.clone(),
        connection_id: "stranger".into(),
        caller_server_id: question.caller_server_id.clone(),
        protocol: "json".into(),
        payload: format!("{completion}\x1e").into(),
    }))
    .await;
    assert_eq!(a.json("c1").await, answer("1", json!(3)));
}

#[tokio::test]
async fn a_client_does_not_exist_if_every_proxy_denies_it() {
    let app = start().await;
    let receiver = app.handle.hub("test").unwrap().clients().client("stranger");
    let error = receiver.invoke::<u32>("Ask", ()).await.unwrap_err();
    assert!(matches!(error, InvokeError::DoesNotExist(_)), "without proxies there are no clients");
    let (mut a, mut b) = (ProxyLink::open(&app, "a", 0).await, ProxyLink::open(&app, "b", 0).await);
    let asking = tokio::spawn(async move { receiver.invoke::<u32>("Ask", ()).await });
    let question = client_invocation(&mut a).await;
    a.send(refusal(&question, "Connection 'stranger' does not exist.")).await;
    a.fence().await;
    assert!(!asking.is_finished());
    let question = client_invocation(&mut b).await;
    b.send(refusal(&question, "Connection 'stranger' does not exist.")).await;
    let error = asking.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "Connection 'stranger' does not exist.");
}

#[tokio::test]
async fn a_remote_client_that_disconnects_or_is_lost_fails_the_request() {
    let app = start().await;
    let mut a = ProxyLink::open(&app, "a", 0).await;
    let receiver = app.handle.hub("test").unwrap().clients().client("stranger");
    for is_lost in [false, true] {
        let receiver = receiver.clone();
        let asking = tokio::spawn(async move { receiver.invoke::<u32>("Ask", ()).await });
        let question = client_invocation(&mut a).await;
        if is_lost {
            a = ProxyLink::open(&app, "b", 0).await;
        } else {
            a.send(refusal(&question, "Connection 'stranger' disconnected.")).await;
        }
        let error = asking.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "Connection 'stranger' disconnected.");
    }
}

fn foreign(id: &str) -> ServiceMessage {
    ServiceMessage::ClientInvocation(ClientInvocation {
        invocation_id: id.into(),
        connection_id: "c1".into(),
        caller_server_id: "another".into(),
        payloads: Payloads::default(),
    })
}

#[tokio::test]
async fn a_result_goes_to_the_app_server_that_requested_it() {
    let app = start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let asked = client(&mut link, "c1").await;
    link.send_all(&[foreign("another-1"), asked.json(&answer("another-1", json!(4)))]).await;
    let ServiceMessage::ClientCompletion(passed) = link.next().await else { panic!() };
    assert_eq!((&*passed.invocation_id, &*passed.connection_id), ("another-1", "c1"));
    assert_eq!((&*passed.caller_server_id, &*passed.protocol), ("another", "json"));
    assert_eq!(passed.payload, "{\"type\":3,\"invocationId\":\"another-1\",\"result\":4}\x1e");
    link.send(asked.json(&answer("another-1", json!(5)))).await;
    link.quiet().await;
}

#[tokio::test]
async fn another_app_servers_request_fails_when_the_client_disconnects() {
    let app = start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let asked = client(&mut link, "c1").await;
    link.send_all(&[foreign("another-1"), asked.left(None), foreign("another-2")]).await;
    let mut told = Vec::new();
    for _ in 0..2 {
        let ServiceMessage::ErrorCompletion(refusal) = link.next().await else { panic!() };
        assert_eq!((&*refusal.caller_server_id, &*refusal.error), ("another", "Connection 'c1' disconnected."));
        told.push(refusal.invocation_id.to_string());
    }
    told.sort();
    assert_eq!(told, ["another-1", "another-2"]);
}

/// Starts an app and a client. The method `AskBeside` takes no slot.
async fn with_budgets() -> (App, ProxyLink, ScriptedClient) {
    let beside = async |ctx: Context, _beside: UploadStream<u8>| {
        Ok::<u32, HubError>(ctx.clients().caller().invoke("Ask", ()).await?)
    };
    let hub_with = |hub: Hub| {
        let hub = hub.inbox_max_bytes(1000).waiting_inbox_max_bytes(4000).detailed_errors();
        hub.method("AskBeside", beside)
    };
    let app = App::start_hub(hub_with).await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let client = client(&mut link, "c1").await;
    (app, link, client)
}

/// Requests a result concurrently with the client's other calls. Returns the invocation ID.
async fn ask_beside(link: &mut ProxyLink, client: &ScriptedClient) -> String {
    let call = json!({"type": 1, "invocationId": "1", "target": "AskBeside", "arguments": [], "streamIds": ["0"]});
    link.send(client.json(&call)).await;
    link.called("c1").await.invocation_id.unwrap().to_string()
}

#[tokio::test]
async fn a_client_whose_result_is_awaited_is_read_up_to_the_second_budget() {
    let (app, mut link, client) = with_budgets().await;
    let id = ask_beside(&mut link, &client).await;
    link.block(&client, 7).await;
    link.quiet().await;
    link.send(client.json(&answer(&id, json!(9)))).await;
    let (mut pause, mut result) = (None, None);
    while pause.is_none() || result.is_none() {
        match link.next().await {
            ServiceMessage::ConnectionFlowControl(flow) => pause = Some(flow.operation),
            ServiceMessage::ConnectionData(data) => result = Some(json_of(&data)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((pause, result), (Some(FlowOperation::Pause), Some(answer("1", json!(9)))));
    app.gate.add_permits(7);
    assert_eq!(link.flow("c1").await, FlowOperation::Resume);
}

#[tokio::test]
async fn beyond_the_second_budget_the_wait_for_a_result_fails() {
    let (_app, mut link, client) = with_budgets().await;
    ask_beside(&mut link, &client).await;
    link.block(&client, 10).await;
    assert_eq!(link.flow("c1").await, FlowOperation::Pause);
    let failed = link.json("c1").await;
    assert!(failed["error"].as_str().unwrap().contains("Hub::waiting_inbox_max_bytes"), "{failed}");
}

#[tokio::test]
async fn earlier_messages_of_a_paused_client_are_still_read() {
    let (app, mut link, client) = with_budgets().await;
    link.block(&client, 4).await;
    assert_eq!(link.flow("c1").await, FlowOperation::Pause);
    let outside = app.ask("c1");
    let id = link.called("c1").await.invocation_id.unwrap();
    link.send(client.json(&answer(&id, json!(1)))).await;
    assert_eq!(outside.await.unwrap().unwrap(), 1, "what is in flight is still read");
    app.gate.add_permits(4);
    assert_eq!(link.flow("c1").await, FlowOperation::Resume);
}
