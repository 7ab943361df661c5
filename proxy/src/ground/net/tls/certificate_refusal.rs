//! Error texts for rejected server certificates, without the library's current time and with a remedy.

use rustls::pki_types::UnixTime;
use rustls::{CertificateError, Error};
use x509_parser::time::ASN1Time;

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

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;

    use super::super::provider;
    use super::*;

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
