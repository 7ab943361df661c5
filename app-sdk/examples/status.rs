#![forbid(unsafe_code)]
//! Online status: displays announce themselves, and everyone sees them come and go.

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

/// The names that clients of this app server have given themselves, by connection id.
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

/// Group of all displays, wherever they are connected.
const DISPLAYS: &str = "displays";

/// How long a display may be gone with its proxy before everyone is told: it may be on its way to another one.
const GRACE: Duration = Duration::from_secs(2);

/// Sends the names known here to a display that joins, and asks everyone, because other app servers know others.
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

/// Tells everyone of displays that have gone with their proxy: a disconnect is certain only when that can't come back.
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
