//! Test app server for groups of app servers: it reports its name and prints what it sees. Hubs `/chat` and `/news`,
//! and pages at and below `/page`.
//!
//! Output lines: `listening on …`, then `connected ID`, `disconnected ID`, `rehomed ID` and `heard ID NUMBER`. Each
//! line is written immediately, so it survives a killed process.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use clap::Args;
use tokio::net::TcpListener;
use trunkline::{Context, Hub, HubError, Server};

/// Test app server for groups of app servers.
#[derive(Debug, Args)]
pub(crate) struct RolesSettings {
    /// Name that it reports.
    #[arg(long, default_value = "stable")]
    name: String,
}

/// Settings shared by all methods.
type Role = Arc<RolesSettings>;

#[expect(clippy::print_stdout, reason = "the tests read these lines")]
fn print_line(line: &str) {
    println!("{line}");
}

async fn connected(ctx: Context) {
    print_line(&format!("connected {}", ctx.connection_id()));
}

async fn disconnected(ctx: Context) {
    print_line(&format!("disconnected {}", ctx.connection_id()));
}

async fn rehomed(ctx: Context) {
    print_line(&format!("rehomed {}", ctx.connection_id()));
}

async fn name(State(role): State<Role>) -> String {
    role.name.clone()
}

async fn hear(ctx: Context, number: i64) -> i64 {
    print_line(&format!("heard {} {number}", ctx.connection_id()));
    number
}

async fn join(ctx: Context, group: String) -> Result<(), HubError> {
    Ok(ctx.join(group).await?)
}

/// Sends a number to all clients, with the name of the app server.
async fn shout(ctx: Context, State(role): State<Role>, number: i64) -> Result<(), HubError> {
    ctx.clients().all().send("Shouted", (&role.name, number)).await?;
    Ok(())
}

async fn count(ctx: Context, number: i64) -> Result<(), HubError> {
    ctx.clients().all().send("Number", (number,)).await?;
    Ok(())
}

async fn count_in(ctx: Context, group: String, number: i64) -> Result<(), HubError> {
    ctx.clients().group(&group).send("GroupNumber", (number,)).await?;
    Ok(())
}

fn hub(path: &str, role: &Role) -> Hub {
    Hub::new(path)
        .on_connected(connected)
        .on_disconnected(disconnected)
        .on_rehomed(rehomed)
        .method("Name", name)
        .method("Hear", hear)
        .method("Join", join)
        .method("Shout", shout)
        .method("Count", count)
        .method("CountIn", count_in)
        .with_state(role.clone())
}

pub(crate) async fn serve(listener: TcpListener, settings: RolesSettings) -> anyhow::Result<()> {
    let role = Role::new(settings);
    let server = Server::new().name(&role.name).hub(hub("/chat", &role)).hub(hub("/news", &role));
    let handle = server.handle();
    let pages = Router::new().route("/page", get(name)).route("/page/{*rest}", get(name)).with_state(role.clone());
    let app = pages.route("/metrics", handle.metrics()).merge(server.into_router()?);
    Ok(trunkline::serve(listener, app, &handle).await?)
}
