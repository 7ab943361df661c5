//! Settings of the admin port: tokens and peers.

use crate::auth::AdminToken;
use crate::net::address::Address;

/// Settings of the admin port.
#[derive(Debug, Clone, Default)]
pub struct AdminSettings {
    /// Token that permits actions everywhere, and reading beyond loopback.
    pub token: Option<AdminToken>,
    /// Token that `/metrics` requires; `None` leaves it open.
    pub metrics_token: Option<AdminToken>,
    /// Admin ports of the other nodes.
    pub peers: Vec<Address>,
}
