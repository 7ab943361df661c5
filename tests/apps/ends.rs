//! Test app server for ends of connections: its hooks print the causes.
//!
//! | path | purpose |
//! |---|---|
//! | `/ends` | `Id()` returns the connection id; `Abort()` closes; closes clients when their tokens expire; WebSockets and long polling |
//! | `/lively` | short client timeout, and events too |
//! | `/hasty` | very short timeout for the hub handshake |
//! | `/unwelcoming` | its `on_connected` fails |
//! | `/line` | raw: first sends its connection id; executes the texts `close`, `fail` and `panic` |
//!
//! Output lines: `listening on …`, then `disconnected ID CAUSE`, with causes named as in the taxonomy.

use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use trunkline::{Cause, Context, Hub, HubError, RawConnection, RawEndpoint, RawMessage, Server, Transport};

/// Handshake timeout: long enough for an immediate handshake, short enough for a test to wait.
const HASTY_HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(300);

/// Client timeout: longer than a busy machine delays a ping, short enough for a test to wait.
const LIVELY_CLIENT_TIMEOUT: Duration = Duration::from_secs(2);

#[expect(clippy::print_stdout, reason = "the tests read these lines")]
fn print_line(line: &str) {
    println!("{line}");
}

async fn disconnected(ctx: Context, cause: Cause) {
    print_line(&format!("disconnected {} {cause}", ctx.connection_id()));
}

async fn id(ctx: Context) -> String {
    ctx.connection_id().to_owned()
}

async fn abort(ctx: Context) {
    ctx.abort();
}

async fn fill(ctx: Context, messages: usize) -> Result<(), HubError> {
    let padding = "x".repeat(16_000);
    for _ in 0..messages {
        ctx.clients().others().send("Fill", (&padding,)).await?;
    }
    Ok(())
}

async fn refuse_all() -> Result<(), HubError> {
    Err(HubError::new("nobody is welcome"))
}

async fn line(mut client: RawConnection) -> Result<(), HubError> {
    client.send(client.connection_id().to_owned()).await?;
    while let Some(message) = client.recv().await {
        match message {
            RawMessage::Text(text) if text == "close" => return Ok(()),
            RawMessage::Text(text) if text == "fail" => return Err(HubError::new("told to")),
            RawMessage::Text(text) if text == "panic" => panic!("told to"),
            other => client.send(other).await?,
        }
    }
    Ok(())
}

fn hub(path: &str) -> Hub {
    Hub::new(path).method("Id", id).method("Abort", abort).method("Fill", fill).on_disconnected(disconnected)
}

pub(crate) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let without_events = [Transport::WebSockets, Transport::LongPolling];
    let server = Server::new()
        .hub(hub("/ends").close_on_token_expiry().transports(without_events))
        .hub(hub("/lively").client_timeout(LIVELY_CLIENT_TIMEOUT))
        .hub(hub("/hasty").handshake_timeout(HASTY_HANDSHAKE_TIMEOUT))
        .hub(hub("/unwelcoming").on_connected(refuse_all))
        .raw_endpoint(RawEndpoint::new("/line", line));
    let handle = server.handle();
    let app = Router::new().route("/metrics", handle.metrics()).merge(server.into_router()?);
    Ok(trunkline::serve(listener, app, &handle).await?)
}
