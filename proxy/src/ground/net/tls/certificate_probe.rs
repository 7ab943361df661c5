//! TLS handshake that accepts any certificate, to report all its problems. No data is sent over it.
//!
//! Error texts for rejected certificates omit the library's current time and name a remedy.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, VerifierBuilderError, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, ProtocolVersion, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::time::ASN1Time;

use super::pem::provider;
use super::{ClientTls, TlsError, client_config};

/// Time in the year 9999. An invalid certificate's error then contains its end.
const FAR_FUTURE_S: u64 = 253_402_300_000;

/// Observed TLS properties of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSeen {
    /// Protocol version, as text for people.
    pub version: &'static str,
    /// Number of certificates sent.
    pub certificates: usize,
    /// Fault for which clients abort the handshake.
    pub fault: Option<CertificateFault>,
    /// Expiry of the certificate, in seconds since 1970.
    pub expires_s: Option<u64>,
}

/// Fault of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateFault {
    /// Not signed by a trusted root, or an intermediate certificate is missing.
    UnknownIssuer,
    /// Issued for other names.
    OtherNames(Vec<String>),
    /// The certificate has expired.
    Expired,
    /// The certificate is not yet valid.
    NotYetValid,
    /// A CA certificate, which can't be used by a server.
    Authority,
    /// Another fault, as text.
    Other(String),
}

/// Reason why no certificate could be examined.
#[derive(Debug, thiserror::Error)]
pub enum TlsProbeError {
    /// The TLS files are unusable.
    #[error(transparent)]
    Setup(#[from] TlsError),
    /// The trusted roots are unusable.
    #[error("{0}")]
    Roots(#[from] VerifierBuilderError),
    /// The host is not a valid server name.
    #[error("{0}")]
    Name(#[from] rustls::pki_types::InvalidDnsNameError),
    /// The TLS handshake failed.
    #[error("{0}")]
    Handshake(#[from] io::Error),
    /// The server sent no certificate.
    #[error("the server sent no certificate")]
    NoCertificate,
}

/// Performs a handshake over `stream` for `host`, then closes the connection.
///
/// # Errors
/// If the handshake does not take place.
pub async fn probe_tls(stream: TcpStream, host: &str, settings: &ClientTls) -> Result<TlsSeen, TlsProbeError> {
    let roots = Arc::new(super::tls_config::roots(settings)?);
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
    let shown = witness.shown.get().ok_or(TlsProbeError::NoCertificate)?;
    Ok(TlsSeen {
        version,
        certificates: shown.len(),
        fault: witness.fault(&name, UnixTime::now()),
        expires_s: witness.expires_s(&name),
    })
}

/// Verifier that accepts and keeps any certificate.
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
                CertificateFault::OtherNames(presented.iter().map(|name| bare(name)).collect())
            }
            Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                CertificateFault::Expired
            }
            Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
                CertificateFault::NotYetValid
            }
            error if is_authority(&error) => CertificateFault::Authority,
            other => CertificateFault::Other(other.to_string()),
        })
    }

    /// Returns the expiry of the certificate. The verifier checks the validity period before the issuer.
    fn expires_s(&self, name: &ServerName<'_>) -> Option<u64> {
        let then = UnixTime::since_unix_epoch(Duration::from_secs(FAR_FUTURE_S));
        match self.verify(name, then).err()? {
            Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => Some(not_after.as_secs()),
            _ => None,
        }
    }
}

/// Strips the library's format, `DnsName("chat.example")`.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"').to_owned()
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

/// Remedy for a self-signed certificate made with plain `openssl req -x509`.
const AUTHORITY: &str = "its certificate is a CA certificate (CA:TRUE), which servers can't use: create it with \
                         `-addext basicConstraints=critical,CA:FALSE`";

/// Returns a constant text for a certificate error; `None` if the library's text is good enough.
pub(crate) fn refusal_words(error: &Error) -> Option<String> {
    match error {
        Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            Some(format!("its certificate expired on {}: renew it, or set the clock of this machine", date(*not_after)))
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => Some(format!(
            "its certificate is valid from {} on: set the clocks of this machine and of its issuer",
            date(*not_before)
        )),
        error => is_authority(error).then(|| AUTHORITY.to_owned()),
    }
}

/// Whether a CA certificate was sent as a server's. The library has no variant for this.
pub(super) fn is_authority(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::Other(cause)) if cause.to_string() == "CaUsedAsEndEntity")
}

fn date(time: UnixTime) -> String {
    let time = i64::try_from(time.as_secs()).ok().and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    time.map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;

    use super::*;
    use crate::ground::net::tls::pem::provider;

    const NOW_S: u64 = 1_800_000_000; // in January 2027

    fn issuer(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// Checks a certificate for `chat.example` against `host`, trusting its own issuer or another one.
    fn judged(host: &str, years: (i32, i32), is_known: bool) -> (Option<CertificateFault>, Option<u64>) {
        let (issuer, other) = (issuer("root"), issuer("other root"));
        let mut roots = RootCertStore::empty();
        roots.add(if is_known { issuer.der() } else { other.der() }.clone()).unwrap();
        let mut params = CertificateParams::new(["chat.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        let certificate = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
        let witness = CertificateWitness { verifier, shown: OnceLock::new() };
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW_S));
        witness.verify_server_cert(certificate.der(), &[], &name, &[], now).unwrap();
        (witness.fault(&name, now), witness.expires_s(&name))
    }

    #[test]
    fn each_certificate_fault_is_reported_and_the_expiry_for_any_issuer() {
        let year_2030 = Some(1_893_456_000);
        assert_eq!(judged("chat.example", (2020, 2030), true), (None, year_2030));
        let (fault, end) = judged("chat.example", (2020, 2030), false);
        assert_eq!((fault, end), (Some(CertificateFault::UnknownIssuer), year_2030));
        let names = Some(CertificateFault::OtherNames(vec!["chat.example".into()]));
        assert_eq!(judged("other.example", (2020, 2030), true).0, names);
        assert_eq!(judged("chat.example", (2020, 2021), true).0, Some(CertificateFault::Expired));
        assert_eq!(judged("chat.example", (2029, 2030), true).0, Some(CertificateFault::NotYetValid));
    }

    /// Error text for a trusted self-signed certificate at the given time.
    fn words(years: (i32, i32), is_ca: IsCa, now_s: u64) -> Option<String> {
        let mut params = CertificateParams::new(["chat.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        params.is_ca = is_ca;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_s));
        let name = "chat.example".try_into().unwrap();
        verifier
            .verify_server_cert(certificate.der(), &[], &name, &[], now)
            .err()
            .and_then(|error| refusal_words(&error))
    }

    #[test]
    fn the_words_for_a_refused_certificate_have_its_date_and_not_the_time() {
        const NOW_S: u64 = 1_800_000_000;
        for (years, start) in [
            ((2020, 2021), "its certificate expired on Jan  1 00:00:00 2021"),
            ((2029, 2030), "its certificate is valid from Jan  1 00:00:00 2029"),
        ] {
            let first = words(years, IsCa::NoCa, NOW_S).unwrap();
            assert!(first.starts_with(start), "{first}");
            assert_eq!(words(years, IsCa::NoCa, NOW_S + 1), Some(first));
        }
        assert_eq!(words((2020, 2030), IsCa::NoCa, NOW_S), None);
    }

    #[test]
    fn an_authority_as_a_server_is_refused_with_what_to_do() {
        let words = words((2020, 2030), IsCa::Ca(BasicConstraints::Unconstrained), 1_800_000_000).unwrap();
        assert!(words.contains("CA:TRUE") && words.contains("basicConstraints=critical,CA:FALSE"), "{words}");
    }
}
