//! Settings of the admin port: its tokens, tokens for other nodes, and the log levels that it can change.

use std::fmt;

use http::Uri;

use crate::ground::auth::{AdminToken, AdminTokenInForce};
use crate::ground::net::address::Address;

/// Maximum length of a log level text.
pub const LEVELS_MAX_BYTES: usize = 1024;

/// Settings of the admin port.
#[derive(Debug, Clone, Default)]
pub struct AdminSettings {
    /// Token for changes from anywhere, and for reads from other machines.
    pub token: Option<AdminTokenInForce>,
    /// Token required by `/metrics`; `None` leaves it open.
    pub metrics_token: Option<AdminToken>,
    /// Receiver of a message for each condition that begins or ends.
    pub condition_webhook: Option<ConditionReceiver>,
    /// Log levels; `None` if an app owns the log.
    pub log: Option<&'static dyn LogLevels>,
}

/// URL of the receiver of messages about conditions. At chat services its path is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ConditionReceiver(pub Uri);

impl fmt::Debug for ConditionReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConditionReceiver({})", self.0.host().unwrap_or_default())
    }
}

/// Settings of the fleet.
#[derive(Debug, Clone, Default)]
pub struct FleetSettings {
    /// Admin ports of the other nodes, or DNS names that resolve to them. Empty for a single node.
    pub peers: Vec<Address>,
    /// Whether nodes find and reach each other through NATS.
    pub by_nats: bool,
}

impl FleetSettings {
    /// Returns whether this node joins a fleet.
    #[must_use]
    pub fn has_peers(&self) -> bool {
        self.by_nats || !self.peers.is_empty()
    }
}

/// Log levels and audit log, controlled by the program that writes them.
pub trait LogLevels: fmt::Debug + Send + Sync {
    /// Returns the name of the log format.
    fn format_name(&self) -> &'static str;

    /// Returns the levels as configured.
    fn text(&self) -> String;

    /// Changes the levels.
    ///
    /// # Errors
    /// Returns the reason if the levels are invalid. The old levels stay.
    fn set(&self, levels: &str) -> Result<(), String>;

    /// Returns whether operator actions are refused if they can't be audited.
    fn requires_audit(&self) -> bool;

    /// Runs a function that writes audit lines, and waits until they are stored. Blocks the thread.
    ///
    /// # Errors
    /// Returns the reason if a line could not be stored.
    fn confirm_audit(&self, write: &mut dyn FnMut()) -> Result<(), String>;
}
