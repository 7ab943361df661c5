//! Settings of the client listeners: TLS, the PROXY protocol, the HTTP transports.

#[cfg(feature = "tls")]
use std::net::SocketAddr;
use std::time::Duration;

use super::option_group::settings;
use super::trusted_network::TrustedNetworks;
#[cfg(feature = "tls")]
use crate::net::tls::IdentityFiles;

/// Settings of the client listener with TLS.
#[cfg(feature = "tls")]
#[derive(Debug, Clone)]
pub struct TlsListener {
    /// Address of the listener.
    pub address: SocketAddr,
    /// Certificates with their keys; never empty.
    pub identities: Vec<IdentityFiles>,
    /// Time that a client has for its TLS handshake.
    pub handshake_timeout: Duration,
}

/// Use of the ports of client listeners and the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortSharing {
    /// The node is refused a port that another process has.
    Alone,
    /// Nodes of one user share a port, if each of them was told so; the kernel spreads connections over them.
    WithNodes,
}

/// Settings of the PROXY protocol, by which load balancers report client addresses in front of each connection.
#[derive(Debug, Clone)]
pub struct ProxyProtocolSettings {
    /// Load balancers whose connections begin with a PROXY header.
    pub from: TrustedNetworks,
    /// Time within which the header must arrive.
    pub timeout: Duration,
}

settings! {
    /// Settings of server-sent events and long polling. Defaults are those of the official server.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct HttpTransportSettings {
        /// How long a poll waits for messages before it is answered empty. Keep it below the time after which
        /// load balancers cut requests that are not answered.
        #[flag("poll-timeout", Seconds(1..=3600))]
        pub poll_timeout: Duration = Duration::from_secs(90),

        /// How long a client may stay away between two polls before it is taken for gone. After a POST its first
        /// GET has no more than five. With stateful reconnect, how long it may be without a socket.
        #[flag("disconnect-timeout", WholeSeconds(1..=3600))]
        pub disconnect_timeout_s: u32 = 15,
    }
}
