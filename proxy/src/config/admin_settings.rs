//! Settings of the admin port: its tokens, and the log that it may change.

use super::log_levels::LogLevels;
use crate::auth::AdminToken;

/// Settings of the admin port.
#[derive(Debug, Clone, Default)]
pub struct AdminSettings {
    /// Token that permits actions everywhere, and reading beyond loopback.
    pub token: Option<AdminToken>,
    /// Token that `/metrics` requires; `None` leaves it open.
    pub metrics_token: Option<AdminToken>,
    /// Levels of the log; `None` if the log is an app's.
    pub log: Option<&'static dyn LogLevels>,
}
