//! Carry requests on: to an app server what is not a hub's, and to its owner what belongs to another node.
//!
//! ```text
//!  client ─► dispatch ─┬─ hub, ours ───────► answered here
//!                      ├─ hub, another's ──► owner hop ────► that node, marked, once
//!                      └─ anything else ───► pass-through ─► an app server, in turn
//! ```
//!
//! Bodies are streamed both ways and never kept; whoever reads slowly slows down the other end. Connections are kept
//! for the next request, per shard.

mod body;
mod client;
mod expect;
mod forwarded;
mod headers;
mod mark;
mod onward;
mod owner_hop;
mod pass_through;
mod private;
mod tunnel;

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crate::net::connector::HttpClient;
use crate::shard::Shared;

pub(super) use headers::HOP_BY_HOP;
pub(super) use mark::{accept as accept_mark, is_carried};
pub(super) use owner_hop::{owner, to_owner};
pub(super) use pass_through::pass;
pub(super) use private::is_private;

/// A node that does not accept a connection by then is not there.
const HOP_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What one shard carries requests on with.
#[derive(Debug)]
pub(super) struct Relay {
    app_servers: HttpClient,
    nodes: HttpClient,
    /// Whose turn it is among the app servers.
    next: AtomicUsize,
}

impl Relay {
    pub(super) fn new(shared: &Shared, app_servers: HttpClient) -> Self {
        let hop_connect_timeout = HOP_CONNECT_TIMEOUT.min(shared.settings.relay.hop_timeout);
        Self {
            app_servers,
            nodes: HttpClient::new(shared.connector.clone(), hop_connect_timeout),
            next: AtomicUsize::new(0),
        }
    }
}
