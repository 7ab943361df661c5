//! Settings of the REST data plane.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

/// Largest body of a request by default, as Azure's service takes it.
pub(crate) const REST_BODY_MAX_BYTES: usize = 1024 * 1024;

/// Requests answered at a time by default.
pub(crate) const REST_REQUESTS_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Memberships of users kept by default, those of users without a connection among them.
pub(crate) const REST_USER_GROUPS_MAX: usize = 100_000;

/// Settings of the REST data plane.
#[derive(Debug, Clone)]
pub struct RestSettings {
    /// Whether the client ports answer it.
    pub on_client_ports: bool,
    /// Address of a port of its own.
    pub listen: Option<SocketAddr>,
    /// Largest body of a request, in bytes.
    pub body_max_bytes: usize,
    /// Requests that are answered at a time.
    pub requests_max: NonZeroUsize,
    /// Memberships of users in groups that are kept.
    pub user_groups_max: usize,
    /// Hosts of which the audience of a token has to name one; any will do if there is none.
    pub audience_hosts: Vec<String>,
}

impl Default for RestSettings {
    fn default() -> Self {
        Self {
            on_client_ports: false,
            listen: None,
            body_max_bytes: REST_BODY_MAX_BYTES,
            requests_max: REST_REQUESTS_MAX,
            user_groups_max: REST_USER_GROUPS_MAX,
            audience_hosts: Vec::new(),
        }
    }
}

impl RestSettings {
    /// Whether any port answers it.
    #[must_use]
    pub(crate) fn is_on(&self) -> bool {
        self.on_client_ports || self.listen.is_some()
    }
}
