//! Certificate of servers with TLS, and sessions of clients that trust it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

const HOST: &str = "localhost";

/// Self-signed certificate with its key, as files.
#[derive(Debug)]
pub(crate) struct Certificate {
    /// Path of the certificate in PEM format.
    pub(crate) chain: String,
    /// Path of its key in PEM format.
    pub(crate) key: String,
    /// Path of a file with both.
    pub(crate) both: String,
    roots: Arc<RootCertStore>,
}

#[derive(Debug, Clone)]
pub(crate) struct Sessions(Arc<ClientConfig>);

impl Certificate {
    /// Creates a certificate with a P-256 key in this folder.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([HOST.to_owned()])?.self_signed(&key)?;
        let (chain_text, key_text) = (certificate.pem(), key.serialize_pem());
        let write = |name: &str, text: &str| -> Result<String> {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            Ok(path.display().to_string())
        };
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone())?;
        Ok(Self {
            chain: write("chain.pem", &chain_text)?,
            key: write("key.pem", &key_text)?,
            both: write("both.pem", &(chain_text + &key_text))?,
            roots: roots.into(),
        })
    }

    /// Sessions with a full handshake each.
    pub(crate) fn sessions(&self) -> Sessions {
        self.sessions_with(Resumption::disabled())
    }

    /// Sessions that resume an earlier one, if available.
    pub(crate) fn resumed_sessions(&self) -> Sessions {
        self.sessions_with(Resumption::default())
    }

    fn sessions_with(&self, resumption: Resumption) -> Sessions {
        let mut config = ClientConfig::builder().with_root_certificates(Arc::clone(&self.roots)).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = resumption;
        Sessions(config.into())
    }
}

impl Sessions {
    /// Starts the session of one client.
    pub(crate) fn begin(&self) -> Result<ClientConnection> {
        Ok(ClientConnection::new(Arc::clone(&self.0), ServerName::try_from(HOST)?)?)
    }
}
