#![forbid(unsafe_code)]
#![doc = include_str!("../README.md")]
//!
//! A proxy and an app on one machine find the same development key; for more than one machine
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
//! - Extractors: [`Context`], [`Cancellation`], axum's [`State`](axum::extract::State), [`Query`](axum::extract::Query)
//!   and `HeaderMap`, and your own ([`FromContext`]), which may wait; `Option` and `Result` of them.
//!   `#[derive(FromContext)]` makes one of the user, claims, headers, the query, the state and other extractors.
//! - Arguments: anything that serde can deserialize. Their number is exact, as with the official server.
//! - Results: anything that serde can serialize, `()` for none, or a `Result` with [`HubError`], into which `?` turns
//!   any error. Clients read the text of [`HubError::new`]; that of other errors only from hubs with
//!   [detailed errors](Hub::detailed_errors).
//! - The calls of one client run one after the other, unless the hub [says otherwise](Hub::parallel_invocations), those
//!   of different clients in parallel. A panic is an error for its caller and nothing to anybody else.
//! - What belongs to a connection is kept in its [items](Context::items); what goes around methods and hooks is a
//!   [filter](Hub::filter).
//! - Who may call what is a [`Policy`] of a hub, a method or a [module of methods](Methods).
//! - Each call and hook runs in a [tracing](https://docs.rs/tracing) span at the level `debug` with the target
//!   `trunkline::call` and the fields `hub`, `method`, `connection` and `user`. With
//!   `RUST_LOG=info,trunkline::call=debug` what you log there says whose call it is; it costs some two microseconds a
//!   call.
//! - Does the compiler say that a function "is no hub method"? `#[debug_method]` on it says why, and where;
//!   `debug_hook` and `debug_filter` do the same for hooks and filters.
//! - A connection's life: the handshake is answered, [`on_connected`](Hub::on_connected), its messages, and when it has
//!   ended and its methods have too, [`on_disconnected`](Hub::on_disconnected). When its app server stops or crashes,
//!   another one takes it over, where [`on_rehomed`](Hub::on_rehomed) is called instead. A client that was lost and
//!   begins anew may get back [what it had](Hub::restore_groups).
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
//! A method that returns a [`Stream`](futures_util::Stream) is streamed to its client, item by item, as fast as that
//! client and the link take them; an item may be a `Result`, whose error ends the stream. A parameter of the type
//! [`UploadStream`] takes a stream of the client, which is paused when the method is slower. Calls with streams run
//! beside the other calls of their client. When the client cancels or leaves, a stream to it is dropped where it is.
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
//!     clients.user("ann").send("Notice", ("somebody moved",)).await?;
//!     Ok(())
//! }
//! ```
//!
//! The methods of [`Clients`] and [`CallerClients`] choose the receivers of a send; membership is changed by
//! [`Context::join`], [`Context::leave`] and [`Groups`]. Each send costs one frame per proxy, however many
//! receive it, and sends that are awaited one after the other arrive in that order, whatever their kinds.
//! From outside a hub the same goes through [`Server::handle`].
//!
//! One client can be [asked](Client::invoke) for a result, wherever it is connected; the answer, or why there is none
//! ([`InvokeError`]), comes back to the method or background task that asked.
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
//! What clients offer can be named once, as a trait: see [`client_interface!`]. For bytes, dates and values of any
//! shape, which JSON and MessagePack write differently, see [`value`].
//!
//! # Stateful reconnect
//!
//! A client whose network fails for a moment loses its connection, and its app all that stood around it. In a hub that
//! [allows it](Hub::stateful_reconnect), clients that ask for it (`withStatefulReconnect`) go on with their connection
//! over a new socket instead, at whichever proxy that leads to: both ends keep what the other one has not acknowledged,
//! and send it again. No message is lost, doubled or out of order, and no hook runs: id, groups, items, calls and
//! streams stay.
//!
//! ```
//! use trunkline::{Hub, Server};
//!
//! let hub = Hub::new("/chat").stateful_reconnect(true).method("Echo", async |text: String| text);
//! let server = Server::new().hub(hub);
//! ```
//!
//! - [`Context`] shows the request with which the connection began: address, headers and query don't change.
//! - While a client moves to another proxy, what is for it alone waits: a [send](Receivers::send) to it takes that much
//!   longer, a send to many does not. Sends that are awaited one after the other still arrive in that order.
//! - A client that does not come back within 15 s has disconnected: only then [`on_disconnected`](Hub::on_disconnected)
//!   runs.
//! - A proxy keeps [up to 100 000 bytes](Hub::stateful_reconnect_buffer_bytes) for each such client.
//!
//! # Raw endpoints
//!
//! For clients that speak no hub protocol, [`Server::raw`] has what axum has for WebSockets: an async function of a
//! [`RawConnection`], from which it receives texts and bytes and to which it sends them. See [`RawEndpoint`] for its
//! state and its settings. Its clients are closed when this app server stops, unless they may go on at another one:
//! [`RawEndpoint::movable`].
//!
//! # Users
//!
//! Proxies verify the access tokens of clients. [`ServerHandle::token`] makes such tokens, the extractor [`User`] reads
//! them in HTTP handlers, and in [`Hub::on_negotiate`] it is the user whom the proxy has verified.
//!
//! # Serving
//!
//! [`serve()`] does what every app server needs: Ctrl-C and SIGTERM with a graceful stop, the peer's address, no delay
//! of small packets, readiness for systemd. With `axum::serve` an app does these by itself: see
//! [`Server::into_router`].
//!
//! # Tests
//!
//! [`testing`] drives hubs in unit tests, without sockets or a proxy.
//!
//! # Without a proxy
//!
//! With the feature `embedded` an app can serve clients itself: `Server::new().hub(…).embedded().into_router()?` has
//! the proxy's own code inside, and the hubs stay as they are. Several such app servers don't see each other's clients;
//! put proxies in front for that. `cargo doc --all-features` shows `Server::embedded`, `Server::allow_origin` and
//! `Serve::direct_websockets`, which are hidden without the feature.
//!
//! # Dialling
//!
//! Where proxies can't reach the app, because it is behind NAT, the app reaches them: [`Server::dial`] takes the
//! connection string of a proxy that has an access key, or of Azure SignalR itself. With an `https` endpoint it needs
//! the feature `tls`.
//!
//! # Crates in the public API
//!
//! [`axum`], [`bytes`], [`http`] and [`prometheus`] are re-exported in the versions that stand in signatures here, for
//! apps that don't name them in their own manifests.
//!
//! # TypeScript
//!
//! With the feature `typescript` the calls of a page are checked by the compiler: the module `typescript` writes the
//! types of a hub's methods, and of what its clients offer, into a file.
//!
//! # Layout
//!
//! Modules import only those above them; the lowest comes first.
//!
//! | module | what it does |
//! |---|---|
//! | `sync` | locks that ignore poisoning |
//! | `log_limit` | budget of the log lines that clients bring about |
//! | `telemetry` | spans of calls, and W3C trace contexts with the feature `opentelemetry` |
//! | `metrics` | counters, gauges and histograms of a server |
//! | `error` | errors, and the texts that clients read |
//! | [`value`] | values that the hub protocols write differently |
//! | [`naming`] | names of fields and enums on the wire: serde's, or those of .NET |
//! | `encode` | hub messages as bytes |
//! | `node` | one proxy: its pool of links, its send link, their outboxes |
//! | `connection` | one client connection: its inbox, calls, uploads and flow control |
//! | `outbound` | sends to the proxies of a hub or raw endpoint, with a replay buffer for late ones |
//! | `hub_core` | what a hub shares: registry of connections, outbound, acknowledgements, client results |
//! | `endpoint` | receiver of the frames that links read |
//! | `watchdog` | reports of code that blocks its thread |
//! | `supervision` | deadlines of hooks, and reports of those that do not return |
//! | `clients` | sends, closes, client results, groups and questions about them, typed calls |
//! | `context` | the caller of a method: its request, items and uploads |
//! | [`call`] | parameters of methods, hooks and filters |
//! | [`handler`] | async functions as methods, hooks and filters, their results, and policies |
//! | `presence` | hooks for users who come and go, and for groups whose members change |
//! | `exclusive` | tasks that one app server of the fleet runs at a time |
//! | `typescript` | types of hubs for TypeScript, with the feature of that name |
//! | `hub` | builders of a hub and of modules of methods, and its table of methods |
//! | `client_interface` | declaration of what clients offer, for typed calls |
//! | `dispatch` | messages of connections become calls |
//! | `raw` | raw endpoints: builder, connections, handlers |
//! | `link` | WebSockets of proxies, and links in memory |
//! | `dial` | services that are dialled: their server connections, and the tokens for their clients |
//! | `server` | builder of a server, its routes, its handles, and its drain |
//! | [`testing`] | test clients, and the far end of links |

pub mod call;
mod client_interface;
mod clients;
mod connection;
mod context;
mod dial;
mod dispatch;
mod encode;
mod endpoint;
mod error;
mod exclusive;
pub mod handler;
mod hub;
mod hub_core;
mod link;
mod log_limit;
mod metrics;
pub mod naming;
mod node;
mod outbound;
mod presence;
mod raw;
mod server;
mod supervision;
mod sync;
mod telemetry;
pub mod testing;
#[cfg(feature = "typescript")]
pub mod typescript;
pub mod value;
mod watchdog;

pub use axum;
pub use bytes;
pub use call::rehomed::Rehomed;
pub use call::restored::Restored;
pub use call::{CloseReason, FromContext};
#[doc(hidden)]
pub use clients::interface;
pub use clients::{
    Answer, CallerClients, Client, ClientAnswer, Clients, Groups, Member, Members, NotAcknowledged,
    NotAcknowledgedReason, Receivers, Sent, Users,
};
pub use context::items::Items;
pub use context::request::{Claims, Query};
pub use context::upload_stream::UploadStream;
pub use context::{Cancellation, Context};
pub use encode::Arguments;
pub use error::{AskError, BuildError, GroupError, HubError, InvokeError, RawSendError, SendError, UnknownHub};
pub use exclusive::ExclusiveRun;
pub use handler::{Filter, HubCall, HubCallKind, IntoEnd, Next, Policy, Reply};
pub use http;
pub use hub::{Hub, Methods};
pub use naming::Naming;
#[doc(hidden)]
pub use presence::NoticeHub;
pub use presence::{FromNotice, GroupChanged, NoticeHook, UserOffline, UserOnline};
pub use prometheus;
pub use raw::{RawConnection, RawEndpoint, RawHandle, RawHandler, RawMessage, RawSender};
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
