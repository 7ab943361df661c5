//! Settings of client listeners: TLS, PROXY protocol and HTTP transports.

#[cfg(feature = "tls")]
use std::net::SocketAddr;
use std::time::Duration;

use super::option_group::settings;
use super::trusted_network::TrustedNetworks;
#[cfg(feature = "tls")]
use crate::ground::net::tls::IdentityFiles;

/// Settings of the TLS client listener.
#[cfg(feature = "tls")]
#[derive(Debug, Clone)]
pub struct TlsListener {
    /// Address of the listener.
    pub address: SocketAddr,
    /// Certificates with their keys; at least one.
    pub identities: Vec<IdentityFiles>,
    /// Timeout of the TLS handshake.
    pub handshake_timeout: Duration,
}

/// Whether other nodes may share the ports for clients and the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortSharing {
    /// Startup fails if another process has the port.
    Alone,
    /// Nodes of one user share a port if all are configured to do so. The kernel distributes connections between them.
    WithNodes,
}

/// Settings of the PROXY protocol, with which load balancers send the client address at the start of each connection.
#[derive(Debug, Clone)]
pub struct ProxyProtocolSettings {
    /// Load balancers that send a PROXY header.
    pub from: TrustedNetworks,
    /// Timeout of the header.
    pub timeout: Duration,
}

settings! {
    /// Settings of server-sent events and long polling. Defaults are those of the official server.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct HttpTransportSettings {
        /// Time for which a poll waits for messages before it gets an empty response. Keep it below the timeout of
        /// load balancers for requests.
        #[flag("poll-timeout", Seconds(1..=3600))]
        pub poll_timeout: Duration = Duration::from_secs(90),

        /// Time between two polls after which a client counts as disconnected. After a POST, its first GET must arrive
        /// within at most five seconds. With stateful reconnect, time for which a client may be without a socket.
        #[flag("disconnect-timeout", WholeSeconds(1..=3600))]
        pub disconnect_timeout_s: u32 = 15,
    }
}
