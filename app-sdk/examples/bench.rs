//! Hub for benchmarks and end-to-end tests: echoes, all kinds of sends, ticks, and the caller's context.

#[path = "common/serve.rs"]
mod serve;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{FromRef, State};
use clap::Parser;
use serde::Serialize;
use tokio::task::AbortHandle;
use trunkline::value::Value;
use trunkline::{Clients, Context, Hub, HubError, Receivers, Server, UserOnline};

/// Minimum tick interval: the resolution of tokio's timer.
const TICK_INTERVAL_MIN_MS: u64 = 1;
/// Maximum padding of a tick. More would not fit through a link.
const PADDING_MAX_BYTES: usize = 1024 * 1024;

/// Default message size limit of a hub.
const MESSAGE_MAX_BYTES: usize = 32 * 1024;

/// Group that is notified when a user comes online.
const PRESENCE_GROUP: &str = "presence";

/// Recorded messages of a group, and how long they are kept.
const KEPT_MESSAGES: u32 = 1000;
const KEPT_FOR: Duration = Duration::from_secs(3600);

/// Command line of this server.
#[derive(Debug, Parser)]
struct BenchArguments {
    #[command(flatten)]
    serve: serve::ServeArguments,
    /// Enable stateful reconnect of clients
    #[arg(long)]
    stateful: bool,
    /// Send `Online(user)` to the group `presence` when a user comes online
    #[arg(long)]
    presence: bool,
    /// Record the groups `kept-*`
    #[arg(long)]
    records: bool,
    /// Maximum size of a client message
    #[arg(long, value_name = "BYTES", default_value_t = MESSAGE_MAX_BYTES)]
    message_max_bytes: usize,
}

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

/// The only ticker of this process.
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

/// Running echo measurements by connection ID.
#[derive(Clone)]
struct Echoes {
    running: Arc<Mutex<HashMap<String, Echo>>>,
    /// Clock for all round trips.
    since: Instant,
}

/// Pings sent to one connection and its pongs. Also the result of `StopEcho`.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Echo {
    pings: u64,
    pongs: u64,
    duplicated: u64,
    reordered: u64,
    misdelivered: u64,
    /// Round trips that no ping has reported yet.
    latencies_micros: Vec<u64>,
    #[serde(skip)]
    is_paused: bool,
    #[serde(skip)]
    next: u64,
    #[serde(skip)]
    missing: BTreeSet<u64>,
    #[serde(skip)]
    pinger: Option<AbortHandle>,
}

impl Echoes {
    fn new() -> Self {
        Self { running: Arc::default(), since: Instant::now() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Echo>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn stop(&self, connection_id: &str) -> Option<Echo> {
        let stopped = self.lock().remove(connection_id)?;
        if let Some(pinger) = &stopped.pinger {
            pinger.abort();
        }
        Some(stopped)
    }
}

impl Echo {
    fn answered(&mut self, sequence: u64, latency_micros: u64) {
        if sequence >= self.next && sequence < self.pings {
            self.missing.extend(self.next..sequence);
            self.next = sequence + 1;
        } else if self.missing.remove(&sequence) {
            self.reordered += 1;
        } else {
            self.duplicated += 1;
            return;
        }
        self.pongs += 1;
        self.latencies_micros.push(latency_micros);
    }
}

/// State shared by the methods.
#[derive(Clone)]
struct Shared {
    ticker: Ticker,
    echoes: Echoes,
}

impl FromRef<Shared> for Ticker {
    fn from_ref(shared: &Shared) -> Self {
        shared.ticker.clone()
    }
}

impl FromRef<Shared> for Echoes {
    fn from_ref(shared: &Shared) -> Self {
        shared.echoes.clone()
    }
}

/// Sends `Ping(connectionId, sequence, serverMicros, latenciesMicros)` to the caller at each interval, until
/// `StopEcho`. The latencies are round trips completed since the previous ping, by the clock of this process.
async fn start_echo(ctx: Context, State(echoes): State<Echoes>, interval_ms: u64) -> Result<(), HubError> {
    if interval_ms < TICK_INTERVAL_MIN_MS {
        return Err(HubError::new("the ping interval is at least 1 ms"));
    }
    let id = ctx.connection_id().to_owned();
    drop(echoes.stop(&id));
    // By ID, not to the caller: works for both kinds of pong, and detects misdelivered replies.
    let client = ctx.clients().client(&id);
    let pinger = {
        let (echoes, id) = (echoes.clone(), id.clone());
        async move {
            let mut timer = tokio::time::interval(Duration::from_millis(interval_ms));
            timer.tick().await;
            for sequence in 0_u64.. {
                timer.tick().await;
                // Counted under the lock that a pause also takes: a counted ping is always sent.
                let running = echoes.lock().get_mut(&id).filter(|echo| !echo.is_paused).map(|echo| {
                    echo.pings += 1;
                    std::mem::take(&mut echo.latencies_micros)
                });
                let Some(latencies) = running else { return };
                if let Err(error) = client.send("Ping", (&id, sequence, echoes.micros(), latencies)).await {
                    tracing::error!(%error, "cannot send a ping");
                }
            }
        }
    };
    let mut running = echoes.lock();
    let pinger = Some(tokio::spawn(pinger).abort_handle());
    running.insert(id, Echo { pinger, ..Echo::default() });
    Ok(())
}

/// Reply to a ping: `Pong(sequence, serverMicros)`, counted for the connection that sent it.
async fn pong(ctx: Context, State(echoes): State<Echoes>, sequence: u64, server_micros: u64) {
    let latency = echoes.micros().saturating_sub(server_micros);
    if let Some(echo) = echoes.lock().get_mut(ctx.connection_id()) {
        echo.answered(sequence, latency);
    }
}

/// Reply to a ping, counted for the connection that it names: `SharedPong(connectionId, sequence, serverMicros)`.
async fn shared_pong(ctx: Context, State(echoes): State<Echoes>, id: String, sequence: u64, server_micros: u64) {
    let latency = echoes.micros().saturating_sub(server_micros);
    if let Some(echo) = echoes.lock().get_mut(&id) {
        if id == ctx.connection_id() {
            echo.answered(sequence, latency);
        } else {
            echo.misdelivered += 1;
        }
    }
}

/// Stops pings to the caller and returns the number of pings sent.
async fn pause_echo(ctx: Context, State(echoes): State<Echoes>) -> u64 {
    let mut running = echoes.lock();
    let Some(echo) = running.get_mut(ctx.connection_id()) else { return 0 };
    echo.is_paused = true;
    echo.pings
}

/// Ends the caller's measurement and returns its result.
async fn stop_echo(ctx: Context, State(echoes): State<Echoes>) -> Echo {
    echoes.stop(ctx.connection_id()).unwrap_or_default()
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

async fn broadcast_except(ctx: Context, connection_ids: Vec<String>, x: Value) -> Result<(), HubError> {
    ctx.clients().all_except(&connection_ids).send("Message", (x,)).await?;
    Ok(())
}

async fn join(ctx: Context, group: String) -> Result<(), HubError> {
    Ok(ctx.join(group).await?)
}

async fn leave(ctx: Context, group: String) -> Result<(), HubError> {
    Ok(ctx.leave(group).await?)
}

async fn join_groups(ctx: Context, groups: Vec<String>) -> Result<(), HubError> {
    for group in groups {
        ctx.join(group).await?;
    }
    Ok(())
}

async fn leave_groups(ctx: Context, groups: Vec<String>) -> Result<(), HubError> {
    for group in groups {
        ctx.leave(group).await?;
    }
    Ok(())
}

async fn send_to_group(ctx: Context, group: String, x: Value) -> Result<(), HubError> {
    ctx.clients().group(group).send("Message", (x,)).await?;
    Ok(())
}

async fn send_to_groups(ctx: Context, groups: Vec<String>, x: Value) -> Result<(), HubError> {
    for group in groups {
        ctx.clients().group(group).send("Message", (&x,)).await?;
    }
    Ok(())
}

async fn send_to(ctx: Context, connection_id: String, x: Value) -> Result<(), HubError> {
    ctx.clients().client(connection_id).send("Message", (x,)).await?;
    Ok(())
}

/// Connection IDs of the members of a group, sorted.
async fn group_members(ctx: Context, group: String) -> Result<Vec<String>, HubError> {
    let members = ctx.groups().members(group).all().await?.into_value();
    let mut ids: Vec<_> = members.into_iter().map(|member| member.connection_id).collect();
    ids.sort_unstable();
    Ok(ids)
}

async fn user_online(ctx: Context, user: String) -> Result<bool, HubError> {
    Ok(ctx.users().is_online(user).await?)
}

async fn send_online(user: UserOnline, clients: Clients) -> Result<(), HubError> {
    clients.group(PRESENCE_GROUP).send("Online", (user.user_id,)).await?;
    Ok(())
}

async fn start_ticks(
    ctx: Context,
    State(ticker): State<Ticker>,
    interval_ms: u64,
    bytes: usize,
) -> Result<(), HubError> {
    if interval_ms < TICK_INTERVAL_MIN_MS || bytes > PADDING_MAX_BYTES {
        return Err(HubError::new("the tick interval is at least 1 ms, the padding at most 1 MiB"));
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
            tracing::error!(%error, "cannot send a tick");
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
    let arguments: BenchArguments = serve::read();
    let bench = Hub::new("/bench")
        .stateful_reconnect(arguments.stateful)
        .message_max_bytes(arguments.message_max_bytes)
        .method("Echo", echo)
        .method("EchoBack", echo_back)
        .method("Broadcast", broadcast)
        .method("BroadcastExcept", broadcast_except)
        .method("Join", join)
        .method("Leave", leave)
        .method("JoinGroups", join_groups)
        .method("LeaveGroups", leave_groups)
        .method("SendToGroup", send_to_group)
        .method("SendToGroups", send_to_groups)
        .method("SendTo", send_to)
        .method("GroupMembers", group_members)
        .method("UserOnline", user_online)
        .method("StartTicks", start_ticks)
        .method("StopTicks", stop_ticks)
        .method("WhoAmI", who_am_i)
        .method("StartEcho", start_echo)
        .method("Pong", pong)
        .method("SharedPong", shared_pong)
        .method("PauseEcho", pause_echo)
        .method("StopEcho", stop_echo)
        .on_disconnected(async |ctx: Context, State(echoes): State<Echoes>| drop(echoes.stop(ctx.connection_id())));
    // Proxies report users to app servers only if a hub has such a hook.
    let bench = if arguments.presence { bench.on_user_online(send_online) } else { bench };
    // Other benchmarks measure a hub without records.
    let bench = if arguments.records { bench.history("kept-*", KEPT_MESSAGES, KEPT_FOR) } else { bench };
    let bench = bench.with_state(Shared { ticker: Ticker::default(), echoes: Echoes::new() });
    arguments.serve.serve(Server::new().hub(bench), Router::new()).await
}
