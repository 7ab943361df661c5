//! Flags of TLS, for the listener and for connections to app servers and other nodes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use trunkline_proxy::parts::{ClientTls, IdentityFiles, TlsListener};

use super::value_parser::seconds;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TlsArgs {
    /// Where clients connect with TLS: wss:// and https://, with HTTP/2 for those who speak it. Beside --listen.
    #[arg(long, env = "TRUNKLINE_TLS_LISTEN", value_name = "HOST:PORT")]
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
    #[arg(long, env = "TRUNKLINE_UPSTREAM_CERT", value_name = "FILE")]
    pub upstream_cert: Option<PathBuf>,

    /// Private key of --upstream-cert, a PEM file.
    #[arg(long, env = "TRUNKLINE_UPSTREAM_KEY", value_name = "FILE")]
    pub upstream_key: Option<PathBuf>,
}

/// Error for certificates without keys, or keys without certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsArgsError {
    #[error(
        "--tls-listen needs --tls-cert, and a --tls-key for each, but there are {certificates} of --tls-cert and {keys} of --tls-key"
    )]
    Counts { certificates: usize, keys: usize },
    #[error("{given} needs {missing} beside it")]
    Half { given: &'static str, missing: &'static str },
}

impl TlsArgs {
    /// Returns the listener at the address of `--tls-listen`.
    ///
    /// # Errors
    /// If a certificate has no key. The text names the flags.
    pub(super) fn listener(&self, address: SocketAddr) -> Result<TlsListener, TlsArgsError> {
        let (certificates, keys) = (self.tls_certs.len(), self.tls_keys.len());
        if certificates != keys || certificates == 0 {
            return Err(TlsArgsError::Counts { certificates, keys });
        }
        let identities = self.tls_certs.iter().cloned().zip(self.tls_keys.iter().cloned());
        let identities = identities.map(|(certificate, key)| IdentityFiles { certificate, key }).collect();
        Ok(TlsListener { address, identities, handshake_timeout: self.tls_handshake_timeout })
    }
}

impl TryFrom<&TlsArgs> for ClientTls {
    type Error = TlsArgsError;

    /// Returns the settings for connections to app servers and other nodes.
    fn try_from(args: &TlsArgs) -> Result<Self, TlsArgsError> {
        let (certificate_flag, key_flag) = ("--upstream-cert", "--upstream-key");
        let half = |given, missing| Err(TlsArgsError::Half { given, missing });
        let identity = match (args.upstream_cert.clone(), args.upstream_key.clone()) {
            (Some(certificate), Some(key)) => Some(IdentityFiles { certificate, key }),
            (Some(_), None) => return half(certificate_flag, key_flag),
            (None, Some(_)) => return half(key_flag, certificate_flag),
            (None, None) => None,
        };
        Ok(Self { roots: args.upstream_cas.clone(), identity })
    }
}
