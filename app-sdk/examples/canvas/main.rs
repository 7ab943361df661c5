#![forbid(unsafe_code)]
//! A canvas that several people draw on: `cargo run --example canvas -- --supervised`, and proxies before it, or
//! `--embedded`. Kill it while people draw: nobody is disconnected, and nothing is lost.
//!
//! | file | what it shows |
//! |---|---|
//! | `hub.rs` | rooms, cursors, strokes, presence, and what a client is told by the app server that takes over |
//! | `history.rs` | strokes in a file: nothing that has to last is kept in the process |
//! | `supervision.rs` | an app server that is started again when it dies |
//! | `../pages/canvas.html` | the page, which repeats a call whose app server died |

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

/// The command line of this server.
#[derive(Debug, Parser)]
struct CanvasArguments {
    #[command(flatten)]
    serve: serve::ServeArguments,
    /// The file of all strokes; without it one in the folder for temporary files
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Start the app server again when it dies, and let everybody kill it by a button: for demonstrations
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
