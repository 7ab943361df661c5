//! TLS by rustls: who this node is at its listener and towards others, and whom it believes.
//!
//! What is read from files is read anew when they change; connections that are open live on.

mod client;
mod identity;
mod pem;
mod server;

pub(crate) use client::client_config;
pub(crate) use pem::TlsError;
pub(crate) use server::{Certificates, server_config};

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// PEM files of a certificate chain and of its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// File of the chain.
    pub certificate: PathBuf,
    /// File of the key.
    pub key: PathBuf,
}

/// Settings of TLS towards servers.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// Files of the certificates that may have signed a server's; empty: those that the system trusts.
    pub roots: Vec<PathBuf>,
    /// Certificate that this node shows to servers.
    pub identity: Option<IdentityFiles>,
}

/// The one cryptographic library; tokens use it, too.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
