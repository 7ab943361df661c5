#![forbid(unsafe_code)]
//! A shared canvas. Run `cargo run --example canvas -- --supervised` behind proxies, or add `--embedded`. Kill the
//! app server while people draw: no client is disconnected, and nothing is lost.
//!
//! | file | shows |
//! |---|---|
//! | `hub.rs` | rooms, cursors, strokes, presence, and notifying clients when an app server takes over |
//! | `history.rs` | strokes in a file: the process keeps no durable state |
//! | `supervision.rs` | an app server that is restarted when it dies |
//! | `../pages/canvas.html` | the page, which repeats calls whose app server died |

#[path = "../common/serve.rs"]
mod serve;

mod history;
mod hub;
mod stroke;
mod supervision;
#[cfg(test)]
mod tests;
mod visitor;

use std::path::PathBuf;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use clap::Parser;
use trunkline::Server;

use history::History;
use hub::Canvas;

/// Command line of this server.
#[derive(Debug, Parser)]
struct CanvasArguments {
    #[command(flatten)]
    serve: serve::ServeArguments,
    /// File with all strokes; by default a file in the temporary directory
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Restart the app server when it dies, and let any client kill it with a button: for demonstrations
    #[arg(long)]
    supervised: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = serve::read::<CanvasArguments>();
    if arguments.supervised && !supervision::is_child() {
        return supervision::supervise().await;
    }
    let file = arguments.history.unwrap_or_else(|| std::env::temp_dir().join("trunkline-canvas.jsonl"));
    let canvas = Canvas { history: History::new(file), is_supervised: arguments.supervised };
    let server = Server::new().hub(hub::hub(canvas));
    if arguments.supervised {
        supervision::end_with_the_supervisor(server.handle());
    }
    let page = Router::new().route("/", get(async || Html(include_str!("../pages/canvas.html"))));
    arguments.serve.serve(server, page).await
}
