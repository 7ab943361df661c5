#![forbid(unsafe_code)]
//! Online status: displays register themselves, and every client sees which displays are online.

#[path = "common/serve.rs"]
mod serve;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::get;
use trunkline::{Clients, Context, GroupChanged, Hub, HubError, Server};

/// Display names of this app server's clients, by connection ID.
#[derive(Clone, Default)]
struct Displays(Arc<Mutex<HashMap<String, String>>>);

impl Displays {
    fn add(&self, connection_id: &str, name: &str) {
        self.with(|names| names.insert(connection_id.to_owned(), name.to_owned()));
    }

    fn remove(&self, connection_id: &str) -> Option<String> {
        self.with(|names| names.remove(connection_id))
    }

    fn remove_name(&self, name: &str) {
        self.with(|names| names.retain(|_, known| known != name));
    }

    fn names(&self) -> Vec<String> {
        self.with(|names| names.values().cloned().collect())
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<String, String>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Group of all displays, on any proxy.
const DISPLAYS: &str = "displays";

/// Delay before a display that lost its proxy is reported offline: it may be reconnecting through another proxy.
const GRACE: Duration = Duration::from_secs(2);

/// Sends the names known to this app server to a new client, then asks all clients to register, because other app
/// servers have other displays.
async fn connected(ctx: Context, State(displays): State<Displays>) -> Result<(), HubError> {
    let clients = ctx.clients();
    for name in displays.names() {
        clients.caller().send("online", (name,)).await?;
    }
    clients.all().send("who", ()).await?;
    Ok(())
}

async fn disconnected(ctx: Context, State(displays): State<Displays>) -> Result<(), HubError> {
    if let Some(name) = displays.remove(ctx.connection_id()) {
        ctx.clients().all().send("offline", (name,)).await?;
    }
    Ok(())
}

/// Reports displays that were lost with their proxy. Their disconnect is final only once the grace period is over.
async fn changed(change: GroupChanged, clients: Clients, State(displays): State<Displays>) -> Result<(), HubError> {
    for member in &change.left {
        if let Some(name) = displays.remove(&member.connection_id) {
            clients.all().send("offline", (name,)).await?;
        }
    }
    Ok(())
}

async fn send_ping(ctx: Context, State(displays): State<Displays>, name: String) -> Result<(), HubError> {
    ctx.join(DISPLAYS).await?;
    displays.add(ctx.connection_id(), &name);
    ctx.clients().all().send("online", (name,)).await?;
    Ok(())
}

async fn remove_display(ctx: Context, State(displays): State<Displays>, name: String) -> Result<(), HubError> {
    displays.remove_name(&name);
    ctx.clients().all().send("offline", (name,)).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let status = Hub::new("/statusHub")
        .on_connected(connected)
        .on_disconnected(disconnected)
        .on_group_changed(changed)
        .presence_grace(GRACE)
        .method("SendPing", send_ping)
        .method("RemoveDisplay", remove_display)
        .with_state(Displays::default());
    let arguments = serve::read::<serve::ServeArguments>();
    let name = arguments.name();
    let routes = Router::new()
        .route("/", get(async || Html(include_str!("pages/status.html"))))
        .route("/api", get(async || name));
    arguments.serve(Server::new().hub(status), routes).await
}
