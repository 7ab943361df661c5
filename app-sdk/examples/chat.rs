#![forbid(unsafe_code)]
//! A chat with rooms: run `cargo run --example chat -- --listen 127.0.0.1:5000` behind a proxy, or add `--embedded`.

#[path = "common/serve.rs"]
mod serve;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use trunkline::{Context, Hub, HubError, Server};

async fn send_message(ctx: Context, user: String, message: String) -> Result<(), HubError> {
    ctx.clients().all().send("ReceiveMessage", (user, message)).await?;
    Ok(())
}

async fn join_room(ctx: Context, room: String) -> Result<(), HubError> {
    Ok(ctx.join(room).await?)
}

async fn leave_room(ctx: Context, room: String) -> Result<(), HubError> {
    Ok(ctx.leave(room).await?)
}

async fn send_to_room(ctx: Context, room: String, user: String, message: String) -> Result<(), HubError> {
    ctx.clients().group(room).send("ReceiveMessage", (user, message)).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let chat = Hub::new("/chat")
        .method("SendMessage", send_message)
        .method("JoinRoom", join_room)
        .method("LeaveRoom", leave_room)
        .method("SendToRoom", send_to_room);
    let page = Router::new().route("/", get(async || Html(include_str!("pages/chat.html"))));
    serve::read::<serve::ServeArguments>().serve(Server::new().hub(chat), page).await
}
