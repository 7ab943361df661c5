//! Links between proxies and this app server: which upgrade gets which session, and where its frames go.
//!
//! ```text
//!  upgrade ──► Slots: judge it ──► handshake ──► LinkReadLoop ──► EndpointSink ──► Endpoint (opens, data, closes)
//!  (headers)   (ends an older       (we speak      LinkWriteLoop ◄── LinkOutbox of the session
//!               socket first)        first)        both until the socket ends; the session lives on
//! ```
//!
//! A service is dialled instead ([`dial`](crate::dial)); its server connections have the same sessions, which end with
//! their sockets.
//!
//! Sockets, handshake, outbox, reader and writer are [`trunkline_link`]'s, which proxies use, too.

mod app_socket;
mod attached;
mod endpoint_sink;
mod peer;
mod proxy_log;
mod session;
mod session_keeper;
mod slots;

pub(crate) use app_socket::{AppSocket, DialledSocket, DialledStream, LinkReader, LinkSocket, LinkWriter};
pub(crate) use attached::Link;
pub(crate) use peer::{Service, ServicePings, SlotKey};
pub(crate) use session::SessionTerms;
pub(crate) use slots::{Refused, Slots};
