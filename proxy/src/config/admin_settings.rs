//! Settings of the admin port: its tokens.

use crate::auth::AdminToken;

/// Settings of the admin port.
#[derive(Debug, Clone, Default)]
pub struct AdminSettings {
    /// Token that permits actions everywhere, and reading beyond loopback.
    pub token: Option<AdminToken>,
    /// Token that `/metrics` requires; `None` leaves it open.
    pub metrics_token: Option<AdminToken>,
}
