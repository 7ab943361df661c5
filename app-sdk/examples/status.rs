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

    fn remove(&self, connection_id: &str) {
        self.with(|names| drop(names.remove(connection_id)));
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

/// Begin of the names of groups of displays: those of one name are a group, wherever they are connected.
const DISPLAY: &str = "display:";

/// How long a display may be gone before everyone is told: it may be on its way to another proxy.
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

async fn disconnected(ctx: Context, State(displays): State<Displays>) {
    displays.remove(ctx.connection_id());
}

/// Tells everyone when the last display of a name has left, by itself or with its proxy.
async fn changed(change: GroupChanged, clients: Clients, State(displays): State<Displays>) -> Result<(), HubError> {
    if let (Some(name), 0) = (change.group.strip_prefix(DISPLAY), change.count) {
        displays.remove_name(name);
        clients.all().send("offline", (name,)).await?;
    }
    Ok(())
}

async fn send_ping(ctx: Context, State(displays): State<Displays>, name: String) -> Result<(), HubError> {
    ctx.join(format!("{DISPLAY}{name}")).await?;
    displays.add(ctx.connection_id(), &name);
    ctx.clients().all().send("online", (name,)).await?;
    Ok(())
}

async fn remove_display(ctx: Context, State(displays): State<Displays>, name: String) -> Result<(), HubError> {
    displays.remove_name(&name);
    let group = format!("{DISPLAY}{name}");
    let members = ctx.groups().members(&group).all().await?;
    for member in members.iter() {
        ctx.groups().remove(&member.connection_id, &group).await?;
    }
    if members.is_empty() {
        ctx.clients().all().send("offline", (name,)).await?;
    }
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
