//! Test app server: streams, client results, values, flow control, filters and sends from outside a hub.
//!
//! | hub | purpose |
//! |---|---|
//! | `/calls` | all methods, with default hub settings |
//! | `/parallel` | three concurrent calls per client |
//! | `/impatient` | a very short timeout for client results |
//! | `/filtered` | filters around a few methods |
//! | `/raw` | raw endpoint: see its file |
//!
//! `GET /announce/{text}` sends to everyone on `/calls`, `GET /announce/{group}/{text}` to a group: the response is the
//! number of proxies.

mod filters;
mod gate;
mod raw;
mod results;
mod streams;
mod values;

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use clap::Args;
use tokio::net::TcpListener;
use trunkline::{Context, Hub, HubError, HubHandle, Receivers, Server};

use crate::plain::serve_plainly;

use gate::{Gate, PARALLEL_INVOCATIONS};

/// Short enough for a test to wait.
const IMPATIENT_RESULT_TIMEOUT: Duration = Duration::from_millis(300);

/// Test app server for calls.
#[derive(Debug, Args)]
pub(crate) struct CallsSettings {
    /// Allow clients to reconnect statefully.
    #[arg(long)]
    stateful: bool,
    /// Serve clients directly, too, without a proxy.
    #[arg(long)]
    embedded: bool,
}

#[derive(Clone)]
struct Nickname(String);

async fn remember(ctx: Context, name: String) -> Option<String> {
    ctx.items().insert(Nickname(name)).map(|Nickname(before)| before)
}

async fn recall(ctx: Context) -> Option<String> {
    ctx.items().get().map(|Nickname(name)| name)
}

async fn join(ctx: Context, group: String) -> Result<(), HubError> {
    Ok(ctx.join(group).await?)
}

async fn send_to_group(ctx: Context, group: String, text: String) -> Result<(), HubError> {
    ctx.clients().group(group).send("Announced", (text,)).await?;
    Ok(())
}

async fn connection_id(ctx: Context) -> String {
    ctx.connection_id().to_owned()
}

async fn instance(ctx: Context) -> String {
    ctx.instance().to_owned()
}

async fn abort(ctx: Context) {
    ctx.abort();
}

#[expect(clippy::panic, reason = "the tests want to see that a panic ends one call and nothing else")]
async fn panic() {
    panic!("asked for");
}

fn hub(path: &str, gate: &Gate) -> Hub {
    let hub = Hub::new(path)
        .method("Remember", remember)
        .method("Recall", recall)
        .method("Join", join)
        .method("SendToGroup", send_to_group)
        .method("ConnectionId", connection_id)
        .method("Instance", instance)
        .method("Abort", abort)
        .method("Panic", panic);
    let hub = values::methods(hub);
    let hub = streams::methods(hub);
    let hub = results::methods(hub);
    gate::methods(hub).with_state(gate.clone())
}

async fn announce_to_all(State(hub): State<HubHandle>, Path(text): Path<String>) -> Result<String, StatusCode> {
    announce(&hub.clients().all(), &text).await
}

async fn announce_to_group(
    State(hub): State<HubHandle>,
    Path((group, text)): Path<(String, String)>,
) -> Result<String, StatusCode> {
    announce(&hub.clients().group(group), &text).await
}

async fn announce(receivers: &Receivers, text: &str) -> Result<String, StatusCode> {
    let sent = receivers.send("Announced", (text,)).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(sent.proxies().to_string())
}

pub(crate) async fn serve(listener: TcpListener, settings: CallsSettings) -> anyhow::Result<()> {
    let gate = Gate::default();
    let server = Server::new();
    let handle = server.handle();
    let mut server = server
        .hub(hub("/calls", &gate).stateful_reconnect(settings.stateful))
        .hub(hub("/parallel", &gate).parallel_invocations(PARALLEL_INVOCATIONS))
        .hub(hub("/impatient", &gate).client_result_timeout(IMPATIENT_RESULT_TIMEOUT))
        .hub(filters::hub("/filtered"))
        .raw_endpoint(raw::endpoint(raw::Shared { gate, server: handle.clone() }));
    if settings.embedded {
        server = server.embedded();
    }
    let app = Router::new()
        .route("/announce/{text}", get(announce_to_all))
        .route("/announce/{group}/{text}", get(announce_to_group))
        .with_state(handle.hub("calls")?)
        .route("/metrics", handle.metrics())
        .merge(server.into_router()?);
    serve_plainly(listener, app).await
}
