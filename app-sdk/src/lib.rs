#![forbid(unsafe_code)]
//! Write SignalR hubs in Rust, as axum handlers are written.
//!
//! Clients connect to Trunkline proxies, with the official SignalR packages or any other. The proxies hold them
//! and carry their calls to your app over a few links; your app is an ordinary axum server.
//!
//! ```no_run
//! use axum::Router;
//! use axum::serve::ListenerExt;
//! use std::net::SocketAddr;
//! use trunkline::{Context, Hub, HubError, Server};
//!
//! async fn send_message(ctx: Context, user: String, message: String) -> Result<(), HubError> {
//!     ctx.clients().all().send("ReceiveMessage", (user, message)).await?;
//!     Ok(())
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let server = Server::new().hub(Hub::new("/chat").method("SendMessage", send_message));
//!     let app = Router::new().merge(server.into_router()?);
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:5000").await?.tap_io(|tcp| {
//!         let _ = tcp.set_nodelay(true);
//!     });
//!     axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
//!     Ok(())
//! }
//! ```
//!
//! Run a proxy before it, `trunkline serve --upstream http://127.0.0.1:5000`, and connect a client to
//! `http://127.0.0.1:8080/chat`. Both ends find the same development key on this machine; for more than one machine
//! make a key with `trunkline token key` and give it to both as `TRUNKLINE_ACCESS_KEY`.
//!
//! # Methods
//!
//! A method is an async function. Its parameters are *extractors*, which cost the client nothing, and *arguments*,
//! which the client gives in that order; up to ten together.
//!
//! ```
//! use axum::extract::State;
//! use serde::{Deserialize, Serialize};
//! use trunkline::{Context, Hub, HubError};
//!
//! #[derive(Clone)]
//! struct Prices { per_seat: u32 }
//!
//! #[derive(Deserialize)]
//! struct Order { seats: u32 }
//!
//! #[derive(Serialize)]
//! struct Receipt { total: u32, buyer: Option<String> }
//!
//! async fn book(ctx: Context, State(prices): State<Prices>, order: Order, note: Option<String>) -> Result<Receipt, HubError> {
//!     if order.seats == 0 {
//!         return Err(HubError::new("at least one seat, please")); // the client reads this
//!     }
//!     let _ = note;
//!     Ok(Receipt { total: order.seats * prices.per_seat, buyer: ctx.user_id().map(str::to_owned) })
//! }
//!
//! let hub: Hub = Hub::new("/tickets").method("Book", book).with_state(Prices { per_seat: 12 });
//! ```
//!
//! - Extractors: [`Context`], axum's [`State`](axum::extract::State), and your own ([`call::FromCall`]).
//! - Arguments: anything that serde can deserialize. Their number is exact, as with the official server.
//! - Results: anything that serde can serialize, `()` for none, or a `Result` with [`HubError`], into which `?` turns
//!   any error. Clients read the text of [`HubError::new`]; that of other errors only from hubs with
//!   [detailed errors](Hub::detailed_errors).
//! - The calls of one client run one after the other, those of different clients in parallel. A panic is an
//!   error for its caller and nothing to anybody else.
//!
//! # Clients and groups
//!
//! ```
//! use trunkline::{Context, HubError};
//!
//! async fn move_to(ctx: Context, room: String) -> Result<(), HubError> {
//!     ctx.join(&room).await?; // acknowledged: the next send reaches this client
//!     let clients = ctx.clients();
//!     clients.caller().send("Moved", (&room,)).await?;
//!     clients.others_in_group(&room).send("Entered", (ctx.connection_id(), &room)).await?;
//!     clients.all_except([ctx.connection_id()]).send("Rooms", ()).await?;
//!     clients.user("ann").send("Notice", ("somebody moved",)).await?;
//!     Ok(())
//! }
//! ```
//!
//! Whom a send reaches is picked on [`Clients`] and [`CallerClients`]; membership is changed by
//! [`Context::join`], [`Context::leave`] and [`Groups`]. Each send costs one frame per proxy, however many
//! receive it, and sends that are awaited one after the other arrive in that order, whatever their kinds.
//! From outside a hub the same goes through [`Server::handle`].
//!
//! # Layout
//!
//! Lower rooms never import higher ones; from the top:
//!
//! | room | what it does |
//! |---|---|
//! | `server` | puts hubs together, and mounts manifest and links into the app's router |
//! | `link` | WebSockets of proxies: slots, handshake, reader, writer |
//! | `dispatch` | messages of connections become calls |
//! | `hub` | the builder of a hub and its table of methods |
//! | `handler`, [`call`] | async functions as methods, and their parameters |
//! | `context`, `request` | what a method knows of its caller |
//! | `clients`, `groups` | receivers of sends, membership |
//! | `downward` | the way down of a hub: who is here, which proxies there are, what is to be acknowledged |
//! | `connection` | one client connection and its inbox |
//! | `node` | one proxy: its lane and the outboxes of its links |
//! | `encode`, `text`, `error`, `metrics`, `sync` | bytes, texts, errors, numbers, locks |

pub mod call;
mod clients;
mod connection;
mod context;
mod dispatch;
mod downward;
mod encode;
mod error;
mod groups;
pub mod handler;
mod hub;
mod link;
mod metrics;
mod node;
mod request;
mod server;
mod sync;
mod text;

pub use call::CloseReason;
pub use clients::{CallerClients, Clients, Receivers, Sent};
pub use context::{Cancellation, Context};
pub use encode::Arguments;
pub use error::{BuildError, GroupError, HubError, SendError, UnknownHub};
pub use groups::Groups;
pub use hub::Hub;
pub use request::{Claims, Query};
pub use server::{HubHandle, Server, ServerHandle};
pub use trunkline_protocol::hub::HubProtocol;
