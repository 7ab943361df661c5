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
    /// A private key needs a passphrase.
    #[error(
        "the key in {0} is encrypted, and a node asks for no passphrase: write the key without one by `openssl pkey -in {0} -out \
         NEW-FILE`, into a file that only the node's user can read"
    )]
    EncryptedKey(PathBuf),
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

/// Marks of encrypted keys, of PKCS #8 and of the older form of OpenSSL.
const ENCRYPTED: [&str; 2] = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];

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
    PrivateKeyDer::from_pem_file(path).map_err(|error| match std::fs::read_to_string(path) {
        Ok(text) if ENCRYPTED.iter().any(|mark| text.contains(mark)) => TlsError::EncryptedKey(path.into()),
        _ => unreadable(path, error),
    })
}

fn unreadable(path: &Path, error: pem::Error) -> TlsError {
    let problem = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)".into(),
        other => other.to_string(),
    };
    TlsError::File { path: path.into(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encrypted_key_is_refused_with_what_to_do() {
        let file = std::env::temp_dir().join(format!("trunkline-encrypted-{}.key", std::process::id()));
        for text in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIB\n\
             -----END RSA PRIVATE KEY-----\n",
        ] {
            std::fs::write(&file, text).unwrap();
            let problem = private_key(&file).unwrap_err().to_string();
            assert!(problem.contains("is encrypted") && problem.contains("openssl pkey -in"), "{problem}");
        }
        std::fs::write(&file, "nothing").unwrap();
        let problem = private_key(&file).unwrap_err().to_string();
        std::fs::remove_file(&file).unwrap();
        assert!(problem.contains("it holds no private key"), "{problem}");
    }
}
