//! Links between proxies and this app server: assigns upgrades to sessions and passes on their frames.
//!
//! ```text
//!  upgrade ──► Slots: check it ──► handshake ──► LinkReadLoop ──► EndpointSink ──► Endpoint (opens, data, closes)
//!  (headers)   (ends an older       (we start      LinkWriteLoop ◄── LinkOutbox of the session
//!               socket first)        it)           both until the socket ends; the session continues
//! ```
//!
//! Services are dialled instead ([`dial`](crate::dial)); their sessions end with the socket.
//!
//! Sockets, handshake, outbox, reader and writer come from [`trunkline_link`], as in proxies.

mod app_socket;
mod attached;
mod endpoint_sink;
mod proxy_log;
mod session;
mod slots;

pub(crate) use app_socket::{
    AppSocket, DialledSocket, DialledStream, LinkReader, LinkSocket, LinkWriter, Service, ServicePings, SlotKey,
};
pub(crate) use attached::Link;
pub(crate) use session::SessionTerms;
pub(crate) use slots::{Refused, Slots};
