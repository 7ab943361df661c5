//! TLS client configuration for app servers, other nodes and issuers.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::ClientConfig;
use rustls::sign::SingleCertAndKey;

use super::{ClientTls, TlsError, identity, pem, provider, validity};

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

pub(super) fn roots(settings: &ClientTls) -> Result<RootCertStore, TlsError> {
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
