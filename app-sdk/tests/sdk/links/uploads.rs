//! Tests of streams that clients upload.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use trunkline::HubProtocol::Json;
use trunkline::{Context, Hub, HubError, UploadStream};
use trunkline_protocol::service::{FlowOperation, ServiceMessage};

use crate::harness::{App, ProxyLink, ScriptedClient, json_of};

async fn sum(mut numbers: UploadStream<i64>, factor: i64) -> Result<i64, HubError> {
    let mut sum = 0;
    while let Some(number) = numbers.next().await {
        sum += number? * factor;
    }
    Ok(sum)
}

async fn zip(_: Context, mut left: UploadStream<String>, mut right: UploadStream<String>) -> Result<String, HubError> {
    let mut all = String::new();
    while let (Some(left), Some(right)) = (left.next().await, right.next().await) {
        all += &left?;
        all += &right?;
    }
    Ok(all)
}

async fn first(mut numbers: UploadStream<i64>) -> Result<i64, HubError> {
    numbers.next().await.unwrap_or(Ok(0))
}

fn with_uploads(hub: Hub) -> Hub {
    hub.method("Sum", sum).method("Zip", zip).method("First", first)
}

fn upload(target: &str, arguments: Value, stream_ids: Value) -> Value {
    json!({"type": 1, "invocationId": "1", "target": target, "arguments": arguments, "streamIds": stream_ids})
}

fn item(id: &str, item: Value) -> Value {
    json!({"type": 2, "invocationId": id, "item": item})
}

fn end(id: &str) -> Value {
    json!({"type": 3, "invocationId": id})
}

fn result(result: Value) -> Value {
    json!({"type": 3, "invocationId": "1", "result": result})
}

fn failure(target: &str, text: &str) -> Value {
    let error = format!("An unexpected error occurred invoking '{target}' on the server. {text}");
    json!({"type": 3, "invocationId": "1", "error": error})
}

async fn open(app: &App) -> (ProxyLink, ScriptedClient) {
    let mut link = ProxyLink::open(app, "a", 0).await;
    let client = link.client("c1", Json).await;
    (link, client)
}

async fn send_all(link: &mut ProxyLink, client: &ScriptedClient, messages: &[Value]) {
    let frames: Vec<_> = messages.iter().map(|message| client.json(message)).collect();
    link.send_all(&frames).await;
}

#[tokio::test]
async fn an_upload_goes_beside_the_arguments() {
    let app = App::start_hub(with_uploads).await;
    let (mut link, client) = open(&app).await;
    let call = upload("Sum", json!([10]), json!(["0"]));
    let items = [item("0", json!(1)), item("0", json!(2)), item("0", json!(3))];
    send_all(&mut link, &client, &[call]).await;
    send_all(&mut link, &client, &items).await;
    link.quiet().await;
    send_all(&mut link, &client, &[end("0")]).await;
    assert_eq!(link.json("c1").await, result(json!(60)));
    assert!(app.metric("trunkline_app_stream_items_up_total{hub=\"test\"} 3"));
    assert!(app.metric("trunkline_app_invocations_running{hub=\"test\"} 0"));
}

#[tokio::test]
async fn several_uploads_interleave_in_any_order() {
    let app = App::start_hub(with_uploads).await;
    let (mut link, client) = open(&app).await;
    let messages = [
        upload("Zip", json!([]), json!(["l", "r"])),
        item("r", json!("1")),
        item("r", json!("2")),
        item("l", json!("a")),
        end("r"),
        item("l", json!("b")),
        end("l"),
    ];
    send_all(&mut link, &client, &messages).await;
    assert_eq!(link.json("c1").await, result(json!("a1b2")));
}

#[tokio::test]
async fn an_upload_that_the_client_fails_ends_with_its_error() {
    let app = App::start_hub(with_uploads).await;
    let (mut link, client) = open(&app).await;
    let broken = json!({"type": 3, "invocationId": "0", "error": "Something bad"});
    send_all(&mut link, &client, &[upload("Sum", json!([1]), json!(["0"])), item("0", json!(1)), broken]).await;
    assert_eq!(link.json("c1").await, failure("Sum", "HubException: Something bad"));
}

#[tokio::test]
async fn an_item_that_does_not_fit_ends_its_upload() {
    let app = App::start_hub(with_uploads).await;
    let (mut link, client) = open(&app).await;
    let messages = [upload("Sum", json!([1]), json!(["0"])), item("0", json!("one")), item("0", json!(1)), end("0")];
    send_all(&mut link, &client, &messages).await;
    assert_eq!(link.json("c1").await, failure("Sum", "HubException: Failed to bind Stream message."));
    link.quiet().await;
}

#[tokio::test]
async fn unread_items_are_dropped_and_their_ids_are_free_again() {
    let app = App::start_hub(with_uploads).await;
    let (mut link, client) = open(&app).await;
    for n in 1..=3 {
        let items = [item("0", json!(n)), item("0", json!(7)), item("0", json!(8))];
        send_all(&mut link, &client, &[upload("First", json!([]), json!(["0"]))]).await;
        send_all(&mut link, &client, &items).await;
        assert_eq!(link.json("c1").await, result(json!(n)));
        send_all(&mut link, &client, &[item("0", json!(9)), end("0")]).await;
    }
    link.quiet().await;
}

#[tokio::test]
async fn the_number_of_uploads_is_exact() {
    let app = App::start_hub(with_uploads).await;
    let (mut link, client) = open(&app).await;
    for (target, ids, sent, expected) in [("Sum", json!([]), 0, 1), ("Zip", json!(["0"]), 1, 2)] {
        let arguments = if target == "Sum" { json!([1]) } else { json!([]) };
        send_all(&mut link, &client, &[upload(target, arguments, ids)]).await;
        let text = format!("HubException: Client sent {sent} stream(s), Hub method expects {expected}.");
        assert_eq!(link.json("c1").await, failure(target, &text));
    }
}

#[tokio::test]
async fn uploads_of_one_id_are_refused() {
    let app = App::start_hub(with_uploads).await;
    let (mut link, client) = open(&app).await;
    send_all(&mut link, &client, &[upload("Zip", json!([]), json!(["0", "0"]))]).await;
    let in_use = |id: &str| json!({"type": 3, "invocationId": "1", "error": "Invocation ID '0' is already in use.".replace('0', id)});
    assert_eq!(link.json("c1").await, in_use("0"));
    let another = json!({"type": 1, "invocationId": "2", "target": "Sum", "arguments": [1], "streamIds": ["0"]});
    send_all(&mut link, &client, &[another, upload("Sum", json!([1]), json!(["0"])), item("0", json!(1)), end("0")])
        .await;
    assert_eq!(link.json("c1").await, in_use("0"));
    assert_eq!(link.json("c1").await, json!({"type": 3, "invocationId": "2", "result": 1}));
}

#[tokio::test]
async fn an_upload_is_cut_off_when_its_client_leaves() {
    let (told, mut events) = mpsc::unbounded_channel();
    let app = App::start_hub(|hub| {
        hub.method("Watch", move |mut numbers: UploadStream<i64>| {
            let told = told.clone();
            async move {
                while let Some(number) = numbers.next().await {
                    told.send(format!("{number:?}")).unwrap();
                }
                told.send("over".to_owned()).unwrap();
            }
        })
    })
    .await;
    let (mut link, client) = open(&app).await;
    send_all(&mut link, &client, &[upload("Watch", json!([]), json!(["0"])), item("0", json!(1))]).await;
    link.send(client.left(None)).await;
    assert_eq!(events.recv().await.unwrap(), "Ok(1)");
    let cut_off = "Err(OperationCanceledException: The connection ended before the upload did.)";
    assert_eq!(events.recv().await.unwrap(), cut_off);
    assert_eq!(events.recv().await.unwrap(), "over");
}

#[tokio::test]
async fn too_many_items_pause_the_client_until_they_are_taken() {
    let pause_was_seen = Arc::new(Notify::new());
    let gate = Arc::clone(&pause_was_seen);
    let late = move |numbers| sum_after(Arc::clone(&gate), numbers);
    let mut app = App::start_hub(|hub| hub.upload_max_items(4).method("Late", late)).await;
    let (mut link, client) = open(&app).await;
    assert_eq!(app.event().await, "connected c1");
    send_all(&mut link, &client, &[upload("Late", json!([]), json!(["0"]))]).await;
    let items: Vec<_> = (0..6).map(|n| item("0", json!(n))).collect();
    send_all(&mut link, &client, &items).await;
    assert_eq!(link.flow("c1").await, FlowOperation::Pause);
    pause_was_seen.notify_one();
    assert_eq!(link.flow("c1").await, FlowOperation::Resume);
    send_all(&mut link, &client, &[end("0")]).await;
    assert_eq!(link.json("c1").await, result(json!(15)));
    link.quiet().await;
}

/// Starts to read at a signal.
async fn sum_after(gate: Arc<Notify>, mut numbers: UploadStream<i64>) -> Result<i64, HubError> {
    gate.notified().await;
    let mut sum = 0;
    while let Some(number) = numbers.next().await {
        sum += number?;
    }
    Ok(sum)
}

async fn with_budgets() -> (App, ProxyLink, ScriptedClient) {
    let hub_with = |hub| with_uploads(hub).inbox_max_bytes(1000).waiting_inbox_max_bytes(4000).detailed_errors();
    let app = App::start_hub(hub_with).await;
    let (mut link, client) = open(&app).await;
    send_all(&mut link, &client, &[upload("Sum", json!([1]), json!(["0"]))]).await;
    link.fence().await;
    (app, link, client)
}

#[tokio::test]
async fn a_client_whose_next_item_is_awaited_is_read_up_to_the_second_budget() {
    let (_app, mut link, client) = with_budgets().await;
    link.block(&client, 7).await;
    send_all(&mut link, &client, &[item("0", json!(5)), end("0")]).await;
    // The item arrived behind more than the first budget. No method waits for an item now, so the client is paused.
    let (pause, answer) = pause_and_answer(&mut link).await;
    assert_eq!((pause, answer), (FlowOperation::Pause, result(json!(5))));
}

#[tokio::test]
async fn beyond_the_second_budget_the_wait_for_an_item_fails() {
    let (_app, mut link, client) = with_budgets().await;
    link.block(&client, 10).await;
    let (pause, answer) = pause_and_answer(&mut link).await;
    assert_eq!(pause, FlowOperation::Pause);
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("Hub::waiting_inbox_max_bytes"), "{error}");
}

async fn pause_and_answer(link: &mut ProxyLink) -> (FlowOperation, Value) {
    let (mut pause, mut answer) = (None, None);
    while pause.is_none() || answer.is_none() {
        match link.next().await {
            ServiceMessage::ConnectionFlowControl(flow) => pause = Some(flow.operation),
            ServiceMessage::ConnectionData(data) => answer = Some(json_of(&data)),
            other => panic!("{other:?}"),
        }
    }
    (pause.unwrap(), answer.unwrap())
}
