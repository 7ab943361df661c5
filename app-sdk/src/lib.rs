#![forbid(unsafe_code)]
#![doc = include_str!("../README.md")]
//! On one machine, a proxy and an app use the same generated development key. Across machines, create a key with
//! `trunkline token key` and give it to both as `TRUNKLINE_ACCESS_KEY`.
//!
//! # Methods
//!
//! A method is an async function. Its parameters are *extractors*, which do not use client arguments, and
//! *arguments*, which the client sends in that order; at most ten in total.
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
//! - Extractors: [`Context`], [`Cancellation`], axum's [`State`](axum::extract::State),
//!   [`Query`](axum::extract::Query) and `HeaderMap`, your own ([`FromContext`]), which may be asynchronous, and
//!   `Option` and `Result` of these. `#[derive(FromContext)]` builds an extractor from the user, claims, headers,
//!   query, state and other extractors.
//! - Arguments: any type that serde can deserialize. Their number must match exactly, as with the official server.
//! - Results: any type that serde can serialize, `()` for no result, or a `Result` with [`HubError`]; `?` converts
//!   any error. Clients see the text of [`HubError::new`]. They see other errors only from hubs with [detailed
//!   errors](Hub::detailed_errors).
//! - The calls of one client run sequentially unless the hub [allows parallel calls](Hub::parallel_invocations);
//!   calls of different clients run in parallel. A panic fails only its own call.
//! - Per-connection state goes into [items](Context::items); code around methods and hooks is a
//!   [filter](Hub::filter).
//! - A [`Policy`] restricts access to a hub, a method or a [module of methods](Methods).
//! - Each call and hook runs in a [tracing](https://docs.rs/tracing) span at level `debug` with the target
//!   `trunkline::call`. With `RUST_LOG=info,trunkline::call=debug`, log lines inside a call carry its fields `hub`,
//!   `method`, `connection` and `user`; this costs about two microseconds per call.
//! - If the compiler says that a function "is not a hub method", add `#[debug_method]` to get a precise error;
//!   `debug_hook` and `debug_filter` do the same for hooks and filters.
//! - Lifetime of a connection: handshake, [`on_connected`](Hub::on_connected), messages, and
//!   [`on_disconnected`](Hub::on_disconnected) once the connection has closed and its methods have returned. If its
//!   app server stops or crashes, another one takes over and calls [`on_rehomed`](Hub::on_rehomed) instead.
//!
//! ```
//! # #[cfg(feature = "macros")] {
//! use trunkline::{FromContext, Hub, HubError, debug_method};
//!
//! #[derive(FromContext)]
//! struct Author {
//!     #[user]
//!     id: String, // or the client reads "log in first"
//!     #[claim("role")]
//!     roles: Vec<String>,
//! }
//!
//! #[debug_method]
//! async fn publish(author: Author, text: String) -> Result<String, HubError> {
//!     if !author.roles.iter().any(|role| role == "editor") {
//!         return Err(HubError::new("editors only"));
//!     }
//!     Ok(format!("{}: {text}", author.id))
//! }
//!
//! let hub: Hub = Hub::new("/pages").method("Publish", publish);
//! # }
//! ```
//!
//! # Streams
//!
//! A method that returns a [`Stream`](futures_util::Stream) streams items to the client, as fast as the client and
//! the link accept them. An item may be a `Result`; an error ends the stream. A parameter of type [`UploadStream`]
//! receives a stream from the client, which is paused while the method is slower. Calls with streams run concurrently
//! with the client's other calls. If the client cancels or disconnects, its stream is dropped.
//!
//! ```
//! use futures_util::{Stream, StreamExt, stream};
//! use trunkline::{Hub, HubError, UploadStream};
//!
//! async fn countdown(from: u32) -> Result<impl Stream<Item = u32>, HubError> {
//!     if from > 10 {
//!         return Err(HubError::new("that takes too long"));
//!     }
//!     Ok(stream::iter((0..=from).rev()))
//! }
//!
//! async fn join(mut words: UploadStream<String>, between: String) -> Result<String, HubError> {
//!     let mut all = Vec::new();
//!     while let Some(word) = words.next().await {
//!         all.push(word?);
//!     }
//!     Ok(all.join(&between))
//! }
//!
//! async fn shout(words: UploadStream<String>) -> impl Stream<Item = Result<String, HubError>> {
//!     words.map(|word| word.map(|word| word.to_uppercase()))
//! }
//!
//! let hub: Hub = Hub::new("/words").method("Countdown", countdown).method("Join", join).method("Shout", shout);
//! ```
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
//!     clients.user("ann").send("Notice", ("a client moved",)).await?;
//!     Ok(())
//! }
//! ```
//!
//! The methods of [`Clients`] and [`CallerClients`] select the receivers of a send. [`Context::join`],
//! [`Context::leave`] and [`Groups`] change group membership. Each send costs one frame per proxy, for any number of
//! receivers. Sends that are awaited one after the other arrive in that order, whatever their targets. Outside a hub,
//! use [`Server::handle`].
//!
//! A single client can be [invoked](Client::invoke) for a result, wherever it is connected.
//!
//! ```
//! use trunkline::{Context, HubError};
//!
//! async fn offer_draw(ctx: Context, opponent: String) -> Result<bool, HubError> {
//!     let clients = ctx.clients();
//!     let accepted = clients.client(&opponent).invoke("OfferDraw", (ctx.connection_id(),)).await?;
//!     if accepted {
//!         clients.clients([ctx.connection_id(), &opponent]).send("Drawn", ()).await?;
//!     }
//!     Ok(accepted)
//! }
//! # let _ = trunkline::Hub::<()>::new("/chess").method("OfferDraw", offer_draw);
//! ```
//!
//! Client methods can be declared once as a trait: see [`client_interface!`]. For bytes, dates and dynamic values,
//! which JSON and MessagePack encode differently, see [`value`].
//!
//! # Stateful reconnect
//!
//! Normally a short network failure closes the connection, and its state in the app is lost. In a hub that [allows
//! it](Hub::stateful_reconnect), clients that request it (`withStatefulReconnect`) resume their connection over a new
//! socket, through any proxy, with its ID, groups, items, calls and streams. Both ends resend unacknowledged messages:
//! none is lost, duplicated or reordered, and no hook runs.
//!
//! ```
//! use trunkline::{Hub, Server};
//!
//! let hub = Hub::new("/chat").stateful_reconnect(true).method("Echo", async |text: String| text);
//! let server = Server::new().hub(hub);
//! ```
//!
//! - [`Context`] shows the original connect request: address, headers and query do not change.
//! - While a client moves to another proxy, messages for this client alone wait: a [send](Receivers::send) to it takes
//!   longer. The order of awaited sends is kept.
//! - A client that does not return within 15 s is disconnected; only then [`on_disconnected`](Hub::on_disconnected)
//!   runs.
//! - A proxy buffers [up to 100 000 bytes](Hub::stateful_reconnect_buffer_bytes) per client.
//!
//! # Raw endpoints
//!
//! For clients without a hub protocol, [`Server::raw`] works like a WebSocket handler in axum: an async function of a
//! [`RawConnection`], which receives and sends text and binary messages. [`RawEndpoint`] adds state and settings. Its
//! connections are closed when this app server stops, unless they are [movable](RawEndpoint::movable) to another one.
//!
//! # Users
//!
//! Proxies verify the access tokens of clients. [`ServerHandle::token`] creates tokens. The extractor [`User`] reads
//! them in HTTP handlers; in [`Hub::on_negotiate`] it is the user that the proxy has verified.
//!
//! # Serving
//!
//! [`serve()`] includes what every app server needs: graceful shutdown on Ctrl-C and SIGTERM, peer addresses,
//! TCP_NODELAY, readiness notification for systemd. With `axum::serve` the app does this itself: see
//! [`Server::into_router`].
//!
//! # Tests
//!
//! [`testing`] runs hubs in unit tests, without sockets or a proxy.
//!
//! # Without a proxy
//!
//! With the feature `embedded` an app can serve clients itself: `Server::new().hub(…).embedded().into_router()?` runs
//! the proxy's code inside the app, with unchanged hubs. Several app servers need proxies in front to see each other's
//! clients. `cargo doc --all-features` shows `Server::embedded`, `Server::allow_origin` and `Serve::direct_websockets`,
//! which require the feature.
//!
//! # Dialling
//!
//! If proxies cannot reach the app, for example behind NAT, the app can connect to them: [`Server::dial`] takes the
//! connection string of a proxy with an access key, or of Azure SignalR. An `https` endpoint requires the feature
//! `tls`.
//!
//! # Crates in the public API
//!
//! [`axum`], [`bytes`], [`http`] and [`prometheus`], which appear in public signatures, are re-exported for apps that
//! do not depend on them directly.
//!
//! # TypeScript
//!
//! With the feature `typescript`, the module `typescript` writes the types of hub methods and client methods to a
//! file, so that the compiler checks the calls of a page.
//!
//! # Layout
//!
//! Modules import only modules above them in this table.
//!
//! | module | purpose |
//! |---|---|
//! | `brief_debug` | short `Debug` texts |
//! | `sync` | locks that ignore poisoning |
//! | `telemetry` | call spans, and W3C trace contexts with the feature `opentelemetry` |
//! | `metrics` | counters, gauges and histograms of a server |
//! | `error` | errors, and the error texts for clients |
//! | [`value`] | values with different encodings in the hub protocols |
//! | [`naming`] | names of fields and enums on the wire: serde's or .NET's |
//! | `encode` | encoding of hub messages |
//! | `node` | one proxy: its link pool, its send link, their outboxes |
//! | `connection` | one client connection: its inbox, calls, uploads and flow control |
//! | `outbound` | sends to the proxies of a hub or raw endpoint, with a replay buffer; receiver of their frames |
//! | `hub_core` | shared state of a hub: connections, outbound, acknowledgements, client results |
//! | `watchdog` | reports code that blocks its thread, and hooks that do not return; hook deadlines |
//! | `clients` | sends, closes, client results, groups and group queries, typed calls and their declaration |
//! | `context` | the caller of a method: its request, items and uploads |
//! | [`call`] | parameters of methods, hooks and filters |
//! | [`handler`] | async functions as methods, hooks and filters, their results, and policies |
//! | `presence` | hooks for users coming online or going offline, and for group changes |
//! | `typescript` | TypeScript types of hubs, with the feature `typescript` |
//! | `raw` | connections, messages and handlers of raw endpoints |
//! | `hub` | builders of hubs, modules of methods and raw endpoints, and the method table |
//! | `client_interface` | declaration of client methods, for typed calls |
//! | `dispatch` | turns the messages of connections into calls |
//! | `link` | WebSockets of proxies, and links in memory |
//! | `dial` | services that the app dials: server connections, and tokens for their clients |
//! | `server` | server builder, routes, handles and drain |
//! | [`testing`] | test clients, and an in-memory proxy |

mod brief_debug;
pub mod call;
mod client_interface;
mod clients;
mod connection;
mod context;
mod dial;
mod dispatch;
mod encode;
mod error;
pub mod handler;
mod hub;
mod hub_core;
mod link;
mod metrics;
pub mod naming;
mod node;
mod outbound;
mod presence;
mod raw;
mod server;
mod sync;
mod telemetry;
pub mod testing;
#[cfg(feature = "typescript")]
pub mod typescript;
pub mod value;
mod watchdog;

pub use axum;
pub use bytes;
pub use call::{CloseReason, FromContext, Rehomed};
#[doc(hidden)]
pub use clients::interface;
pub use clients::{
    Answer, CallerClients, Client, ClientAnswer, Clients, Groups, History, Member, Members, NotAcknowledged,
    NotAcknowledgedReason, Receivers, Sent, Users,
};
pub use context::request::{Claims, Query};
pub use context::upload_stream::UploadStream;
pub use context::{Cancellation, Context, Items};
pub use encode::Arguments;
pub use error::{
    AskError, BuildError, GroupError, HistoryError, HubError, InvokeError, RawSendError, SendError, UnknownHub,
};
pub use handler::{Filter, HubCall, HubCallKind, IntoEnd, Next, Policy, Reply};
pub use http;
pub use hub::{Hub, Methods, RawEndpoint};
pub use naming::Naming;
#[doc(hidden)]
pub use presence::NoticeHub;
pub use presence::{FromNotice, GroupChanged, NoticeHook, UserOffline, UserOnline};
pub use prometheus;
pub use raw::{RawConnection, RawHandle, RawHandler, RawMessage, RawSender};
pub use server::{
    HubHandle, Negotiation, Serve, Server, ServerHandle, TokenError, User, UserRejection, UserToken, listen, serve,
};
#[cfg(feature = "macros")]
pub use trunkline_macros::{FromContext, debug_filter, debug_hook, debug_method};
pub use trunkline_process::{LogQueue, restore_open_files};
pub use trunkline_protocol::access_token::AccessTokenError;
pub use trunkline_protocol::cause::Cause;
pub use trunkline_protocol::hub::HubProtocol;
pub use trunkline_protocol::manifest::{SlowClients, Transport};
pub use watchdog::block_in_place;
