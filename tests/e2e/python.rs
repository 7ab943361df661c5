//! Python libraries beyond calls: streams, uploads of one stream, client results.

use anyhow::Result;
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Client, ClientAnswer, Kind, Streamed};
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::scenario::{pairs, run_test};
use trunkline_tests::harness::test_servers::{Setting, TestServers};

const EVERY_PYTHON: [Kind; 4] =
    [Kind::PySignalRJson, Kind::PySignalRMessagePack, Kind::SignalRCoreJson, Kind::SignalRCoreMessagePack];

/// Kinds that can upload: `signalrcore` omits the invocation id of an upload in MessagePack, which no server can read.
const UPLOADING: [Kind; 3] = [Kind::PySignalRJson, Kind::PySignalRMessagePack, Kind::SignalRCoreJson];

/// Kinds that answer client results.
const PYSIGNALR: [Kind; 2] = [Kind::PySignalRJson, Kind::PySignalRMessagePack];

fn numbers(end: u64) -> Vec<Value> {
    (1..=end).map(Value::from).collect()
}

#[test]
fn python_clients_receive_streams_upload_and_answer() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        for (setting, kinds) in pairs(&Setting::ALL, &EVERY_PYTHON) {
            let test_servers = TestServers::start(&fleet, App::Calls, setting).await?;
            for (index, kind) in kinds.into_iter().enumerate() {
                let url = test_servers.url(index, "/calls");
                let mut client = agents.client(kind, &url).subscribe(&["Taken"]).open().await?;
                streams(&client).await?;
                if UPLOADING.contains(&kind) {
                    client.invoke("SetGate", json!([true])).await?;
                    upload(&mut client, 100).await?;
                    // A second upload shows that the first one left no state.
                    upload(&mut client, 3).await?;
                }
                if PYSIGNALR.contains(&kind) {
                    answers(&agents, kind, [&url, &test_servers.url(index + 1, "/calls")]).await?;
                }
                assert_eq!(client.invoke("Echo", json!(["still here"])).await?, "still here");
            }
        }
        Ok(())
    });
}

async fn streams(client: &Client) -> Result<()> {
    let kind = client.kind();
    let streamed = client.stream("CountTo", json!([500])).await?;
    assert_eq!(streamed, Streamed { items: numbers(500), error: None }, "{kind:?}");
    let streamed = client.stream("CountAndRefuse", json!([3, "no more"])).await?;
    let error = "An error occurred on the server while streaming results. HubException: no more";
    assert_eq!(streamed, Streamed { items: numbers(3), error: Some(error.into()) }, "{kind:?}");
    Ok(())
}

async fn upload(client: &mut Client, count: u64) -> Result<()> {
    let upload = client.upload("numbers").await?;
    client.send("TakeUpload", json!([upload.argument()])).await?;
    upload.feed(json!(numbers(count))).await?;
    upload.complete().await?;
    for number in numbers(count) {
        assert_eq!(client.expect("Taken").await?, [number], "{:?}", client.kind());
    }
    Ok(())
}

/// Asks a client at the first address, from the second one.
async fn answers(agents: &Agents<'_>, kind: Kind, [here, there]: [&str; 2]) -> Result<()> {
    let asked = agents
        .client(kind, here)
        .answer("Value", &ClientAnswer::Value(json!({ "a": [1, null] })))
        .answer("Throw", &ClientAnswer::Error("not now".into()))
        .answer("Nothing", &ClientAnswer::Nothing)
        .answer("Twice", &ClientAnswer::Several(vec![json!(1), json!(2)]))
        .open()
        .await?;
    let id = asked.connection_id()?;
    let asker = agents.client(Kind::JsMessagePack, there).open().await?;
    assert_eq!(asker.invoke("Ask", json!([id, "Value"])).await?, json!({ "a": [1, null] }), "{kind:?}");
    for (method, text) in [
        ("Throw", "not now"),
        ("Nothing", "Client didn't provide a result."),
        ("NoHandler", "Client didn't provide a result."),
        ("Twice", "Client provided multiple results."),
    ] {
        let expected = format!("An unexpected error occurred invoking 'Ask' on the server. HubException: {text}");
        assert_eq!(asker.invoke_failing("Ask", json!([id, method])).await?, expected, "{kind:?}");
    }
    Ok(())
}
