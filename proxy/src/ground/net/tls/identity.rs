//! Identities: certificate chains with private keys.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

use super::{IdentityFiles, TlsError, pem, provider};

/// Reads both files and checks that key and certificate match.
pub(super) fn read(files: &IdentityFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = pem::certificates(&files.certificate)?;
    let key = pem::private_key(&files.key)?;
    let unfit = |source| TlsError::Identity { certificate: files.certificate.clone(), key: files.key.clone(), source };
    let identity = CertifiedKey::from_der(chain, key, &provider()).map_err(unfit)?;
    identity.end_entity_cert().and_then(ParsedCertificate::try_from).map_err(unfit)?;
    Ok(Arc::new(identity))
}

pub(super) fn names(identity: &CertifiedKey, host: &ServerName<'_>) -> bool {
    let parsed = identity.end_entity_cert().and_then(ParsedCertificate::try_from);
    parsed.is_ok_and(|certificate| rustls::client::verify_server_name(&certificate, host).is_ok())
}
