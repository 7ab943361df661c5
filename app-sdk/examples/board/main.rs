#![forbid(unsafe_code)]
//! A board with rooms, notes, polls and moderation: `cargo run --example board -- --listen 127.0.0.1:5000`, and a proxy
//! before it, or `--embedded`. Any number of them may stand behind the same proxies, with the same `BOARD_FILE`.
//!
//! | file | what it shows |
//! |---|---|
//! | `hub.rs` | hooks, methods, streams both ways, client results |
//! | `presence.rs` | who is in a room, asked of the proxies |
//! | `visitor.rs` | an extractor |
//! | `pace.rs` | a filter with items: a rate limit that goes along when a client moves to another app server |
//! | `moderation.rs` | a module of methods with a policy and a filter of its own |
//! | `login.rs` | tokens and cookies, at negotiation and for requests |
//! | `api.rs` | requests that send to clients and ask who is there |
//! | `store.rs` | notes in a file |
//! | `tests.rs` | unit tests, without sockets |

#[path = "../common/serve.rs"]
mod serve;

mod api;
mod board_client;
mod hub;
mod login;
mod moderation;
mod note;
mod pace;
mod presence;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod visitor;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use trunkline::Server;

use state::Board;
use store::Store;

/// The server of the board, and its state.
fn server(store: Store) -> (Server, Board) {
    let server = Server::new();
    let board = Board { store, server: server.handle() };
    (server.hub(hub::hub(board.clone())), board)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = serve::read::<serve::ServeArguments>();
    let (server, board) = server(Store::from_environment());
    let page = get(async || Html(include_str!("../pages/board.html")));
    let routes = Router::new().route("/", page).merge(api::routes(board));
    arguments.serve(server, routes).await
}
