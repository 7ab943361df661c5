#![forbid(unsafe_code)]
//! A board with rooms, notes, polls and moderation. Run `cargo run --example board -- --listen 127.0.0.1:5000` behind
//! a proxy, or add `--embedded`. Several instances with the same `BOARD_FILE` can run behind the same proxies.
//!
//! | file | shows |
//! |---|---|
//! | `hub.rs` | hooks, methods, streams in both directions, client results |
//! | `presence.rs` | listing the members of a room by querying the proxies |
//! | `visitor.rs` | a custom extractor |
//! | `pace.rs` | a rate limit as a filter; its state moves with the client to another app server |
//! | `moderation.rs` | a module of methods with its own policy and filter |
//! | `login.rs` | tokens and cookies, for negotiation and HTTP requests |
//! | `api.rs` | HTTP requests that send to clients and query presence |
//! | `store.rs` | notes stored in a file |
//! | `tests.rs` | unit tests without sockets |

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

/// Creates the server and its shared state.
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
