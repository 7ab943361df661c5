//! Certificates and keys from PEM files.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Error of the TLS setup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file can't be read, or is not PEM.
    #[error("{path} can't be read: {problem}")]
    File {
        /// The file with the fault.
        path: PathBuf,
        /// Why it is of no use.
        problem: String,
    },
    /// A file holds no certificate.
    #[error("{0} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")]
    NoCertificate(PathBuf),
    /// A certificate and a key don't belong together, or are unusable.
    #[error("{certificate} with the key {key}: {source}")]
    Identity {
        /// File of the certificate chain.
        certificate: PathBuf,
        /// File of the private key.
        key: PathBuf,
        /// Reason of the TLS library.
        source: rustls::Error,
    },
    /// A certificate can't be a root.
    #[error("a certificate of {path} can't be trusted: {source}")]
    Root {
        /// The file with the fault.
        path: PathBuf,
        /// Reason of the TLS library.
        source: rustls::Error,
    },
    /// The system has no root certificates.
    #[error(
        "no certificates that this system trusts were found: give those of https:// upstreams by --upstream-ca, those of issuers by --jwt-jwks-ca"
    )]
    NoRoots,
    /// TLS can't be set up.
    #[error("TLS can't be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// Reads all certificates of a file.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all.map_err(|error| unreadable(path, error))? {
        none if none.is_empty() => Err(TlsError::NoCertificate(path.into())),
        some => Ok(some),
    }
}

/// Reads the private key of a file.
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
