//! TLS for a service with the system's root certificates, if the feature `tls` is enabled.

use tokio::net::TcpStream;
#[cfg(feature = "tls")]
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, pki_types::ServerName},
};

use super::dial_error::{DialError, TlsError};
use crate::link::DialledStream;

/// Encrypts the server connections of one service. Cannot be created without the feature.
pub(super) struct Encryption {
    #[cfg(feature = "tls")]
    connector: TlsConnector,
    #[cfg(feature = "tls")]
    host: ServerName<'static>,
    #[cfg(not(feature = "tls"))]
    never: std::convert::Infallible,
}

#[cfg(feature = "tls")]
impl Encryption {
    pub(super) fn new(host: &str) -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let problems: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
            return Err(TlsError::NoRoots(problems.join("; ")));
        }
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let host = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Host)?;
        Ok(Self { connector: TlsConnector::from(std::sync::Arc::new(config)), host })
    }

    pub(super) async fn encrypt(&self, tcp: TcpStream) -> Result<Box<dyn DialledStream>, DialError> {
        let stream = self.connector.connect(self.host.clone(), tcp).await.map_err(DialError::Encryption)?;
        Ok(Box::new(stream))
    }
}

#[cfg(not(feature = "tls"))]
impl Encryption {
    pub(super) fn new(_host: &str) -> Result<Self, TlsError> {
        Err(TlsError::NoFeature)
    }

    #[expect(clippy::unused_async, reason = "with the feature it waits")]
    pub(super) async fn encrypt(&self, _tcp: TcpStream) -> Result<Box<dyn DialledStream>, DialError> {
        match self.never {}
    }
}
