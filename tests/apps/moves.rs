//! Test app server for connections that move: hub `/moves`, which prints what its hooks and methods see.
//!
//! Output lines: `listening on …`, then `connected ID`, `disconnected ID`, `rehomed ID FROM ITEMS` and `ran
//! TAG`. Each line is written immediately, so it survives a killed process. `POST /release` lets calls of `Pass` end;
//! `/metrics` serves the SDK's metrics.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use clap::Args;
use futures_util::{Stream, StreamExt, stream};
use tokio::net::TcpListener;
use tokio::sync::watch;
use trunkline::{CloseReason, Context, Hub, HubError, Rehomed, Server};

/// Test app server for connections that move.
#[derive(Debug, Args)]
pub(crate) struct MovesSettings {
    /// Shutdown timeout for running calls, in milliseconds.
    #[arg(long, default_value_t = 10_000)]
    shutdown_timeout_ms: u64,
}

/// Gate for calls that wait.
type ReleaseGate = watch::Sender<bool>;

#[derive(Clone)]
struct MovedName(String);

#[expect(clippy::print_stdout, reason = "the tests read these lines")]
fn print_line(line: &str) {
    println!("{line}");
}

async fn connected(ctx: Context) {
    print_line(&format!("connected {}", ctx.connection_id()));
}

async fn disconnected(ctx: Context, CloseReason(_): CloseReason) {
    print_line(&format!("disconnected {}", ctx.connection_id()));
}

async fn leaving(ctx: Context) -> Option<String> {
    recall(ctx).await
}

async fn rehomed(ctx: Context, moved: Rehomed) -> Result<(), HubError> {
    let items: Option<String> = moved.items::<Option<String>>()?.flatten();
    if let Some(name) = items.clone() {
        ctx.items().insert(MovedName(name));
    }
    print_line(&format!("rehomed {} {} {}", ctx.connection_id(), moved.from(), items.as_deref().unwrap_or("nothing")));
    Ok(())
}

async fn remember(ctx: Context, name: String) {
    ctx.items().insert(MovedName(name));
}

async fn recall(ctx: Context) -> Option<String> {
    ctx.items().get().map(|MovedName(name)| name)
}

async fn who(ctx: Context) -> (String, String, Option<String>) {
    (ctx.instance().to_owned(), ctx.connection_id().to_owned(), ctx.user_id().map(str::to_owned))
}

async fn run(tag: String) -> String {
    print_line(&format!("ran {tag}"));
    tag
}

async fn pass(State(gate): State<ReleaseGate>, tag: String) -> String {
    print_line(&format!("ran {tag}"));
    // The sender lives as long as the process, so waiting always ends.
    let _ = gate.subscribe().wait_for(|is_open| *is_open).await;
    tag
}

/// Streams one item and never ends.
async fn begin(tag: String) -> impl Stream<Item = String> {
    print_line(&format!("ran {tag}"));
    stream::iter([tag]).chain(stream::pending())
}

async fn join(ctx: Context, group: String) -> Result<(), HubError> {
    Ok(ctx.join(group).await?)
}

/// Sends this many numbers to a group, one after another.
async fn count(ctx: Context, group: String, to: u64) -> Result<(), HubError> {
    for number in 0..to {
        ctx.clients().group(&group).send("Number", (number,)).await?;
    }
    Ok(())
}

async fn release(State(gate): State<ReleaseGate>) {
    gate.send_replace(true);
}

pub(crate) async fn serve(listener: TcpListener, settings: MovesSettings) -> anyhow::Result<()> {
    let gate = ReleaseGate::new(false);
    let hub = Hub::new("/moves")
        .on_connected(connected)
        .on_disconnected(disconnected)
        .on_leaving(leaving)
        .on_rehomed(rehomed)
        .stateful_reconnect(true)
        .method("Remember", remember)
        .method("Recall", recall)
        .method("Who", who)
        .method("Run", run)
        .method("Pass", pass)
        .method("Begin", begin)
        .method("Join", join)
        .method("Count", count)
        .with_state(gate.clone());
    let timeout = Duration::from_millis(settings.shutdown_timeout_ms);
    let server = Server::new().hub(hub).shutdown_timeout(timeout);
    let handle = server.handle();
    let own = Router::new().route("/release", post(release)).with_state(gate);
    let app = own.route("/metrics", handle.metrics()).merge(server.into_router()?);
    Ok(trunkline::serve(listener, app, &handle).await?)
}
