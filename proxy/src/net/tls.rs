//! TLS with rustls: listener certificates, and identity and trusted roots for outgoing connections.
//!
//! Files are reloaded when they change; open connections are kept.

mod certificate_probe;
mod certificate_refusal;
mod identity;
#[cfg(test)]
pub(crate) mod made_identity;
mod pem;
mod records;
mod server_config;
mod server_stream;
mod validity;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::sign::SingleCertAndKey;

pub use certificate_probe::{CertificateFault, TlsProbeError, TlsSeen, probe_tls};
pub(crate) use certificate_refusal::refusal_words;
pub use pem::TlsError;
pub(crate) use records::{RECORD_BYTES, Records};
pub(crate) use server_config::{Certificates, server_config};
pub(crate) use server_stream::TlsStream;
pub(crate) use validity::{PresentedChain, ValidityProblem};

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

/// Fails if a file is missing or unusable, or if there is no root certificate.
pub(crate) fn client_config(settings: &ClientTls) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots(settings)?);
    let mut config = match &settings.identity {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let identity = SingleCertAndKey::from(identity::read(files)?);
            builder.with_client_cert_resolver(Arc::new(identity))
        }
    };
    // Links are WebSockets over HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(settings: &ClientTls) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for path in &settings.roots {
        let certificates = pem::certificates(path)?;
        validity::warn_of_all(path, &certificates);
        for certificate in certificates {
            roots.add(certificate).map_err(|source| TlsError::Root { path: path.clone(), source })?;
        }
    }
    if settings.roots.is_empty() {
        // Systems often have some certificates that the library can't parse; the rest suffice.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}
