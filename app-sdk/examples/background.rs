//! Sends from outside a hub: `cargo run --example background -- --listen 127.0.0.1:5000`, and a proxy before it.
//!
//! Hub `/news`: everyone gets `Time(seconds)` once a second, from one app server however many there are. `POST /news`
//! with a text sends `News(text)` to everyone, and `POST /news/{topic}` to those who have called `Subscribe(topic)`.

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

async fn tell_everyone(State(news): State<HubHandle>, text: String) -> (StatusCode, String) {
    tell(&news.clients().all(), &text).await
}

async fn tell_subscribers(
    State(news): State<HubHandle>,
    Path(topic): Path<String>,
    text: String,
) -> (StatusCode, String) {
    tell(&news.clients().group(topic), &text).await
}

async fn tell(receivers: &Receivers, text: &str) -> (StatusCode, String) {
    match receivers.send("News", (text,)).await {
        Ok(sent) => (StatusCode::ACCEPTED, format!("queued at {} proxies", sent.proxies())),
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()),
    }
}

/// Each send waits until it is queued, so a slow link slows this down instead of filling the memory.
async fn tell_the_time(news: HubHandle) -> Result<(), HubError> {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        news.clients().all().send("Time", (now.as_secs(),)).await?;
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let hub = Hub::new("/news").method("Subscribe", subscribe).exclusively("time", tell_the_time);
    let server = Server::new().hub(hub);
    let news = server.handle().hub("news")?;
    let routes = Router::new()
        .route("/news", post(tell_everyone))
        .route("/news/{topic}", post(tell_subscribers))
        .with_state(news);
    serve::read::<serve::ServeArguments>().serve(server, routes).await
}
