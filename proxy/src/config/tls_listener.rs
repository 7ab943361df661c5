//! Settings of the client listener with TLS.

use std::net::SocketAddr;
use std::time::Duration;

use crate::net::tls::IdentityFiles;

/// Settings of the client listener with TLS.
#[derive(Debug, Clone)]
pub struct TlsListener {
    /// Address of the listener.
    pub address: SocketAddr,
    /// Certificates with their keys; never empty.
    pub identities: Vec<IdentityFiles>,
    /// Time that a client has for its TLS handshake.
    pub handshake_timeout: Duration,
}
