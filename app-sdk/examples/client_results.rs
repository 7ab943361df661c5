//! Client results: run `cargo run --example client_results -- --listen 127.0.0.1:5000` behind a proxy.
//!
//! Hub `/guess`: `Play(opponent)` invokes `Think(limit)` on the opponent's client, then `Guess(limit)` on the
//! caller's. `GET /ask/{connectionId}` invokes a client method from outside the hub.

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
    // Other calls of the caller run while this one waits.
    let guessed: u32 = clients.caller().invoke("Guess", (LIMIT,)).await?;
    clients.client(&opponent).send("Guessed", (guessed,)).await?;
    Ok(guessed == thought)
}

/// The client can be connected to any proxy and assigned to any app server.
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
