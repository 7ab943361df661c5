//! Flags of TLS, for the listener and for connections to app servers and other nodes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use trunkline_proxy::parts::{ClientTls, IdentityFiles, TlsListener};

use super::value_parser::seconds;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TlsArgs {
    /// Address on which clients connect with TLS: wss:// and https://, also by HTTP/2. In addition to --listen.
    #[arg(long, env = "TRUNKLINE_TLS_LISTEN", value_name = "HOST:PORT")]
    pub tls_listen: Option<String>,

    /// PEM file with a certificate chain for --tls-listen, the node's own certificate first. May be given several
    /// times: the first certificate for the requested host name is used, or else the first of all. Reloaded when the
    /// file changes.
    #[arg(long = "tls-cert", env = "TRUNKLINE_TLS_CERT", value_name = "FILE", value_delimiter = ',')]
    pub tls_certs: Vec<PathBuf>,

    /// PEM file with the private key of a --tls-cert; one for each, in the same order.
    #[arg(long = "tls-key", env = "TRUNKLINE_TLS_KEY", value_name = "FILE", value_delimiter = ',')]
    pub tls_keys: Vec<PathBuf>,

    /// Time limit for a client's TLS handshake.
    #[arg(long, env = "TRUNKLINE_TLS_HANDSHAKE_TIMEOUT", value_name = "SECONDS", default_value = "10s",
          value_parser = seconds(1..=300))]
    pub tls_handshake_timeout: Duration,

    /// PEM file with CA certificates for https:// upstreams and other nodes. May be given several times. [default:
    /// those that the system trusts]
    #[arg(long = "upstream-ca", env = "TRUNKLINE_UPSTREAM_CA", value_name = "FILE", value_delimiter = ',')]
    pub upstream_cas: Vec<PathBuf>,

    /// PEM file with the certificate chain that this node presents to https:// upstreams (mutual TLS).
    #[arg(long, env = "TRUNKLINE_UPSTREAM_CERT", value_name = "FILE")]
    pub upstream_cert: Option<PathBuf>,

    /// PEM file with the private key of --upstream-cert.
    #[arg(long, env = "TRUNKLINE_UPSTREAM_KEY", value_name = "FILE")]
    pub upstream_key: Option<PathBuf>,
}

impl TlsArgs {
    /// Returns the listener at the address of `--tls-listen`. Fails if a certificate has no key.
    pub(super) fn listener(&self, address: SocketAddr) -> anyhow::Result<TlsListener> {
        let (certificates, keys) = (self.tls_certs.len(), self.tls_keys.len());
        if certificates != keys || certificates == 0 {
            bail!(
                "--tls-listen needs --tls-cert and one --tls-key for each, but --tls-cert is given {certificates} times \
                 and --tls-key {keys} times"
            );
        }
        let identities = self.tls_certs.iter().cloned().zip(self.tls_keys.iter().cloned());
        let identities = identities.map(|(certificate, key)| IdentityFiles { certificate, key }).collect();
        Ok(TlsListener { address, identities, handshake_timeout: self.tls_handshake_timeout })
    }
}

impl TryFrom<&TlsArgs> for ClientTls {
    type Error = anyhow::Error;

    fn try_from(args: &TlsArgs) -> anyhow::Result<Self> {
        let identity = match (args.upstream_cert.clone(), args.upstream_key.clone()) {
            (Some(certificate), Some(key)) => Some(IdentityFiles { certificate, key }),
            (Some(_), None) => bail!("--upstream-cert also needs --upstream-key"),
            (None, Some(_)) => bail!("--upstream-key also needs --upstream-cert"),
            (None, None) => None,
        };
        Ok(Self { roots: args.upstream_cas.clone(), identity })
    }
}
