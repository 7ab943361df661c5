//! TLS by rustls: certificates of the listener, identity and trusted roots towards servers.
//!
//! Files are read again when they change; open connections live on.

mod certificate_probe;
mod certificate_refusal;
mod client_config;
mod identity;
#[cfg(test)]
pub(crate) mod made_identity;
mod pem;
mod records;
mod server_config;
mod server_stream;
mod validity;

pub use certificate_probe::{CertificateFault, TlsLookError, TlsSeen, look_at_tls};
pub(crate) use certificate_refusal::refusal_words;
pub(crate) use client_config::client_config;
pub use pem::TlsError;
pub(crate) use records::{RECORD_BYTES, Records};
pub(crate) use server_config::{Certificates, server_config};
pub(crate) use server_stream::TlsStream;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// PEM files of a certificate chain and of its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// File of the chain.
    pub certificate: PathBuf,
    /// File of the key.
    pub key: PathBuf,
}

/// Settings of TLS towards servers.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// Files of the certificates that may have signed a server's; empty: those that the system trusts.
    pub roots: Vec<PathBuf>,
    /// Certificate that this node shows to servers.
    pub identity: Option<IdentityFiles>,
}

/// Cryptographic provider of TLS, which also verifies access tokens.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
