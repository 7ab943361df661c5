//! Certificates and keys from PEM files, and identities: certificate chains with private keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use trunkline_protocol::key::without_mark;

/// PEM files of a certificate chain and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// File of the certificate chain.
    pub certificate: PathBuf,
    /// File of the private key.
    pub key: PathBuf,
}

/// Error of the TLS setup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file is unreadable or not PEM.
    #[error("{path} can't be read: {problem}")]
    File {
        /// Path of the faulty file.
        path: PathBuf,
        /// Description of the problem.
        problem: String,
    },
    /// A file contains no certificate.
    #[error("{0} contains no PEM certificate (-----BEGIN CERTIFICATE-----)")]
    NoCertificate(PathBuf),
    /// A private key requires a passphrase.
    #[error(
        "the key in {0} is encrypted, which is not supported: decrypt it by `openssl pkey -in {0} -out NEW-FILE`, into \
         a file that only the node's user can read"
    )]
    EncryptedKey(PathBuf),
    /// A certificate and key don't match, or are unusable.
    #[error("{certificate} with the key {key}: {source}")]
    Identity {
        /// File of the certificate chain.
        certificate: PathBuf,
        /// File of the private key.
        key: PathBuf,
        /// Error of the TLS library.
        source: rustls::Error,
    },
    /// A certificate is unusable as a root.
    #[error("a certificate of {path} can't be trusted: {source}")]
    Root {
        /// Path of the faulty file.
        path: PathBuf,
        /// Error of the TLS library.
        source: rustls::Error,
    },
    /// The system has no root certificates.
    #[error(
        "this system has no trusted CA certificates: give them for https:// upstreams by --upstream-ca, for issuers by \
         --jwt-jwks-ca"
    )]
    NoRoots,
    /// TLS can't be set up.
    #[error("TLS can't be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// Markers of encrypted keys: PKCS #8, and the older OpenSSL format.
const ENCRYPTED: [&str; 2] = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];

/// First line of a certificate.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// Reads all certificates of a file. A certificate that the library would skip is an error.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let all = all.map_err(|error| unreadable(path, error))?;
    let begun = text.lines().filter(|line| line.contains(CERTIFICATE) && !line.trim_start().starts_with('#')).count();
    if all.len() < begun {
        let count = all.len();
        let problem = format!(
            "it contains {begun} certificates, but only {count} are valid PEM: each {CERTIFICATE} needs a separate \
             line, and its END line"
        );
        return Err(TlsError::File { path: path.into(), problem });
    }
    if all.is_empty() { Err(TlsError::NoCertificate(path.into())) } else { Ok(all) }
}

pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| {
        let is_encrypted = ENCRYPTED.iter().any(|mark| text.contains(mark));
        if is_encrypted { TlsError::EncryptedKey(path.into()) } else { unreadable(path, error) }
    })
}

/// Reads a PEM file without its byte order mark. Splits markers joined by `cat` after a file without a final newline,
/// because the library ignores markers within a line.
fn read(path: &Path) -> Result<String, TlsError> {
    let bytes = std::fs::read(path).map_err(|error| unreadable(path, pem::Error::Io(error)))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(without_mark(&text).replace("----------BEGIN ", "-----\n-----BEGIN "))
}

fn unreadable(path: &Path, error: pem::Error) -> TlsError {
    let problem = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it contains no PEM private key (-----BEGIN PRIVATE KEY-----)".into(),
        other => other.to_string(),
    };
    TlsError::File { path: path.into(), problem }
}

/// Reads both files and checks that key and certificate match.
pub(super) fn read_identity(files: &IdentityFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = private_key(&files.key)?;
    let unfit = |source| TlsError::Identity { certificate: files.certificate.clone(), key: files.key.clone(), source };
    let identity = CertifiedKey::from_der(chain, key, &provider()).map_err(unfit)?;
    identity.end_entity_cert().and_then(ParsedCertificate::try_from).map_err(unfit)?;
    Ok(Arc::new(identity))
}

pub(super) fn names_host(identity: &CertifiedKey, host: &ServerName<'_>) -> bool {
    let parsed = identity.end_entity_cert().and_then(ParsedCertificate::try_from);
    parsed.is_ok_and(|certificate| rustls::client::verify_server_name(&certificate, host).is_ok())
}

/// Cryptographic provider for TLS and for verifying access tokens.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses this text as certificates; returns their number.
    fn count(test: &str, text: &str) -> Result<usize, String> {
        let file = std::env::temp_dir().join(format!("trunkline-{test}-{}.pem", std::process::id()));
        std::fs::write(&file, text).unwrap();
        let read = certificates(&file).map(|all| all.len()).map_err(|error| error.to_string());
        std::fs::remove_file(&file).unwrap();
        read
    }

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";

    #[test]
    fn joined_certificates_and_those_behind_a_byte_order_mark_are_all_read() {
        for text in [
            format!("{ONE}{ONE}"),
            format!("\u{feff}{ONE}\n{ONE}\n"),
            format!("\u{feff}{ONE}{ONE}").replace('\n', "\r\n"),
            format!("# {CERTIFICATE}\n{ONE}\n# The root.\n{ONE}"),
            format!("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----{ONE}{ONE}"),
        ] {
            assert_eq!(count("joined", &text), Ok(2), "{text:?}");
        }
    }

    #[test]
    fn a_certificate_that_would_be_skipped_is_an_error() {
        let cut = "-----BEGIN CERTIFICATE-----\nMIIB\n";
        for text in [format!("{ONE} {ONE}"), format!("{ONE}\n  {ONE}"), format!("{ONE}\n{cut}")] {
            let problem = count("skipped", &text).unwrap_err();
            assert!(problem.contains("valid PEM") || problem.contains("missing"), "{text:?}: {problem}");
        }
        assert!(count("none", "no certificate").unwrap_err().contains("contains no PEM certificate"));
    }

    #[test]
    fn a_key_behind_a_byte_order_mark_or_a_joined_certificate_is_read() {
        let file = std::env::temp_dir().join(format!("trunkline-marked-pem-{}.key", std::process::id()));
        for start in ["\u{feff}", ONE] {
            let key = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";
            std::fs::write(&file, format!("{start}{key}")).unwrap();
            assert!(private_key(&file).is_ok(), "{start}");
        }
        std::fs::remove_file(&file).unwrap();
    }

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
        assert!(problem.contains("it contains no PEM private key"), "{problem}");
    }
}
