//! TLS with rustls: listener certificates, and identity and trusted roots for outgoing connections.
//!
//! Files are reloaded when they change; open connections are kept.

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

pub use certificate_probe::{CertificateFault, TlsProbeError, TlsSeen, probe_tls};
pub(crate) use certificate_refusal::refusal_words;
pub(crate) use client_config::client_config;
pub use pem::TlsError;
pub(crate) use records::{RECORD_BYTES, Records};
pub(crate) use server_config::{Certificates, server_config};
pub(crate) use server_stream::TlsStream;
pub(crate) use validity::{PresentedChain, ValidityProblem};

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// PEM files of a certificate chain and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// File of the certificate chain.
    pub certificate: PathBuf,
    /// File of the private key.
    pub key: PathBuf,
}

/// TLS settings for outgoing connections.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// Files of trusted root certificates; empty for the system's roots.
    pub roots: Vec<PathBuf>,
    /// Client certificate of this node.
    pub identity: Option<IdentityFiles>,
}

impl ClientTls {
    /// Reads the chain of the client certificate; `None` without one, or if the file is unreadable.
    pub(crate) fn presented_chain(&self) -> Option<PresentedChain> {
        let file = self.identity.as_ref()?.certificate.clone();
        let certificates = pem::certificates(&file).ok()?;
        Some(PresentedChain { file, role: "client", certificates })
    }
}

/// Cryptographic provider for TLS and for verifying access tokens.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
