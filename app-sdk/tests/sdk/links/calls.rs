//! Tests of the order of calls, and of filters around them.

use std::sync::{Arc, Barrier};

use bytes::Bytes;
use serde_json::json;
use trunkline::HubProtocol::{Json, MessagePack};
use trunkline::{Cancellation, Context, HubCall, HubError, Next, Reply};
use trunkline_protocol::hub::{Completion, HubMessage, Outcome, next_frame};
use trunkline_protocol::service::ServiceMessage;

use crate::harness::{App, ProxyLink};

#[tokio::test]
async fn calls_run_one_after_the_other_and_are_answered_in_their_order() {
    let (app, mut link, client) = App::start_with_client().await;
    let calls: Vec<_> = (0..4).map(|n| client.call(Some(&n.to_string()), "Block", &format!("[{n},\"\"]"))).collect();
    link.send_all(&calls).await;
    link.send(client.call(Some("4"), "Add", "[1,1]")).await;
    link.quiet().await;
    app.gate.add_permits(4);
    for n in 0..5 {
        assert_eq!(link.json("c1").await["invocationId"], n.to_string());
    }
}

#[tokio::test]
async fn more_slots_run_more_parallel_calls() {
    let app = App::start_hub(|hub| hub.parallel_invocations(2)).await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    let blocked = |id: &str| client.call(Some(id), "Block", "[0,\"\"]");
    link.send_all(&[blocked("1"), client.call(Some("2"), "Add", "[1,1]"), blocked("3")]).await;
    assert_eq!(link.json("c1").await["invocationId"], "2");
    link.send(client.call(Some("4"), "Add", "[1,1]")).await;
    link.quiet().await;
    app.gate.add_permits(1);
    assert_eq!(link.json("c1").await["invocationId"], "1");
    assert_eq!(link.json("c1").await["invocationId"], "4");
    app.gate.add_permits(1);
    assert_eq!(link.json("c1").await["invocationId"], "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_that_block_their_threads_hold_up_no_other_client() {
    const CLIENTS: [&str; 8] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
    // Each method blocks its thread until all of them have started.
    let all = Arc::new(Barrier::new(CLIENTS.len()));
    let meet = move || {
        let all = Arc::clone(&all);
        async move {
            tokio::task::block_in_place(|| all.wait());
        }
    };
    let app = App::start_hub(|hub| hub.method("Meet", meet)).await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let mut calls = Vec::new();
    for id in CLIENTS {
        calls.push(link.client(id, Json).await.call(Some("1"), "Meet", "[]"));
    }
    let (together, alone) = calls.split_at(CLIENTS.len() / 2);
    link.send_all(together).await;
    for call in alone {
        link.send(call.clone()).await;
    }
    let mut answered = Vec::new();
    for _ in CLIENTS {
        match link.next().await {
            ServiceMessage::ConnectionData(data) => answered.push(data.connection_id),
            other => panic!("{other:?}"),
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, CLIENTS);
}

#[tokio::test]
async fn items_and_cancellations_get_through_behind_a_blocked_call() {
    let app = App::start_hub(|hub| {
        hub.method("Sum", async |mut numbers: trunkline::UploadStream<i64>| {
            let mut sum = 0;
            while let Some(number) = numbers.next().await {
                sum += number?;
            }
            Ok::<_, HubError>(sum)
        })
        .method("Endless", async || futures_util::stream::pending::<u8>())
    })
    .await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    let upload = |id: &str, stream: &str| json!({"type": 1, "invocationId": id, "target": "Sum", "arguments": [], "streamIds": [stream]});
    let stream = json!({"type": 4, "invocationId": "e", "target": "Endless", "arguments": []});
    link.send_all(&[client.json(&upload("u", "0")), client.json(&stream)]).await;
    let blocked = |id: &str| client.call(Some(id), "Block", "[0,\"\"]");
    link.send_all(&[blocked("1"), blocked("2"), client.json(&upload("behind", "1"))]).await;
    let messages = [
        json!({"type": 6}),
        json!({"type": 2, "invocationId": "1", "item": 100}),
        json!({"type": 3, "invocationId": "1"}),
        json!({"type": 2, "invocationId": "0", "item": 5}),
        json!({"type": 3, "invocationId": "0"}),
        json!({"type": 5, "invocationId": "e"}),
    ];
    for message in &messages {
        link.send(client.json(message)).await;
    }
    let mut ended = [link.json("c1").await, link.json("c1").await];
    ended.sort_by_key(|end| end["invocationId"].as_str().map(str::to_owned));
    assert_eq!(ended, [json!({"type": 3, "invocationId": "e"}), json!({"type": 3, "invocationId": "u", "result": 5})]);
    link.quiet().await;
    app.gate.add_permits(1);
    assert_eq!(link.json("c1").await["invocationId"], "1");
    let behind = json!({"type": 3, "invocationId": "behind", "result": 100});
    assert_eq!(link.json("c1").await, behind, "it needs no slot, but its turn came only now; its items waited for it");
    app.gate.add_permits(1);
    assert_eq!(link.json("c1").await["invocationId"], "2");
}

#[tokio::test]
async fn a_cancelled_call_sees_it_and_is_answered() {
    let app = App::start_hub(|hub| {
        hub.method("Wait", async |_: Context, cancelled: Cancellation, n: u32| {
            cancelled.cancelled().await;
            n
        })
    })
    .await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    link.send_all(&[client.call(Some("1"), "Wait", "[1]"), client.call(Some("2"), "Wait", "[2]")]).await;
    link.send(client.json(&json!({"type": 5, "invocationId": "2"}))).await;
    link.quiet().await;
    link.send(client.json(&json!({"type": 5, "invocationId": "1"}))).await;
    assert_eq!(link.json("c1").await, json!({"type": 3, "invocationId": "1", "result": 1}));
    let second = json!({"type": 3, "invocationId": "2", "result": 2});
    assert_eq!(link.json("c1").await, second, "it was cancelled before its turn came");
}

#[tokio::test]
async fn the_last_hook_waits_for_calls_that_run() {
    let mut app = App::start_hub(|hub| hub.parallel_invocations(3)).await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    assert_eq!(app.event().await, "connected c1");
    for n in 0..3 {
        link.send(client.call(Some("1").filter(|_| n == 0), "Block", &format!("[{n},\"\"]"))).await;
    }
    link.send(client.left(None)).await;
    app.no_event().await;
    app.gate.add_permits(3);
    let mut events = vec![app.event().await, app.event().await, app.event().await];
    events.sort();
    assert_eq!(events, ["unblocked 0", "unblocked 1", "unblocked 2"]);
    assert_eq!(app.event().await, "disconnected c1 ");
    link.quiet().await;
}

async fn outer(call: HubCall, next: Next) -> Result<Reply, HubError> {
    let method = call.method().to_owned();
    next.run(call).await.map_err(|error| HubError::new(format!("{method}: {}", error.message())))
}

async fn inner(call: HubCall, next: Next) -> Result<Reply, HubError> {
    match call.method() {
        "Nothing" => call.reply(&format!("{} arguments", call.argument_count())),
        "Fail" => Err(HubError::new("not today")),
        _ => next.run(call).await,
    }
}

#[tokio::test]
async fn filters_go_around_methods_the_first_outermost() {
    let app = App::start_hub(|hub| hub.filter(outer).filter(inner)).await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    assert!(link.call(&client, "add", "[1,1]").await.contains("\"result\":2"));
    assert!(link.call(&client, "nothing", "[]").await.contains("\"result\":\"0 arguments\""));
    assert!(link.call(&client, "Fail", "[]").await.contains("HubException: Fail: not today"));
    assert!(link.call(&client, "Break", "[]").await.contains("HubException: Break: out of range"));
    assert!(link.call(&client, "Panic", "[]").await.contains("An unexpected error occurred invoking 'Panic'"));
    let unbound = link.call(&client, "Add", "[1]").await;
    assert!(unbound.contains("HubException: Add: Invocation provides 1 argument(s)"), "{unbound}");
}

#[tokio::test]
async fn a_filter_can_not_give_a_value_for_a_stream() {
    let app = App::start_hub(|hub| {
        hub.method("Endless", async || futures_util::stream::pending::<u8>())
            .filter(async |call: HubCall, _| call.reply(&call.is_streaming()))
    })
    .await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    link.send(client.json(&json!({"type": 4, "invocationId": "1", "target": "Endless", "arguments": []}))).await;
    let text = "The value returned by the streaming method 'Endless' is not a ChannelReader<> or IAsyncEnumerable<>.";
    assert_eq!(link.json("c1").await, json!({"type": 3, "invocationId": "1", "error": text}));
}

#[tokio::test]
async fn items_belong_to_their_connection() {
    let app = App::start_hub(|hub| {
        hub.method("Remember", async |ctx: Context, n: u32| ctx.items().insert(n))
            .method("Recall", async |ctx: Context| ctx.items().get::<u32>())
            .method("Forget", async |ctx: Context| ctx.items().remove::<u32>())
    })
    .await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let (one, two) = (link.client("c1", Json).await, link.client("c2", Json).await);
    assert!(link.call(&one, "Recall", "[]").await.contains("\"result\":null"));
    assert!(link.call(&one, "Remember", "[1]").await.contains("\"result\":null"));
    assert!(link.call(&two, "Remember", "[2]").await.contains("\"result\":null"));
    assert!(link.call(&one, "Recall", "[]").await.contains("\"result\":1"));
    assert!(link.call(&one, "Forget", "[]").await.contains("\"result\":1"));
    assert!(link.call(&one, "Recall", "[]").await.contains("\"result\":null"));
    assert!(link.call(&two, "Recall", "[]").await.contains("\"result\":2"));
}

#[tokio::test]
async fn a_call_that_can_not_be_decoded_fails_alone() {
    let app = App::start_hub(|hub| hub.detailed_errors()).await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let (text, packed) = (link.client("c1", Json).await, link.client("c2", MessagePack).await);
    let deep = format!("\"Add\",\"arguments\":{}{}", "[".repeat(600), "]".repeat(600));
    for (rest, text_of) in [
        ("\"\",\"arguments\":[]", "Failed to invoke '' due to an error on the server. InvalidDataException: Missing"),
        ("\"Add\"", "Failed to invoke 'Add' due to an error on the server. InvalidDataException: Missing"),
        ("\"Add\",\"arguments\":[nope]", "Failed to invoke 'Add' due to an error on the server. InvalidDataException"),
        (&deep, "Failed to invoke 'Add' due to an error on the server. InvalidDataException: The JSON is nested"),
    ] {
        link.send(text.bytes(format!("{{\"type\":1,\"invocationId\":\"7\",\"target\":{rest}}}\u{1e}").into())).await;
        let answer = link.json("c1").await;
        assert_eq!((&answer["type"], &answer["invocationId"]), (&json!(3), &json!("7")));
        assert!(answer["error"].as_str().unwrap().starts_with(text_of), "{answer}");
    }
    // In MessagePack, such a call without an id is dropped.
    for call in [
        b"\x08\x96\x01\x80\xc0\xa1x\xc0\x90".as_slice(), // nil instead of the list
        b"\x0a\x95\x01\x80\xc0\xa1x\xdd\xff\xff\xff",    // a list beyond the message
    ] {
        link.send(packed.bytes(Bytes::copy_from_slice(call))).await;
    }
    let nested = [b"\xe4\x04\x96\x01\x80\xa17\xa3Add\x91".as_slice(), &[0x91; 600], b"\xc0\x90"].concat();
    for call in [
        b"\x0b\x96\x01\x80\xa17\xa3Add\xc0\x90".as_slice(), // nil instead of the list
        b"\x09\x94\x01\x80\xa17\xa3Add",
        b"\x0c\x96\x01\x80\xa17\xa3Add\x91\xc1\x90",
        &nested,
    ] {
        link.send(packed.bytes(Bytes::copy_from_slice(call))).await;
        let answer = link.data("c2").await.payload;
        let frame = next_frame(MessagePack, &answer, 1000).unwrap().unwrap();
        match MessagePack.decode(&answer.slice(frame.body)).unwrap() {
            Some(HubMessage::Completion(Completion { invocation_id, outcome: Outcome::Error(error), .. })) => {
                assert_eq!(invocation_id, "7");
                assert!(error.starts_with("Failed to invoke 'Add' due to an error on the server."), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(link.call(&text, "Add", "[1,1]").await.contains("\"result\":2"), "the connection stays");
    link.send(text.bytes("{\"type\":1,\"target\":\"Add\"}\x1e".into())).await;
    assert_eq!(link.json("c1").await["type"], 7, "without an id nothing can be answered");
}

#[tokio::test]
async fn hooks_run_in_their_order_up_to_the_first_that_fails() {
    let mut app = App::start_hub(|hub| {
        hub.on_connected(async || Err::<(), _>(HubError::new("closed today")))
            .on_connected(async |_: Context| -> Result<(), HubError> { panic!("never called") })
    })
    .await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    link.client("c1", Json).await;
    assert_eq!(app.event().await, "connected c1");
    let text = "Connection closed with an error. HubException: closed today";
    assert_eq!(link.json("c1").await, json!({"type": 7, "error": text}));
    app.no_event().await;
}
