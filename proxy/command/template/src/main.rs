#![forbid(unsafe_code)]
//! App server with one hub and its page. README.md explains how to run it.

mod chat;

use std::error::Error;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::Html;
use axum::routing::get;
use trunkline::{LogQueue, Server};

/// Default address for browsers and proxies; the environment can override it.
const LISTEN: &str = "127.0.0.1:5000";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A blocked log must not stop the app. Colours are for terminals.
    let log = LogQueue::stdout()?;
    tracing_subscriber::fmt().with_writer(log.writer()).with_ansi(log.has_colours()).init();
    let listen = std::env::var("LISTEN").unwrap_or_else(|_| LISTEN.to_owned());
    let server = Server::new().hub(chat::hub());
    // Serves clients itself, so it runs standalone; proxies in front are still possible.
    #[cfg(feature = "embedded")]
    let server = server.embedded();
    let handle = server.handle();
    let script = ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("../pages/signalr.js"));
    let app = Router::new()
        .route("/", get(async || Html(include_str!("../pages/index.html"))))
        .route("/signalr.js", get(async || script))
        .route("/metrics", handle.metrics())
        .merge(server.into_router()?);
    let listener = trunkline::listen(&*listen).await.map_err(|error| format!("LISTEN: {error}"))?;
    tracing::info!("open http://{}/", listener.local_addr()?);
    trunkline::serve(listener, app, &handle).await?;
    Ok(())
}
