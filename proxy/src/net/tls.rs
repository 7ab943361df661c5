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

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The one cryptographic library; tokens use it, too.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
