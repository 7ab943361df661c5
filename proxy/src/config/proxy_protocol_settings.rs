//! Settings of the PROXY protocol, by which load balancers tell client addresses in front of each connection.

use std::time::Duration;

use super::trusted_network::TrustedNetworks;

/// Settings of the PROXY protocol at the client listeners.
#[derive(Debug, Clone)]
pub struct ProxyProtocolSettings {
    /// Load balancers whose connections begin with a PROXY header.
    pub from: TrustedNetworks,
    /// Time within which the header must arrive.
    pub timeout: Duration,
}
