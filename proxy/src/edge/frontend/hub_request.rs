//! Request to a hub and its client, as found by the stages before the handler.
//!
//! ```text
//!  placed (hub, dial-in) ─► origin, limits ─► identified or authenticated (client) ─► routed (group) ─► handler
//! ```

use std::sync::Arc;

use http::HeaderMap;
use http::request::Parts;
use trunkline_protocol::negotiate::Decision;
use trunkline_protocol::token::{ConnectionToken, UserBinding};

use crate::edge::frontend::Routed;
use crate::edge::frontend::request_context::RequestContext;
use crate::engine::shard::RevocationMark;
use crate::engine::upstream::Hub;
use crate::ground::auth::User;

/// Request to a hub without its body.
pub(crate) struct HubRequest {
    pub hub: Arc<Hub>,
    pub parts: Parts,
    pub context: Box<RequestContext>,
    pub is_negotiate: bool,
    pub is_upgrade: bool,
    /// It asks for the events of a record.
    pub is_history: bool,
    /// Whether it has a connection token.
    pub is_of_connection: bool,
    /// Arrival time in nanoseconds since 1970, if it may be traced.
    pub arrived_ns: Option<u64>,
    /// Set for a client of dial-in.
    pub dial_in: Option<DialInClient>,
    /// Revocations known when its token was verified.
    pub verified_at: Option<RevocationMark>,
    pub routed: Routed,
}

/// User of a dial-in token, which each request carries.
pub(crate) struct DialInClient {
    pub user: User,
    pub verified_at: RevocationMark,
    /// The token has expired: it may resume an open connection, but not start one.
    pub comes_back: bool,
}

pub(crate) enum HubClient {
    New(Box<NewClient>),
    Connecting(Box<ConnectingClient>),
}

/// Client without a connection token: it negotiates, or connects without negotiation.
#[derive(Default)]
pub(crate) struct NewClient {
    pub user: User,
    pub binding: UserBinding,
    pub grant: Grant,
    /// Assigned by routing if it skips negotiation.
    pub connection_id: Option<String>,
}

/// Decision of the app, with headers for the client.
#[derive(Default)]
pub(crate) struct Grant {
    pub decision: Decision,
    pub headers: HeaderMap,
}

pub(crate) struct ConnectingClient {
    pub connection_id: String,
    pub user: User,
    /// The token is recent enough to start the connection.
    pub is_fresh: bool,
    /// The token was issued by this node.
    pub is_ours: bool,
    /// The decrypted connection token; `None` without negotiation.
    pub token: Option<Box<ConnectionToken>>,
}
