//! Server identity generated for tests, and clients that trust it.

use std::sync::Arc;

use rcgen::generate_simple_self_signed;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::pem::provider;

/// Host name of the server.
pub(crate) const HOST: &str = "chat.example";

pub(crate) fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let identity = generate_simple_self_signed([HOST.to_owned()]).unwrap();
    let (certificate, key) = (CertificateDer::from(identity.cert), PrivateKeyDer::from(identity.signing_key));
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let server = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    let mut server = server.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    server.alpn_protocols = vec![b"http/1.1".into()];
    let client = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
    (server.into(), client.into())
}
