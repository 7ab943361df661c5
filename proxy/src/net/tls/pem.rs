//! Certificates and keys out of PEM files.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why TLS can't be spoken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file can't be read, or is no PEM.
    #[error("{path} can't be read: {problem}")]
    File { path: PathBuf, problem: String },
    /// A file holds no certificate.
    #[error("{0} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")]
    NoCertificate(PathBuf),
    /// A certificate and a key don't go together, or are of no use.
    #[error("{certificate} with the key {key}: {source}")]
    Identity {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the key.
        key: PathBuf,
        source: rustls::Error,
    },
    /// A certificate can't be one that signs others.
    #[error("a certificate of {path} can't be trusted: {source}")]
    Root { path: PathBuf, source: rustls::Error },
    /// The system trusts nobody.
    #[error(
        "no certificates that this system trusts were found: give those of https:// upstreams by --upstream-ca, those of issuers by --jwt-jwks-ca"
    )]
    NoRoots,
    #[error("TLS can't be set up: {0}")]
    Library(#[from] rustls::Error),
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all.map_err(|error| unreadable(path, error))? {
        none if none.is_empty() => Err(TlsError::NoCertificate(path.into())),
        some => Ok(some),
    }
}

pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, error: pem::Error) -> TlsError {
    let problem = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)".into(),
        other => other.to_string(),
    };
    TlsError::File { path: path.into(), problem }
}
