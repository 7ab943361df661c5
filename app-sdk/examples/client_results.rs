//! Asks clients for results: `cargo run --example client_results -- --listen 127.0.0.1:5000`, and a proxy before it.
//!
//! Hub `/guess`: `Play(opponent)` asks the opponent's client for a number (`Think(limit)`), then the caller's
//! (`Guess(limit)`). `GET /ask/{connectionId}` asks any client, from outside the hub.

#[path = "common/serve.rs"]
mod serve;

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use trunkline::{Context, Hub, HubError, HubHandle, InvokeError, Server};

const LIMIT: u32 = 10;

async fn play(ctx: Context, opponent: String) -> Result<bool, HubError> {
    let clients = ctx.clients();
    let thought: u32 = match clients.client(&opponent).timeout(Duration::from_secs(60)).invoke("Think", (LIMIT,)).await
    {
        Err(InvokeError::DoesNotExist(_) | InvokeError::Disconnected(_)) => {
            return Err(HubError::new("your opponent has gone"));
        }
        thought => thought?,
    };
    // While this waits, other calls of the caller go on.
    let guessed: u32 = clients.caller().invoke("Guess", (LIMIT,)).await?;
    clients.client(&opponent).send("Guessed", (guessed,)).await?;
    Ok(guessed == thought)
}

/// The client may be held by any proxy and any app server.
async fn ask(State(hub): State<HubHandle>, Path(connection_id): Path<String>) -> (StatusCode, String) {
    match hub.clients().client(connection_id).invoke::<u32>("Think", (LIMIT,)).await {
        Ok(number) => (StatusCode::OK, number.to_string()),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = Server::new().hub(Hub::new("/guess").method("Play", play));
    let routes = Router::new().route("/ask/{connection_id}", get(ask)).with_state(server.handle().hub("guess")?);
    serve::read::<serve::ServeArguments>().serve(server, routes).await
}
