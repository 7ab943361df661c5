//! Flags of TLS, at the listener and towards app servers and other nodes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use trunkline_proxy::parts::{ClientTls, IdentityFiles, TlsListener};

use super::value_parser::seconds;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TlsArgs {
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

    /// How long a client may take for its TLS handshake.
    #[arg(long, env = "TRUNKLINE_TLS_HANDSHAKE_TIMEOUT", value_name = "SECONDS", default_value = "10s",
          value_parser = seconds(1..=300))]
    pub tls_handshake_timeout: Duration,

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

/// Error for `--tls-cert` and `--tls-key` in different numbers.
#[derive(Debug, thiserror::Error)]
#[error(
    "--tls-listen needs a --tls-key for each --tls-cert, but there are {certificates} of --tls-cert and {keys} of --tls-key"
)]
pub struct TlsArgsError {
    certificates: usize,
    keys: usize,
}

impl TlsArgs {
    /// Returns the listener at the address that `--tls-listen` stands for.
    ///
    /// # Errors
    /// When not every certificate has a key; the text names the flags.
    pub(super) fn listener(&self, address: SocketAddr) -> Result<TlsListener, TlsArgsError> {
        let (certificates, keys) = (self.tls_certs.len(), self.tls_keys.len());
        if certificates != keys || certificates == 0 {
            return Err(TlsArgsError { certificates, keys });
        }
        let identities = self.tls_certs.iter().cloned().zip(self.tls_keys.iter().cloned());
        let identities = identities.map(|(certificate, key)| IdentityFiles { certificate, key }).collect();
        Ok(TlsListener { address, identities, handshake_timeout: self.tls_handshake_timeout })
    }
}

impl From<&TlsArgs> for ClientTls {
    /// Returns the settings towards app servers and other nodes.
    fn from(args: &TlsArgs) -> Self {
        let identity = args.upstream_cert.clone().zip(args.upstream_key.clone());
        let identity = identity.map(|(certificate, key)| IdentityFiles { certificate, key });
        Self { roots: args.upstream_cas.clone(), identity }
    }
}
