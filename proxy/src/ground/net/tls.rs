//! TLS with rustls: listener certificates, and identity and trusted roots for outgoing connections.
//!
//! Files are reloaded when they change; open connections are kept.

mod certificate_probe;
#[cfg(test)]
pub(crate) mod made_identity;
mod pem;
mod records;
mod server_stream;
mod tls_config;
mod validity;

pub(crate) use certificate_probe::refusal_words;
pub use certificate_probe::{CertificateFault, TlsProbeError, TlsSeen, probe_tls};
pub use pem::{IdentityFiles, TlsError};
pub(crate) use records::{RECORD_BYTES, Records};
pub(crate) use server_stream::TlsStream;
pub(crate) use tls_config::{Certificates, client_config, server_config};
pub(crate) use validity::{PresentedChain, ValidityProblem};

use std::path::PathBuf;

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
