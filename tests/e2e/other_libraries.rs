//! Client libraries other than JavaScript's and Python's: Java, Go, and .NET if available.
//!
//! All run one scenario. The book's page of a library lists its missing features.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::client::{Agents, Client, ClientAnswer, Kind, Streamed};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet};
use trunkline_tests::harness::http_client::get;
use trunkline_tests::harness::relay::{Fate, Relay};
use trunkline_tests::harness::scenario::{pairs, run_test};
use trunkline_tests::harness::test_servers::{Setting, TestServers};
use trunkline_tests::harness::token;

/// First bytes of requests with a connection of the hub `/calls`.
const CONNECTION_REQUEST: &[u8] = b"GET /calls";

fn numbers(end: u64) -> Vec<Value> {
    (1..=end).map(Value::from).collect()
}

/// Arguments of the next messages to a target. The Go library handles each message in a separate goroutine, so its
/// messages are sorted.
async fn arguments_of(client: &mut Client, target: &str, count: usize) -> Result<Vec<Value>> {
    let mut arguments = Vec::new();
    for _ in 0..count {
        arguments.extend(client.expect(target).await?);
    }
    if matches!(client.kind(), Kind::GoJson | Kind::GoMessagePack) {
        arguments.sort_by_key(|argument| (argument.as_u64(), argument.as_str().map(str::to_owned)));
    }
    Ok(arguments)
}

/// Each library does everything that it can, in each setup. The index selects the proxy.
#[test]
fn other_libraries_call_stream_upload_answer_and_come_back_by_each_transport() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        for (setting, kinds) in pairs(&Setting::ALL, &Kind::others()) {
            let test_servers = TestServers::start(&fleet, App::Calls, setting).await?;
            for (index, kind) in kinds.into_iter().enumerate() {
                let shown = || format!("{kind:?}, {setting:?}");
                calls_and_errors(&agents, &test_servers, kind, index).await.with_context(shown)?;
                streams_and_their_errors(&agents, &test_servers, kind, index).await.with_context(shown)?;
                uploads(&agents, &test_servers, kind, index).await.with_context(shown)?;
                answers(&agents, &test_servers, kind, index).await.with_context(shown)?;
                a_lost_connection(&agents, &test_servers, kind, index).await.with_context(shown)?;
                http_transports(&agents, &test_servers, kind, index).await.with_context(shown)?;
            }
        }
        Ok(())
    });
}

async fn calls_and_errors(agents: &Agents<'_>, test_servers: &TestServers, kind: Kind, index: usize) -> Result<()> {
    let client = agents.client(kind, &test_servers.url(index, "/calls")).open().await?;
    for value in [json!("text, Ünïcode 🚀"), json!(null), json!({ "a": [1, -2, true, null], "b": 0.5 })] {
        assert_eq!(client.invoke("Echo", json!([value])).await?, value);
    }
    assert_eq!(client.invoke("EchoSigned", json!([-5])).await?, -5);
    assert_eq!(client.invoke("Remember", json!(["Ann"])).await?, Value::Null);
    assert_eq!(client.invoke("Recall", json!([])).await?, "Ann");
    assert_eq!(client.invoke("Join", json!(["nothing comes back"])).await?, Value::Null);
    let unknown = "Failed to invoke 'Nope' due to an error on the server. HubException: Method does not exist.";
    assert!(client.invoke_failing("Nope", json!([])).await?.contains(unknown));
    assert_eq!(client.invoke("ConnectionId", json!([])).await?, client.connection_id()?);
    Ok(())
}

async fn streams_and_their_errors(
    agents: &Agents<'_>,
    test_servers: &TestServers,
    kind: Kind,
    index: usize,
) -> Result<()> {
    let client = agents.client(kind, &test_servers.url(index, "/calls")).open().await?;
    let streamed = client.stream("CountTo", json!([500])).await?;
    assert_eq!(streamed, Streamed { items: numbers(500), error: None });
    let streamed = client.stream("CountAndRefuse", json!([3, "no more"])).await?;
    match kind {
        // The library handles each message in a separate goroutine, so the error may overtake the last items.
        Kind::GoJson | Kind::GoMessagePack => assert!(numbers(3).starts_with(&streamed.items), "{streamed:?}"),
        _ => assert_eq!(streamed.items, numbers(3), "{kind:?}"),
    }
    let error = streamed.error.context("an error")?;
    assert!(error.contains("HubException: no more"), "{error}");
    assert_eq!(client.invoke("Echo", json!(["still here"])).await?, "still here");
    Ok(())
}

async fn uploads(agents: &Agents<'_>, test_servers: &TestServers, kind: Kind, index: usize) -> Result<()> {
    let builder = agents.client(kind, &test_servers.url(index, "/calls")).subscribe(&["Taken"]);
    let mut client = builder.open().await?;
    client.invoke("SetGate", json!([true])).await?;
    // The second upload shows that the first one left no state.
    for count in [100, 3] {
        let taken = client.invoke_with_items("TakeUpload", json!(numbers(count))).await?;
        assert_eq!(taken, count);
        let items = numbers(count);
        assert_eq!(arguments_of(&mut client, "Taken", items.len()).await?, items);
    }
    Ok(())
}

async fn answers(agents: &Agents<'_>, test_servers: &TestServers, kind: Kind, index: usize) -> Result<()> {
    let mut builder = agents.client(kind, &test_servers.url(index, "/calls"));
    builder = builder.answer("Value", &ClientAnswer::Value(json!({ "a": [1, null] })));
    let is_net = matches!(kind, Kind::NetJson | Kind::NetMessagePack);
    if !is_net {
        builder = builder.answer("Throw", &ClientAnswer::Error("not now".into()));
    }
    let asked = builder.open().await?;
    let id = asked.connection_id()?;
    let asker = agents.client(Kind::JsMessagePack, &test_servers.url(index + 1, "/calls")).open().await?;
    assert_eq!(asker.invoke("Ask", json!([id, "Value"])).await?, json!({ "a": [1, null] }));
    if !is_net {
        let error = asker.invoke_failing("Ask", json!([id, "Throw"])).await?;
        assert!(error.contains("not now"), "{error}");
    }
    let no_handler = match kind {
        Kind::GoJson | Kind::GoMessagePack => "Unknown method NoHandler",
        _ => "Client failed to parse argument(s).",
    };
    let error = asker.invoke_failing("Ask", json!([id, "NoHandler"])).await?;
    assert!(error.contains(no_handler), "{error}");
    assert_eq!(asked.invoke("Echo", json!(["still here"])).await?, "still here");
    Ok(())
}

#[test]
fn messages_to_groups_and_to_all_reach_every_library() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        for setting in Setting::ALL {
            let test_servers = TestServers::start(&fleet, App::Calls, setting).await?;
            let mut clients = Vec::new();
            for (index, kind) in [Kind::JsJson].into_iter().chain(Kind::others()).enumerate() {
                let builder = agents.client(kind, &test_servers.url(index, "/calls")).subscribe(&["Announced"]);
                let client = builder.open().await?;
                // The first client is not in the group.
                if index > 0 {
                    client.invoke("Join", json!(["red"])).await?;
                }
                clients.push(client);
            }
            for sender in 0..clients.len() {
                let text = format!("from {sender}");
                clients[sender].send("SendToGroup", json!(["red", text])).await?;
                for member in clients.iter_mut().skip(1) {
                    assert_eq!(member.expect("Announced").await?, [text.as_str()], "{:?}, {setting:?}", member.kind());
                }
            }
            get(test_servers.app.address(), "/announce/everyone").await?;
            for client in &mut clients {
                assert_eq!(client.expect("Announced").await?, ["everyone"], "{:?}, {setting:?}", client.kind());
            }
        }
        Ok(())
    });
}

#[test]
fn other_libraries_show_access_tokens() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let proxies = fleet.two_proxies(&app).await?;
        let caller = agents.client(Kind::JsJson, &proxies[1].url("/sends")).open().await?;
        for kind in Kind::others() {
            let user = format!("{kind:?}");
            let builder = agents.client(kind, &proxies[0].url("/sends")).subscribe(&["Received"]);
            let mut client = builder.access_token(&token::of_user(ACCESS_KEY, &user)?).open().await?;
            // The .NET program has registered its targets once a call is answered.
            client.invoke("Join", json!(["red"])).await?;
            caller.invoke("ToUser", json!(["nobody", "not for you"])).await?;
            caller.invoke("ToUser", json!([user, "for you"])).await?;
            assert_eq!(client.expect("Received").await?, ["for you"], "{kind:?}");
            let forged = token::of_user("another key, which the fleet does not have", &user)?;
            let refused = agents.client(kind, &proxies[0].url("/sends")).access_token(&forged).open().await;
            assert!(refused.is_err(), "{kind:?}");
        }
        Ok(())
    });
}

async fn a_lost_connection(agents: &Agents<'_>, test_servers: &TestServers, kind: Kind, index: usize) -> Result<()> {
    let relay = Relay::start_for(CONNECTION_REQUEST, test_servers.address(index)).await?;
    let mut builder = agents.client(kind, &format!("http://{}/calls", relay.address()));
    // The Java library has no automatic reconnect.
    let is_automatic = kind != Kind::JavaJson;
    if is_automatic {
        builder = builder.reconnect_after_ms(&[0]);
    }
    let mut client = builder.open().await?;
    let before = client.connection_id()?.to_owned();
    relay.decide(Fate::Cut, 1);
    if is_automatic {
        client.reconnected().await?;
    } else {
        client.closed().await?;
        client.start_again().await?;
    }
    let now = client.invoke("ConnectionId", json!([])).await?;
    assert_eq!(now, client.connection_id()?);
    assert_ne!(now, before);
    Ok(())
}

/// Transports other than WebSockets that a library supports with its protocol.
fn other_transports(kind: Kind) -> &'static [Transport] {
    match kind {
        Kind::JavaJson => &[Transport::LongPolling],
        Kind::GoJson => &[Transport::ServerSentEvents],
        Kind::NetJson => &[Transport::ServerSentEvents, Transport::LongPolling],
        Kind::NetMessagePack => &[Transport::LongPolling],
        _ => &[],
    }
}

async fn http_transports(agents: &Agents<'_>, test_servers: &TestServers, kind: Kind, index: usize) -> Result<()> {
    for transport in other_transports(kind) {
        let builder = agents.client(kind, &test_servers.url(index, "/calls")).transport(*transport);
        let mut client = builder.subscribe(&["Announced"]).open().await?;
        assert_eq!(client.invoke("Echo", json!(["hello"])).await?, "hello", "{transport:?}");
        client.invoke("Join", json!(["red"])).await?;
        client.send("SendToGroup", json!(["red", "to the group"])).await?;
        assert_eq!(client.expect("Announced").await?, ["to the group"], "{transport:?}");
        let streamed = client.stream("CountTo", json!([50])).await?;
        assert_eq!(streamed, Streamed { items: numbers(50), error: None }, "{transport:?}");
        client.close().await?;
    }
    Ok(())
}
