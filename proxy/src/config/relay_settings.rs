//! Settings of relayed requests: to app servers, and to the nodes that own a connection.

use std::num::NonZeroU32;
use std::time::Duration;

/// Settings of relayed requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySettings {
    /// Passes requests that are not for a hub through to an app server.
    pub pass_through: bool,
    /// Time that an app server has to accept a connection.
    pub upstream_connect_timeout: Duration,
    /// Time that an app server may be silent before it begins to answer.
    pub upstream_answer_timeout: Duration,
    /// Forwards requests to the node that owns their connection.
    pub forward: bool,
    /// Time that the owning node may be silent before it begins to answer.
    pub hop_timeout: Duration,
    /// Requests under way to app servers.
    pub requests_max: Option<NonZeroU32>,
    /// Requests under way to one app server.
    pub requests_per_upstream_max: Option<NonZeroU32>,
    /// Requests under way to app servers of one client address.
    pub requests_per_address_max: Option<NonZeroU32>,
}

impl RelaySettings {
    /// Returns the settings of a node embedded in an app: it has no app server but its own. Its tokens name no address,
    /// so that nothing is forwarded to it.
    #[must_use]
    pub fn embedded() -> Self {
        Self {
            pass_through: false,
            upstream_connect_timeout: Duration::ZERO,
            upstream_answer_timeout: Duration::ZERO,
            forward: true,
            hop_timeout: Duration::ZERO,
            requests_max: None,
            requests_per_upstream_max: None,
            requests_per_address_max: None,
        }
    }
}
