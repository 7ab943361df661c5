//! The cases, under their names in the suite. A case fails if it returns an error or hangs.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::client::{Client, ClientAnswer, Streamed};
use trunkline_tests::harness::http_client::get;

use super::functional_scene::{
    CHOSEN, COUNTING_SILENCE, EVERY, FunctionalCase, FunctionalScene, LONG_POLLING, WEB_SOCKETS, cases,
};

const CHINESE: &str = "你好,世界!";

/// Header with the library's name, in Node.
const USER_AGENT: &str = "User-Agent";

cases!(
    EVERY:
        can_invoke_server_method_and_receive_result,
        can_invoke_server_method_non_blocking_and_not_receive_result,
        can_invoke_server_method_structural_object_and_receive_structural_result,
        can_stream_server_method_and_receive_result,
        can_stream_server_method_and_cancel_stream,
        rethrows_an_exception_from_the_server_when_streaming,
        rethrows_an_exception_from_the_server_when_invoking,
        throws_an_exception_when_invoking_streaming_method_with_invoke_empty_stream,
        throws_an_exception_when_invoking_streaming_method_with_invoke_stream,
        throws_an_exception_when_streaming_a_non_streaming_method,
        can_receive_server_calls,
        can_receive_server_calls_without_rebinding_handlers_when_restarted,
        can_handle_different_types,
        can_receive_different_types,
        can_be_restarted,
        can_stream_from_client_to_server,
        can_stream_from_client_to_server_and_close_with_error,
        can_return_result_to_server,
        can_throw_result_to_server,
        can_give_no_result_to_server,
        can_reconnect,
        can_change_url_in_reconnecting_state,
        connection_id_matches_server_side_connection_id,
        sets_the_user_agent_header,
        overwrites_library_headers_with_user_headers,
        can_connect_to_hub_with_authorization,
        can_connect_to_hub_with_authorization_using_async_token_factory,
        error_message_from_unauthorized_connection,
        expired_cookies_are_not_preserved;
    COUNTING_SILENCE:
        terminates_if_no_messages_received_within_timeout_interval;
    WEB_SOCKETS:
        can_reconnect_after_skipping_negotiation,
        connection_id_is_always_null_if_negotiation_is_skipped,
        can_reconnect_after_negotiate_redirect,
        contains_server_response_in_error;
    CHOSEN:
        skips_server_sent_events_when_negotiating_for_message_pack_protocol,
        transport_falls_back_from_web_sockets;
    LONG_POLLING:
        over_long_polling_it_sends_delete_request_and_waits_for_poll_to_terminate;
);

/// Fails if a value differs from the suite's.
pub(super) fn expect<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug>(found: T, expected: U) -> Result<()> {
    ensure!(found == expected, "{expected:?} should come, but {found:?} did");
    Ok(())
}

pub(super) async fn close(mut client: Client) -> Result<()> {
    client.close().await
}

async fn can_invoke_server_method_and_receive_result(scene: FunctionalScene<'_>) -> Result<()> {
    let client = scene.client().open().await?;
    expect(client.invoke("Echo", json!([CHINESE])).await?, CHINESE)?;
    close(client).await
}

async fn can_invoke_server_method_non_blocking_and_not_receive_result(scene: FunctionalScene<'_>) -> Result<()> {
    let client = scene.client().open().await?;
    client.send("Echo", json!([CHINESE])).await?;
    close(client).await
}

async fn can_invoke_server_method_structural_object_and_receive_structural_result(
    scene: FunctionalScene<'_>,
) -> Result<()> {
    let mut client = scene.client().subscribe(&["CustomObject"]).open().await?;
    let object = json!({ "Name": "test", "Value": 42 });
    client.send("SendCustomObject", json!([object])).await?;
    expect(client.expect("CustomObject").await?, [object])?;
    close(client).await
}

async fn can_stream_server_method_and_receive_result(scene: FunctionalScene<'_>) -> Result<()> {
    let client = scene.client().open().await?;
    let expected = Streamed { items: vec![json!("a"), json!("b"), json!("c")], error: None };
    expect(client.stream("Stream", json!([])).await?, expected)?;
    close(client).await
}

async fn can_stream_server_method_and_cancel_stream(scene: FunctionalScene<'_>) -> Result<()> {
    let mut client = scene.client().subscribe(&["StreamCanceled"]).open().await?;
    client.stream_first(0, "InfiniteStream", json!([])).await?;
    expect(client.expect("StreamCanceled").await?, Vec::<Value>::new())?;
    close(client).await
}

async fn rethrows_an_exception_from_the_server_when_streaming(scene: FunctionalScene<'_>) -> Result<()> {
    let text = "An unexpected error occurred invoking 'StreamThrowException' on the server. \
                InvalidOperationException: An error occurred.";
    stream_fails(scene, "StreamThrowException", json!(["An error occurred."]), text).await
}

async fn rethrows_an_exception_from_the_server_when_invoking(scene: FunctionalScene<'_>) -> Result<()> {
    let text = "An unexpected error occurred invoking 'ThrowException' on the server. \
                InvalidOperationException: An error occurred.";
    invoke_fails(scene, "ThrowException", json!(["An error occurred."]), text).await
}

async fn throws_an_exception_when_invoking_streaming_method_with_invoke_empty_stream(
    scene: FunctionalScene<'_>,
) -> Result<()> {
    let text = "The client attempted to invoke the streaming 'EmptyStream' method with a non-streaming invocation.";
    invoke_fails(scene, "EmptyStream", json!([]), text).await
}

async fn throws_an_exception_when_invoking_streaming_method_with_invoke_stream(
    scene: FunctionalScene<'_>,
) -> Result<()> {
    let text = "The client attempted to invoke the streaming 'Stream' method with a non-streaming invocation.";
    invoke_fails(scene, "Stream", json!([]), text).await
}

async fn throws_an_exception_when_streaming_a_non_streaming_method(scene: FunctionalScene<'_>) -> Result<()> {
    let text = "The client attempted to invoke the non-streaming 'Echo' method with a streaming invocation.";
    stream_fails(scene, "Echo", json!(["42"]), text).await
}

async fn invoke_fails(scene: FunctionalScene<'_>, target: &str, arguments: Value, text: &str) -> Result<()> {
    let client = scene.client().open().await?;
    expect(client.invoke_failing(target, arguments).await?, text)?;
    close(client).await
}

async fn stream_fails(scene: FunctionalScene<'_>, target: &str, arguments: Value, text: &str) -> Result<()> {
    let client = scene.client().open().await?;
    let expected = Streamed { items: Vec::new(), error: Some(text.into()) };
    expect(client.stream(target, arguments).await?, expected)?;
    close(client).await
}

async fn can_receive_server_calls(scene: FunctionalScene<'_>) -> Result<()> {
    let mut client = scene.client().subscribe(&["Message"]).open().await?;
    expect(client.invoke("InvokeWithString", json!([CHINESE])).await?, Value::Null)?;
    expect(client.expect("Message").await?, [CHINESE])?;
    close(client).await
}

async fn can_receive_server_calls_without_rebinding_handlers_when_restarted(scene: FunctionalScene<'_>) -> Result<()> {
    // Handler names are case-insensitive.
    let mut client = scene.client().subscribe(&["message"]).open().await?;
    for round in 0..3 {
        client.invoke("InvokeWithString", json!([format!("round {round}")])).await?;
        expect(client.expect("message").await?, [format!("round {round}")])?;
        client.close().await?;
        client.start_again().await?;
    }
    close(client).await
}

async fn can_handle_different_types(scene: FunctionalScene<'_>) -> Result<()> {
    let client = scene.client().open().await?;
    let object = match scene.is_json() {
        true => {
            complex_object(json!("aGVsbG8="), json!("2002-04-01T10:20:15Z"), json!([1, 2, 3, 255]), "Hello, World!")
        }
        false => complex_object(
            json!({ "$bytes": [0x68, 0x65, 0x6c, 0x6c, 0x6f] }),
            json!({ "$date": "2002-04-01T10:20:15.000Z" }),
            json!([1, 2, 3, 255]),
            "Hello, World!",
        ),
    };
    expect(client.invoke("EchoComplexObject", json!([object])).await?, object)?;
    close(client).await
}

async fn can_receive_different_types(scene: FunctionalScene<'_>) -> Result<()> {
    let client = scene.client().open().await?;
    let object = match scene.is_json() {
        true => complex_object(json!("AQID"), json!("2000-01-01T00:00:00Z"), json!([1, 2, 3]), "hello world"),
        false => complex_object(
            json!({ "$bytes": [1, 2, 3] }),
            json!({ "$date": "2000-01-01T00:00:00.000Z" }),
            json!([1, 2, 3]),
            "hello world",
        ),
    };
    expect(client.invoke("SendComplexObject", json!([])).await?, object)?;
    close(client).await
}

fn complex_object(bytes: Value, moment: Value, numbers: Value, text: &str) -> Value {
    json!({
        "ByteArray": bytes,
        "DateTime": moment,
        "Guid": "00010203-0405-0607-0706-050403020100",
        "IntArray": numbers,
        "String": text,
    })
}

async fn can_be_restarted(scene: FunctionalScene<'_>) -> Result<()> {
    let mut client = scene.client().open().await?;
    let first_id = client.connection_id()?.to_owned();
    client.close().await?;
    client.start_again().await?;
    ensure!(client.connection_id()? != first_id, "a new connection should have a new id");
    expect(client.invoke("Echo", json!([CHINESE])).await?, CHINESE)?;
    close(client).await
}

async fn can_stream_from_client_to_server(scene: FunctionalScene<'_>) -> Result<()> {
    let client = scene.client().open().await?;
    let upload = client.upload("text").await?;
    let (concatenation, _) = tokio::try_join!(client.invoke("StreamingConcat", json!([upload.argument()])), async {
        upload.feed(json!(["Hello ", "world", "!"])).await?;
        upload.complete().await
    })?;
    expect(concatenation, "Hello world!")?;
    close(client).await
}

async fn can_stream_from_client_to_server_and_close_with_error(scene: FunctionalScene<'_>) -> Result<()> {
    let client = scene.client().open().await?;
    let upload = client.upload("text").await?;
    let (error, _) = tokio::try_join!(client.invoke_failing("StreamingConcat", json!([upload.argument()])), async {
        upload.feed(json!(["Hello ", "world", "!"])).await?;
        upload.fail("Something bad").await
    })?;
    let expected = "An unexpected error occurred invoking 'StreamingConcat' on the server. HubException: Something bad";
    expect(error, expected)?;
    close(client).await
}

async fn can_return_result_to_server(scene: FunctionalScene<'_>) -> Result<()> {
    client_result(scene, ClientAnswer::Value(json!(10)), "10").await
}

async fn can_throw_result_to_server(scene: FunctionalScene<'_>) -> Result<()> {
    client_result(scene, ClientAnswer::Error("from callback".into()), "Error: from callback").await
}

async fn can_give_no_result_to_server(scene: FunctionalScene<'_>) -> Result<()> {
    client_result(scene, ClientAnswer::Nothing, "Client didn't provide a result.").await
}

/// The app's HTTP endpoint asks the client.
async fn client_result(scene: FunctionalScene<'_>, answer: ClientAnswer, expected: &str) -> Result<()> {
    let mut client = scene.client().answer("Result", &answer).open().await?;
    let path = format!("/clientresult/{}", client.connection_id()?);
    let response = get(scene.test_servers.app.address(), &path).await?;
    expect((response.status.as_u16(), response.body.as_str()), (200, expected))?;
    expect(client.expect("Result").await?, Vec::<Value>::new())?;
    close(client).await
}

async fn terminates_if_no_messages_received_within_timeout_interval(scene: FunctionalScene<'_>) -> Result<()> {
    let mut client = scene.client().server_timeout_ms(100).open().await?;
    let expected = "Server timeout elapsed without receiving a message from the server.";
    expect(client.closed().await?.as_deref(), Some(expected))
}

async fn can_reconnect(scene: FunctionalScene<'_>) -> Result<()> {
    let mut client = scene.client().reconnect_after_ms(&[0]).open().await?;
    let first_id = client.connection_id()?.to_owned();
    client.sever().await?;
    client.reconnected().await?;
    ensure!(client.connection_id()? != first_id, "a new connection should have a new id");
    expect(client.invoke("GetCallerConnectionId", json!([])).await?, client.connection_id()?)?;
    close(client).await
}

async fn can_change_url_in_reconnecting_state(scene: FunctionalScene<'_>) -> Result<()> {
    let elsewhere = scene.url_elsewhere("/testhub?numRedirects=7");
    let mut client = scene.client().reconnect_after_ms(&[0]).reconnect_to(&elsewhere).open().await?;
    client.sever().await?;
    client.reconnected().await?;
    expect(client.invoke("GetNumRedirects", json!([])).await?, 7)?;
    close(client).await
}

async fn can_reconnect_after_skipping_negotiation(scene: FunctionalScene<'_>) -> Result<()> {
    let mut client = scene.client().skip_negotiation().reconnect_after_ms(&[0]).open().await?;
    let id_at_server = client.invoke("GetCallerConnectionId", json!([])).await?;
    client.sever().await?;
    client.reconnected().await?;
    ensure!(client.connection_id().is_err(), "an id without negotiation");
    let new_id_at_server = client.invoke("GetCallerConnectionId", json!([])).await?;
    ensure!(new_id_at_server != id_at_server, "a new connection should have a new id");
    expect(client.invoke("GetActiveTransportName", json!([])).await?, "WebSockets")?;
    close(client).await
}

async fn connection_id_matches_server_side_connection_id(scene: FunctionalScene<'_>) -> Result<()> {
    let mut client = scene.client().open().await?;
    expect(client.invoke("GetCallerConnectionId", json!([])).await?, client.connection_id()?)?;
    client.close().await?;
    client.start_again().await?;
    expect(client.invoke("GetCallerConnectionId", json!([])).await?, client.connection_id()?)?;
    close(client).await
}

async fn connection_id_is_always_null_if_negotiation_is_skipped(scene: FunctionalScene<'_>) -> Result<()> {
    let mut client = scene.client().skip_negotiation().open().await?;
    ensure!(client.connection_id().is_err(), "an id without negotiation");
    client.close().await?;
    client.start_again().await?;
    ensure!(client.connection_id().is_err(), "an id without negotiation");
    close(client).await
}

async fn sets_the_user_agent_header(scene: FunctionalScene<'_>) -> Result<()> {
    let client = scene.client().open().await?;
    let agent = client.invoke("GetHeader", json!([USER_AGENT])).await?;
    ensure!(agent.as_str().is_some_and(|agent| agent.starts_with("Microsoft SignalR/")), "{agent} is no user agent");
    expect(client.invoke("GetHeader", json!(["X-Absent"])).await?, Value::Null)?;
    close(client).await
}

async fn overwrites_library_headers_with_user_headers(scene: FunctionalScene<'_>) -> Result<()> {
    let headers = json!({ USER_AGENT: "Custom Agent", "X-HEADER": "VALUE" });
    let client = scene.client().headers(headers).open().await?;
    expect(client.invoke("GetHeader", json!([USER_AGENT])).await?, "Custom Agent")?;
    expect(client.invoke("GetHeader", json!(["X-HEADER"])).await?, "VALUE")?;
    close(client).await
}

async fn skips_server_sent_events_when_negotiating_for_message_pack_protocol(scene: FunctionalScene<'_>) -> Result<()> {
    let client = scene.client_without_web_sockets().open().await?;
    let expected = if scene.is_json() { Transport::ServerSentEvents } else { Transport::LongPolling };
    expect(client.invoke("GetActiveTransportName", json!([])).await?, expected.name())?;
    expect(client.invoke("Echo", json!([CHINESE])).await?, CHINESE)?;
    close(client).await
}

/// The suite hides WebSockets from the library. Here the hub does not offer them.
async fn transport_falls_back_from_web_sockets(scene: FunctionalScene<'_>) -> Result<()> {
    let client = scene.client_without_web_sockets().open().await?;
    let transport = client.invoke("GetActiveTransportName", json!([])).await?;
    ensure!(transport != Transport::WebSockets.name(), "WebSockets were not offered");
    close(client).await
}

/// `stop` waits for both. Afterwards the node has no state of the client, which can start again.
async fn over_long_polling_it_sends_delete_request_and_waits_for_poll_to_terminate(
    scene: FunctionalScene<'_>,
) -> Result<()> {
    let mut client = scene.client().open().await?;
    expect(client.invoke("GetActiveTransportName", json!([])).await?, scene.transport().name())?;
    client.close().await?;
    client.start_again().await?;
    expect(client.invoke("Echo", json!([CHINESE])).await?, CHINESE)?;
    close(client).await
}

async fn token(scene: FunctionalScene<'_>) -> Result<String> {
    Ok(get(scene.test_servers.app.address(), "/generateJwtToken").await?.body)
}

async fn can_connect_to_hub_with_authorization(scene: FunctionalScene<'_>) -> Result<()> {
    let client = scene.client_at("/authorizedhub").access_token(&token(scene).await?).open().await?;
    expect(client.invoke("Echo", json!([CHINESE])).await?, CHINESE)?;
    close(client).await
}

async fn can_connect_to_hub_with_authorization_using_async_token_factory(scene: FunctionalScene<'_>) -> Result<()> {
    let client = scene.client_at("/authorizedhub").async_access_token(&token(scene).await?).open().await?;
    expect(client.invoke("Echo", json!([CHINESE])).await?, CHINESE)?;
    close(client).await
}

async fn error_message_from_unauthorized_connection(scene: FunctionalScene<'_>) -> Result<()> {
    let error = format!("{:#}", scene.client_at("/authorizedhub").open().await.err().context("it should fail")?);
    let expected = "Failed to complete negotiation with the server: Error: Unauthorized: Status code '401'";
    ensure!(error.contains(expected), "{error}");
    Ok(())
}

async fn expired_cookies_are_not_preserved(scene: FunctionalScene<'_>) -> Result<()> {
    let client = scene.client().open().await?;
    expect(client.invoke("GetCookie", json!(["testCookie"])).await?, "testValue")?;
    expect(client.invoke("GetCookie", json!(["testCookie2"])).await?, "testValue2")?;
    expect(client.invoke("GetCookie", json!(["expiredCookie"])).await?, Value::Null)?;
    close(client).await
}

async fn can_reconnect_after_negotiate_redirect(scene: FunctionalScene<'_>) -> Result<()> {
    let redirect = format!("/redirect?numRedirects=0&baseUrl={}", scene.url_elsewhere(""));
    let mut client = scene.client_at(&redirect).reconnect_after_ms(&[0]).open().await?;
    let first = client.invoke("GetNumRedirects", json!([])).await?.as_u64().context("a number")?;
    client.sever().await?;
    client.reconnected().await?;
    expect(client.invoke("GetNumRedirects", json!([])).await?, first + 1)?;
    close(client).await
}

async fn contains_server_response_in_error(scene: FunctionalScene<'_>) -> Result<()> {
    let error = format!("{:#}", scene.client_at("/bad-negotiate").open().await.err().context("it should fail")?);
    ensure!(error.contains("Error: Some response from server: Status code '400'"), "{error}");
    Ok(())
}
