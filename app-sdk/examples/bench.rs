//! What benchmarks and end-to-end tests call: echoes, sends of each kind, ticks, and what a hub knows of its caller.

#[path = "common/serve.rs"]
mod serve;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use serde::Serialize;
use tokio::task::AbortHandle;
use trunkline::value::Value;
use trunkline::{Context, Hub, HubError, Receivers, Server};

/// The shortest time between two ticks: what a timer of tokio can tell apart.
const TICK_INTERVAL_MIN_MS: u64 = 1;
/// The largest padding of a tick; more would not fit through a link.
const PADDING_MAX_BYTES: usize = 1024 * 1024;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WhoAmI {
    connection_id: String,
    user_id: Option<String>,
    remote_address: Option<String>,
    user_agent: Option<String>,
    query: String,
    claims: Vec<(String, String)>,
    instance: String,
}

/// The one ticker of this process.
#[derive(Clone, Default)]
struct Ticker(Arc<Mutex<Option<AbortHandle>>>);

impl Ticker {
    fn replace(&self, next: Option<AbortHandle>) {
        let before = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), next);
        if let Some(before) = before {
            before.abort();
        }
    }
}

async fn echo(x: Value) -> Value {
    x
}

async fn echo_back(ctx: Context, x: Value) -> Result<(), HubError> {
    ctx.clients().caller().send("Echoed", (x,)).await?;
    Ok(())
}

async fn broadcast(ctx: Context, x: Value) -> Result<(), HubError> {
    ctx.clients().all().send("Message", (x,)).await?;
    Ok(())
}

async fn join(ctx: Context, group: String) -> Result<(), HubError> {
    Ok(ctx.join(group).await?)
}

async fn leave(ctx: Context, group: String) -> Result<(), HubError> {
    Ok(ctx.leave(group).await?)
}

async fn send_to_group(ctx: Context, group: String, x: Value) -> Result<(), HubError> {
    ctx.clients().group(group).send("Message", (x,)).await?;
    Ok(())
}

async fn send_to(ctx: Context, connection_id: String, x: Value) -> Result<(), HubError> {
    ctx.clients().client(connection_id).send("Message", (x,)).await?;
    Ok(())
}

async fn start_ticks(
    ctx: Context,
    State(ticker): State<Ticker>,
    interval_ms: u64,
    bytes: usize,
) -> Result<(), HubError> {
    if interval_ms < TICK_INTERVAL_MIN_MS || bytes > PADDING_MAX_BYTES {
        return Err(HubError::new("ticks are at least 1 ms apart, and carry at most 1 MiB"));
    }
    let ticking = tick(ctx.clients().all(), Duration::from_millis(interval_ms), bytes);
    ticker.replace(Some(tokio::spawn(ticking).abort_handle()));
    Ok(())
}

async fn stop_ticks(State(ticker): State<Ticker>) {
    ticker.replace(None);
}

async fn tick(everyone: Receivers, every: Duration, bytes: usize) {
    let padding = "x".repeat(bytes);
    let mut timer = tokio::time::interval(every);
    for sequence in 0_u64.. {
        timer.tick().await;
        let unix_micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros());
        let unix_micros = u64::try_from(unix_micros).unwrap_or(u64::MAX);
        if let Err(error) = everyone.send("Tick", (sequence, unix_micros, &padding)).await {
            tracing::error!(%error, "tick was not sent");
        }
    }
}

async fn who_am_i(ctx: Context) -> WhoAmI {
    let text = |text: &str| text.to_owned();
    WhoAmI {
        connection_id: ctx.connection_id().into(),
        user_id: ctx.user_id().map(text),
        remote_address: ctx.remote_addr().map(|address| address.to_string()),
        user_agent: ctx.headers().get("user-agent").and_then(|value| value.to_str().ok()).map(text),
        query: ctx.query().raw().into(),
        claims: ctx.claims().iter().map(|(name, value)| (name.into(), value.into())).collect(),
        instance: ctx.instance().into(),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let bench = Hub::new("/bench")
        .method("Echo", echo)
        .method("EchoBack", echo_back)
        .method("Broadcast", broadcast)
        .method("Join", join)
        .method("Leave", leave)
        .method("SendToGroup", send_to_group)
        .method("SendTo", send_to)
        .method("StartTicks", start_ticks)
        .method("StopTicks", stop_ticks)
        .method("WhoAmI", who_am_i)
        .with_state(Ticker::default());
    serve::Arguments::read().serve(Server::new().hub(bench), Router::new()).await
}
