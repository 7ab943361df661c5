//! Names of the PEM files that TLS goes by; nothing is read here.

use std::path::PathBuf;

/// Certificate chain and private key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// TLS settings of outgoing connections.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// Trusted certificate authorities; if empty, those of the system.
    pub roots: Vec<PathBuf>,
    /// Client certificate of this node, for mutual TLS.
    pub identity: Option<IdentityFiles>,
}
