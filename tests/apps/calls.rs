//! Test app server: streams, client results, values, flow control and sends from outside a hub.
//!
//! | hub | purpose |
//! |---|---|
//! | `/calls` | all methods, with default hub settings |
//! | `/raw` | raw endpoint: see its file |
//!
//! `GET /announce/{text}` sends to everyone on `/calls`: the response is the number of proxies.

mod gate;
mod raw;
mod results;
mod streams;
mod values;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use clap::Args;
use tokio::net::TcpListener;
use trunkline::{Context, Hub, HubError, HubHandle, Server};

use crate::plain::serve_plainly;

use gate::Gate;

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

#[expect(clippy::panic, reason = "the tests want to see that a panic ends one call and nothing else")]
async fn panic() {
    panic!("asked for");
}

fn hub(gate: &Gate) -> Hub {
    let hub = Hub::new("/calls")
        .method("Remember", remember)
        .method("Recall", recall)
        .method("Join", join)
        .method("SendToGroup", send_to_group)
        .method("ConnectionId", connection_id)
        .method("Instance", instance)
        .method("Panic", panic);
    let hub = values::methods(hub);
    let hub = streams::methods(hub);
    let hub = results::methods(hub);
    gate::methods(hub).with_state(gate.clone())
}

async fn announce_to_all(State(hub): State<HubHandle>, Path(text): Path<String>) -> Result<String, StatusCode> {
    let sent = hub.clients().all().send("Announced", (text,)).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(sent.proxies().to_string())
}

pub(crate) async fn serve(listener: TcpListener, settings: CallsSettings) -> anyhow::Result<()> {
    let gate = Gate::default();
    let server = Server::new();
    let handle = server.handle();
    let mut server =
        server.hub(hub(&gate).stateful_reconnect(settings.stateful)).raw_endpoint(raw::endpoint(handle.clone()));
    if settings.embedded {
        server = server.embedded();
    }
    let app = Router::new()
        .route("/announce/{text}", get(announce_to_all))
        .with_state(handle.hub("calls")?)
        .route("/metrics", handle.metrics())
        .merge(server.into_router()?);
    serve_plainly(listener, app).await
}
