//! A clock server without a reachable address: it dials a proxy that has an access key, or Azure SignalR.
//!
//! Run `trunkline serve --listen 127.0.0.1:8080 --access-key KEY`, then `cargo run --example dialled -- --dial
//! "Endpoint=http://127.0.0.1;Port=8080;AccessKey=KEY;Version=1.0;"`. SignalR clients connect to
//! `http://127.0.0.1:5000/clock`, which redirects them to the proxy.

#[path = "common/serve.rs"]
mod serve;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use trunkline::{Hub, Server};

/// Interval between two ticks.
const TICK: Duration = Duration::from_secs(1);

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let clock = Hub::new("/clock").method("Now", async || now_s()).method("Echo", async |text: String| text);
    let server = Server::new().hub(clock);
    let clients = server.handle().hub("/clock")?.clients();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            if let Err(error) = clients.all().send("Tick", (now_s(),)).await {
                tracing::warn!(%error, "cannot send a tick");
            }
        }
    });
    serve::read::<serve::ServeArguments>().serve(server, Router::new()).await
}
