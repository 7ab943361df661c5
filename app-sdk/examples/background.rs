//! Sends from outside a hub: run `cargo run --example background -- --listen 127.0.0.1:5000` behind a proxy.
//!
//! Hub `/news`: each app server sends `Time(seconds)` to everyone once a second. `POST /news` with a text
//! sends `News(text)` to everyone; `POST /news/{topic}` sends it to clients that have called `Subscribe(topic)`.

#[path = "common/serve.rs"]
mod serve;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use trunkline::{Context, Hub, HubError, HubHandle, Receivers, Server};

async fn subscribe(ctx: Context, topic: String) -> Result<(), HubError> {
    Ok(ctx.join(topic).await?)
}

async fn send_to_all(State(news): State<HubHandle>, text: String) -> (StatusCode, String) {
    send_news(&news.clients().all(), &text).await
}

async fn send_to_topic(State(news): State<HubHandle>, Path(topic): Path<String>, text: String) -> (StatusCode, String) {
    send_news(&news.clients().group(topic), &text).await
}

async fn send_news(receivers: &Receivers, text: &str) -> (StatusCode, String) {
    match receivers.send("News", (text,)).await {
        Ok(sent) => (StatusCode::ACCEPTED, format!("queued at {} proxies", sent.proxies())),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()),
    }
}

/// Each send waits until it is queued, so a slow link slows this loop instead of filling memory.
async fn send_time(news: HubHandle) -> Result<(), HubError> {
    news.linked().await;
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        news.clients().all().send("Time", (now.as_secs(),)).await?;
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let hub = Hub::new("/news").method("Subscribe", subscribe);
    let server = Server::new().hub(hub);
    let news = server.handle().hub("news")?;
    tokio::spawn(send_time(news.clone()));
    let routes =
        Router::new().route("/news", post(send_to_all)).route("/news/{topic}", post(send_to_topic)).with_state(news);
    serve::read::<serve::ServeArguments>().serve(server, routes).await
}
