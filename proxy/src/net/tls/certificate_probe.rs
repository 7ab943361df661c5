//! TLS handshake that ends well whatever the certificate, to tell all that is wrong with it. Nothing is sent over it.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, VerifierBuilderError, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, ProtocolVersion, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{ClientTls, TlsError, client_config, provider};

/// Time in the year 9999: a certificate that is not valid then says when it ends.
const FAR_FUTURE_S: u64 = 253_402_300_000;

/// Facts about TLS at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsSeen {
    /// Protocol version, as people write it.
    pub(crate) version: &'static str,
    /// Number of certificates that were sent.
    pub(crate) certificates: usize,
    /// Fault for which clients end the handshake.
    pub(crate) fault: Option<CertificateFault>,
    /// End of the certificate, in seconds since 1970.
    pub(crate) expires_s: Option<u64>,
}

/// Fault of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CertificateFault {
    /// No trusted root has signed it, or an intermediate certificate is missing.
    UnknownIssuer,
    /// It is for other names.
    OtherNames(Vec<String>),
    /// It has ended.
    Expired,
    /// It is not valid yet.
    NotYetValid,
    Other(String),
}

/// Error for a look that shows no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsLookError {
    #[error(transparent)]
    Setup(#[from] TlsError),
    #[error("{0}")]
    Roots(#[from] VerifierBuilderError),
    #[error("{0}")]
    Name(#[from] rustls::pki_types::InvalidDnsNameError),
    #[error("{0}")]
    Handshake(#[from] io::Error),
    #[error("the server has shown no certificate")]
    NoCertificate,
}

/// Shakes hands over `stream` as with `host`, and ends the connection.
///
/// # Errors
/// When there is no handshake at all.
pub(crate) async fn look_at_tls(stream: TcpStream, host: &str, settings: &ClientTls) -> Result<TlsSeen, TlsLookError> {
    let roots = Arc::new(super::client_config::roots(settings)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build()?;
    let witness = Arc::new(CertificateWitness { verifier, shown: OnceLock::new() });
    let mut config: ClientConfig = client_config(settings)?;
    config.dangerous().set_certificate_verifier(Arc::<CertificateWitness>::clone(&witness));
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name.clone(), stream).await?;
    let version = match stream.get_ref().1.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "an unknown version of TLS",
    };
    let shown = witness.shown.get().ok_or(TlsLookError::NoCertificate)?;
    Ok(TlsSeen {
        version,
        certificates: shown.len(),
        fault: witness.fault(&name, UnixTime::now()),
        expires_s: witness.expires_s(&name),
    })
}

/// Verifier that lets each certificate pass, and keeps it.
#[derive(Debug)]
struct CertificateWitness {
    verifier: Arc<WebPkiServerVerifier>,
    shown: OnceLock<Vec<CertificateDer<'static>>>,
}

impl CertificateWitness {
    fn verify(&self, name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
        let Some((own, intermediates)) = self.shown.get().and_then(|shown| shown.split_first()) else { return Ok(()) };
        self.verifier.verify_server_cert(own, intermediates, name, &[], now).map(drop)
    }

    fn fault(&self, name: &ServerName<'_>, now: UnixTime) -> Option<CertificateFault> {
        Some(match self.verify(name, now).err()? {
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => CertificateFault::UnknownIssuer,
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) => {
                CertificateFault::OtherNames(presented)
            }
            Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                CertificateFault::Expired
            }
            Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
                CertificateFault::NotYetValid
            }
            other => CertificateFault::Other(other.to_string()),
        })
    }

    /// Returns the end of the certificate: its own validity is judged before who has signed it.
    fn expires_s(&self, name: &ServerName<'_>) -> Option<u64> {
        let then = UnixTime::since_unix_epoch(Duration::from_secs(FAR_FUTURE_S));
        match self.verify(name, then).err()? {
            Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => Some(not_after.as_secs()),
            _ => None,
        }
    }
}

impl ServerCertVerifier for CertificateWitness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let all = std::iter::once(end_entity).chain(intermediates);
        self.shown.get_or_init(|| all.map(|certificate| certificate.clone().into_owned()).collect());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
