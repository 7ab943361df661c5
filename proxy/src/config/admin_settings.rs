//! Settings of the admin port: its tokens, those of other nodes, and the log that it may change.

use std::fmt;

use crate::auth::{AdminToken, AdminTokenInForce};
use crate::net::address::Address;

/// Limit of the text of levels.
pub const LEVELS_MAX_BYTES: usize = 1024;

/// Settings of the admin port.
#[derive(Debug, Clone, Default)]
pub struct AdminSettings {
    /// Token that permits actions everywhere, and reading beyond loopback.
    pub token: Option<AdminTokenInForce>,
    /// Token that `/metrics` requires; `None` leaves it open.
    pub metrics_token: Option<AdminToken>,
    /// Levels of the log; `None` if the log is an app's.
    pub log: Option<&'static dyn LogLevels>,
}

/// Settings of the fleet.
#[derive(Debug, Clone, Default)]
pub struct FleetSettings {
    /// Admin ports of the other nodes, or names that resolve to them; none for a node that needs no other.
    pub peers: Vec<Address>,
}

impl FleetSettings {
    /// Whether this node joins a fleet.
    #[must_use]
    pub fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }
}

/// Levels of the log, and its audit log, in the hands of the program that writes them.
pub trait LogLevels: fmt::Debug + Send + Sync {
    /// Returns the name of the format of its lines.
    fn format_name(&self) -> &'static str;

    /// Returns the levels as they were given.
    fn text(&self) -> String;

    /// Changes the levels.
    ///
    /// # Errors
    /// When they can't be read, with the reason; the old levels stay.
    fn set(&self, levels: &str) -> Result<(), String>;

    /// Whether acts of operators that can't be recorded are refused.
    fn requires_audit(&self) -> bool;

    /// Runs a function that writes lines of the audit log, and waits until they are stored. It blocks its thread.
    ///
    /// # Errors
    /// When a line could not be stored, with the reason.
    fn confirm_audit(&self, write: &mut dyn FnMut()) -> Result<(), String>;
}
