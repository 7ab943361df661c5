//! Settings of webhook hubs: the tables `[webhooks.NAME]` of a configuration file.

use std::fmt;
use std::sync::Arc;

use trunkline_protocol::manifest::HubManifest;

use super::pattern::Pattern;
use super::webhook_header::WebhookHeader;

/// Table with the settings of a webhook hub, or of all hubs of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebhookTable {
    pub(crate) hubs: Pattern,
    pub(crate) settings: Arc<WebhookHubSettings>,
    /// Keys of the table, for people.
    pub(crate) keys: String,
}

/// Settings of a webhook hub. Those that are `None` follow the flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebhookHubSettings {
    /// Settings that a hub with app servers has in its manifest. Name, path, size and `asks_app` are not of the table.
    pub(crate) manifest: HubManifest,
    pub(crate) message_max_bytes: Option<usize>,
    pub(crate) requires_authentication: Option<bool>,
    /// Whether the back end is asked about each client before it is let in.
    pub(crate) connect: Option<bool>,
    /// Whether the back end receives events about users.
    pub(crate) presence: Option<bool>,
    pub(crate) events: WebhookEvents,
    /// Headers of each request, in addition to those of flags.
    pub(crate) headers: Vec<WebhookHeader>,
}

/// Events that a back end receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WebhookEvents {
    pub(crate) connected: bool,
    pub(crate) messages: bool,
    pub(crate) disconnected: bool,
}

impl Default for WebhookHubSettings {
    fn default() -> Self {
        Self {
            manifest: HubManifest::new("", ""),
            message_max_bytes: None,
            requires_authentication: None,
            connect: None,
            presence: None,
            events: WebhookEvents { connected: true, messages: true, disconnected: true },
            headers: Vec::new(),
        }
    }
}

impl fmt::Display for WebhookTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "webhook hub \"{}\" has its own {}", self.hubs, self.keys)
    }
}
