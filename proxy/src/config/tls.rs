//! TLS: at the listener, and towards app servers and other nodes. Only names of files; nothing is read here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "cli")]
use crate::net::tls::ClientTls;
use crate::net::tls::IdentityFiles;

/// What of this is typed.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TlsArgs {
    /// Where clients connect with TLS: wss:// and https://, with HTTP/2 for those who speak it. Beside --listen.
    #[arg(long, env = "TRUNKLINE_TLS_LISTEN", value_name = "HOST:PORT", requires = "tls_certs")]
    pub tls_listen: Option<String>,

    /// Certificate chain of --tls-listen, a PEM file, the node's own certificate first. May be given several times:
    /// the first one that names the host which a client asks for is used, else the first. Read anew when it changes.
    #[arg(long = "tls-cert", env = "TRUNKLINE_TLS_CERT", value_name = "FILE", value_delimiter = ',')]
    pub tls_certs: Vec<PathBuf>,

    /// Private key of a --tls-cert, a PEM file; as many and in the same order.
    #[arg(long = "tls-key", env = "TRUNKLINE_TLS_KEY", value_name = "FILE", value_delimiter = ',')]
    pub tls_keys: Vec<PathBuf>,

    /// How long a client may take for its TLS handshake, in seconds.
    #[arg(long, env = "TRUNKLINE_TLS_HANDSHAKE_TIMEOUT", value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=300))]
    pub tls_handshake_timeout: u64,

    /// Certificates that https:// upstreams and other nodes may be signed by, a PEM file. May be given several times.
    /// [default: those that the system trusts]
    #[arg(long = "upstream-ca", env = "TRUNKLINE_UPSTREAM_CA", value_name = "FILE", value_delimiter = ',')]
    pub upstream_cas: Vec<PathBuf>,

    /// Certificate chain that shows https:// upstreams who this node is (mutual TLS), a PEM file.
    #[arg(long, env = "TRUNKLINE_UPSTREAM_CERT", value_name = "FILE", requires = "upstream_key")]
    pub upstream_cert: Option<PathBuf>,

    /// Private key of --upstream-cert, a PEM file.
    #[arg(long, env = "TRUNKLINE_UPSTREAM_KEY", value_name = "FILE", requires = "upstream_cert")]
    pub upstream_key: Option<PathBuf>,
}

/// A listener with TLS.
#[derive(Debug, Clone)]
pub struct TlsListen {
    /// Where.
    pub address: SocketAddr,
    /// As whom; never empty.
    pub identities: Vec<IdentityFiles>,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
}

#[cfg(feature = "cli")]
impl TlsArgs {
    /// The listener, with an address that was found for `--tls-listen`.
    ///
    /// # Errors
    /// When not every certificate has a key; the text names the flags.
    pub fn listener(&self, address: SocketAddr) -> Result<TlsListen, TlsArgsError> {
        let (certificates, keys) = (self.tls_certs.len(), self.tls_keys.len());
        if certificates != keys || certificates == 0 {
            return Err(TlsArgsError { certificates, keys });
        }
        let identity = |(certificate, key): (&PathBuf, &PathBuf)| IdentityFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        };
        let identities = self.tls_certs.iter().zip(&self.tls_keys).map(identity).collect();
        Ok(TlsListen { address, identities, handshake_timeout: Duration::from_secs(self.tls_handshake_timeout) })
    }

    /// The other direction.
    #[must_use]
    pub fn upstream(&self) -> ClientTls {
        let identity = self.upstream_cert.clone().zip(self.upstream_key.clone());
        let identity = identity.map(|(certificate, key)| IdentityFiles { certificate, key });
        ClientTls { roots: self.upstream_cas.clone(), identity }
    }
}

/// Certificates and keys don't go together.
#[cfg(feature = "cli")]
#[derive(Debug, thiserror::Error)]
#[error(
    "--tls-listen needs a --tls-key for each --tls-cert, but there are {certificates} of --tls-cert and {keys} of --tls-key"
)]
pub struct TlsArgsError {
    certificates: usize,
    keys: usize,
}
