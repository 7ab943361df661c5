//! Settings of the REST data plane.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use super::option_group::settings;

settings! {
    /// Settings of the REST data plane.
    #[derive(Debug, Clone)]
    pub struct RestSettings {
        /// Whether the client ports answer it.
        pub on_client_ports: bool = false,

        /// Address of a port of its own.
        pub listen: Option<SocketAddr> = None,

        /// Maximum body size of a REST request.
        // At most a quarter of a link's maximum frame.
        #[flag("rest-body-max-bytes", Bytes(1024..=4 * 1024 * 1024))]
        // Limit of Azure's service.
        pub body_max_bytes: usize = 1024 * 1024,

        /// Maximum number of concurrent REST requests of this node; further ones get 503 and `Retry-After`.
        #[flag("rest-requests-max", Count(1..=u64::MAX))]
        pub requests_max: NonZeroUsize = NonZeroUsize::new(256).unwrap(),

        /// Maximum number of stored group memberships of users, for their future connections; at most 100 per user.
        /// Further ones get 409.
        #[flag("rest-user-groups-max", Count(0..=u64::MAX))]
        pub user_groups_max: usize = 100_000,

        /// Maximum memory for stored group memberships of users, including requests of app servers that dial in; one
        /// hub can use half of it. Beyond it requests get 409.
        #[flag("rest-user-groups-max-bytes", Bytes(1024..=u64::MAX))]
        // About 600 bytes per membership.
        pub user_groups_max_bytes: usize = 64 * 1024 * 1024,

        /// Accepted hosts in the audience of a token. Empty accepts any host.
        pub audience_hosts: Vec<String> = Vec::new(),
    }
}

impl RestSettings {
    pub(crate) fn is_on(&self) -> bool {
        self.on_client_ports || self.listen.is_some()
    }
}
