//! Transcripts: equal bytes get equal answers through proxies and embedded.

use anyhow::Result;
use serde_json::{Value, json};
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::raw::{RECORD_SEPARATOR, RawClient};
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::test_servers::{Setting, TestServers};

/// Messages of a client, each with the number of answers to wait for.
fn script() -> Vec<(Value, usize)> {
    let call = |id: &str, target: &str, arguments: Value| json!({ "type": 1, "invocationId": id, "target": target, "arguments": arguments });
    let stream = |id: &str, target: &str, arguments: Value, uploads: Value| json!({ "type": 4, "invocationId": id, "target": target, "arguments": arguments, "streamIds": uploads });
    let item = |id: &str, item: Value| json!({ "type": 2, "invocationId": id, "item": item });
    vec![
        (call("1", "Echo", json!([{ "a": [1, null, "ü"] }])), 1),
        (call("2", "Nope", json!([])), 1),
        (call("3", "Echo", json!([1, 2])), 1),
        (call("4", "Panic", json!([])), 1),
        (call("5", "CountTo", json!([3])), 1),
        (json!({ "type": 1, "target": "Panic", "arguments": [] }), 0),
        (stream("6", "Echo", json!([1]), json!([])), 1),
        (stream("7", "CountTo", json!([3]), json!([])), 4),
        (stream("8", "CountAndRefuse", json!([1, "no more"]), json!([])), 2),
        (stream("9", "Double", json!([]), json!(["up"])), 0),
        (item("up", json!(4)), 1),
        (stream("9", "CountTo", json!([1]), json!([])), 1),
        (item("unknown", json!(1)), 0),
        (json!({ "type": 3, "invocationId": "up" }), 1),
        (stream("10", "Double", json!([]), json!(["up again"])), 0),
        (json!({ "type": 5, "invocationId": "10" }), 1),
        (json!({ "type": 5, "invocationId": "unknown" }), 0),
        (json!({ "type": 99, "whatever": true }), 0),
        (call("11", "AddUp", json!([0])), 1),
        (call("12", "AskMe", json!(["Anything"])), 1),
    ]
}

/// Removes the random id of a client result request.
fn without_question_id(mut message: Value) -> (Value, Option<Value>) {
    let id = message.as_object_mut().filter(|message| message.get("type") == Some(&json!(1)));
    let id = id.and_then(|message| message.remove("invocationId"));
    (message, id)
}

async fn transcript(test_servers: &TestServers) -> Result<Vec<Value>> {
    let mut client = RawClient::join(test_servers.address(0), "/calls").await?;
    let mut transcript = Vec::new();
    let mut question = None;
    for (message, answers) in script() {
        client.send_text(format!("{message}{RECORD_SEPARATOR}")).await?;
        for _ in 0..answers {
            let (answer, id) = without_question_id(client.next_record().await?);
            transcript.push(answer);
            question = question.or(id);
        }
    }
    let answer = json!({ "type": 3, "invocationId": question, "result": "an answer" });
    client.send_text(format!("{answer}{RECORD_SEPARATOR}")).await?;
    transcript.push(client.next_record().await?);
    client.send_text(format!("{{\"type\":7}}{RECORD_SEPARATOR}")).await?;
    let ending = client.ending().await?;
    transcript.extend(ending.messages()?);
    transcript.push(json!(ending.code));
    Ok(transcript)
}

#[test]
fn the_same_bytes_get_the_same_answers_through_a_proxy_and_without_one() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let mut transcripts = Vec::new();
        for setting in Setting::ALL {
            let test_servers = TestServers::start(&fleet, App::Calls, setting).await?;
            transcripts.push(transcript(&test_servers).await?);
        }
        assert_eq!(transcripts[0], transcripts[1]);
        let texts: Vec<&str> = transcripts[0].iter().filter_map(|message| message["error"].as_str()).collect();
        let expected = [
            "Failed to invoke 'Nope' due to an error on the server. HubException: Method does not exist.",
            "Failed to invoke 'Echo' due to an error on the server.",
            "An unexpected error occurred invoking 'Panic' on the server.",
            "The client attempted to invoke the streaming 'CountTo' method with a non-streaming invocation.",
            "The client attempted to invoke the non-streaming 'Echo' method with a streaming invocation.",
            "An error occurred on the server while streaming results. HubException: no more",
            "Invocation ID '9' is already in use.",
            "An unexpected error occurred invoking 'AddUp' on the server. \
             HubException: Client sent 0 stream(s), Hub method expects 1.",
        ];
        assert_eq!(texts, expected);
        Ok(())
    });
}
