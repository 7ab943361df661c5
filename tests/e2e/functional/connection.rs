//! The official suite's cases of connections without a hub, on `/echo`.

use anyhow::{Result, ensure};
use serde_json::json;
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::client::Connection;
use trunkline_tests::harness::raw::{Ending, RawClient};

use super::functional_scene::{CHOSEN, EVERY, FunctionalCase, FunctionalScene, LONG_POLLING, WEB_SOCKETS, cases};

const TEXT: &str = "Hello World! 你好";

cases!(
    CHOSEN:
        can_connect_to_the_server_without_specifying_transport_explicitly;
    EVERY:
        can_send_and_receive_messages,
        does_not_log_content_of_messages_sent_or_received_by_default,
        does_log_content_of_messages_sent_or_received_when_enabled;
    LONG_POLLING:
        follows_http_redirects;
    WEB_SOCKETS:
        can_be_used_to_connect_to_signalr_endpoint;
);

async fn can_connect_to_the_server_without_specifying_transport_explicitly(scene: FunctionalScene<'_>) -> Result<()> {
    let connection = scene.agents.connection(&scene.test_servers.url(scene.index, "/echo")).open().await?;
    echo_text(connection).await.map(drop)
}

async fn can_send_and_receive_messages(scene: FunctionalScene<'_>) -> Result<()> {
    echo_text(scene.echo().open().await?).await?;
    if scene.transport() == Transport::ServerSentEvents {
        return Ok(());
    }
    // Not part of the suite: binary data stays binary.
    let mut connection = scene.echo().binary().open().await?;
    connection.send(json!({ "base64": "AAH/" })).await?;
    assert_eq!(connection.receive().await?, json!({ "base64": "AAH/" }));
    Ok(())
}

async fn does_not_log_content_of_messages_sent_or_received_by_default(scene: FunctionalScene<'_>) -> Result<()> {
    let lines = echo_text(scene.echo().open().await?).await?;
    ensure!(!lines.iter().any(|line| line.contains(TEXT)), "{lines:?}");
    Ok(())
}

async fn does_log_content_of_messages_sent_or_received_when_enabled(scene: FunctionalScene<'_>) -> Result<()> {
    let lines = echo_text(scene.echo().log_content().open().await?).await?;
    let with_content = lines.iter().filter(|line| line.contains(TEXT)).count();
    ensure!(with_content == 2, "it is sent and received: {lines:?}");
    Ok(())
}

async fn follows_http_redirects(scene: FunctionalScene<'_>) -> Result<()> {
    let url = scene.test_servers.url(scene.index, "/echoredirect");
    let connection = scene.agents.connection(&url).transport(scene.transport().name()).open().await?;
    echo_text(connection).await.map(drop)
}

async fn can_be_used_to_connect_to_signalr_endpoint(scene: FunctionalScene<'_>) -> Result<()> {
    let mut client = RawClient::open(scene.test_servers.address(scene.index), "/echo").await?;
    client.send_text(TEXT).await?;
    assert_eq!(client.next_message().await?.into_text()?.as_str(), TEXT);
    assert_eq!(client.close().await?, Ending { text: String::new(), binary: vec![], code: Some(1000) });
    Ok(())
}

/// Sends a text, receives the echo, closes without an error, and returns the log.
async fn echo_text(mut connection: Connection) -> Result<Vec<String>> {
    connection.send(json!({ "text": TEXT })).await?;
    assert_eq!(connection.receive().await?, json!({ "text": TEXT }));
    let (error, lines) = connection.stop().await?;
    assert_eq!(error, None);
    Ok(lines)
}
