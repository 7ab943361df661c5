//! Validity of certificates: warns of certificates that clients or servers reject now or soon.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use tracing::warn;
use x509_parser::certificate::Validity;
use x509_parser::parse_x509_certificate;

/// Maximum time before expiry for a warning. For short-lived certificates it is the last fifth of their lifetime.
const SOON_MAX_S: i64 = 14 * 24 * 3600;

/// Divisor for the last part of a certificate's lifetime.
const LAST_PART: i64 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValidityProblem {
    #[error("certificate has expired: replace it")]
    Expired,
    #[error("certificate is not valid yet: check the clock of this machine, or replace it")]
    NotYetValid,
    #[error("certificate expires soon: renew it")]
    ExpiresSoon,
}

/// Logs trusted certificates only if all in the file are invalid or expire soon; a single expired one is harmless.
pub(super) fn warn_of_all(file: &Path, roots: &[CertificateDer<'_>]) {
    if roots.iter().all(|root| read(root).is_some_and(|validity| problem(&validity, now_s()).is_some())) {
        roots.iter().for_each(|root| warn_of(file, root));
    }
}

/// Certificate chain that this node presents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PresentedChain {
    /// File of the chain.
    pub file: PathBuf,
    /// Label in metrics: `listener` or `client`.
    pub role: &'static str,
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl PresentedChain {
    /// Earliest end of its certificates, in seconds since 1970.
    pub(crate) fn ends_s(&self) -> Option<u64> {
        let ends = self.certificates.iter().filter_map(|certificate| Some(read(certificate)?.not_after.timestamp()));
        ends.min().and_then(|ends_s| u64::try_from(ends_s).ok())
    }

    /// Problem of the first certificate that is invalid or expires soon, and a text with its end.
    pub(crate) fn problem(&self) -> Option<(ValidityProblem, String)> {
        let of = |certificate: &CertificateDer<'_>| {
            let validity = read(certificate)?;
            let problem = problem(&validity, now_s())?;
            Some((problem, format!("{problem} (its end: {})", validity.not_after)))
        };
        self.certificates.iter().find_map(of)
    }
}

fn warn_of(file: &Path, certificate: &CertificateDer<'_>) {
    let Some(validity) = read(certificate) else { return };
    if let Some(problem) = problem(&validity, now_s()) {
        let (begins, ends) = (validity.not_before, validity.not_after);
        warn!(file = %file.display(), %begins, %ends, "{problem}");
    }
}

/// Validity period of a certificate; `None` if unreadable.
fn read(certificate: &CertificateDer<'_>) -> Option<Validity> {
    Some(parse_x509_certificate(certificate).ok()?.1.validity().clone())
}

fn problem(validity: &Validity, now_s: i64) -> Option<ValidityProblem> {
    let (begins_s, ends_s) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let soon_s = (ends_s.saturating_sub(begins_s) / LAST_PART).clamp(0, SOON_MAX_S);
    if now_s > ends_s || ends_s < begins_s {
        return Some(ValidityProblem::Expired);
    }
    if now_s < begins_s {
        return Some(ValidityProblem::NotYetValid);
    }
    (ends_s - now_s < soon_s).then_some(ValidityProblem::ExpiresSoon)
}

fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use x509_parser::time::ASN1Time;

    use super::*;

    const NOW_S: i64 = 1_800_000_000;

    /// Problem of a certificate valid between these days from now.
    fn problem_of(from_days: i64, to_days: i64) -> Option<ValidityProblem> {
        let day = |days: i64| ASN1Time::from_timestamp(NOW_S + days * 24 * 3600).unwrap();
        problem(&Validity { not_before: day(from_days), not_after: day(to_days) }, NOW_S)
    }

    #[test]
    fn the_validity_of_a_certificate_is_read() {
        let mut params = CertificateParams::new(["chat.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2030, 1, 1));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let validity = read(certificate.der()).unwrap();
        let years = (validity.not_before.timestamp(), validity.not_after.timestamp());
        assert_eq!(years, (1_577_836_800, 1_893_456_000));
        assert!(read(&CertificateDer::from(vec![0x30, 3])).is_none());
    }

    #[test]
    fn what_has_ended_ends_soon_or_has_not_begun_is_reported() {
        for (from_days, to_days, expected) in [
            (-30, 60, None),
            (-76, 13, Some(ValidityProblem::ExpiresSoon)),
            (-60, 15, None),
            (-360, 10, Some(ValidityProblem::ExpiresSoon)),
            (-4, 2, None),
            (-5, 1, Some(ValidityProblem::ExpiresSoon)),
            (-90, -1, Some(ValidityProblem::Expired)),
            (30, -1, Some(ValidityProblem::Expired)),
            (30, 10, Some(ValidityProblem::Expired)),
            (1, 90, Some(ValidityProblem::NotYetValid)),
        ] {
            assert_eq!(problem_of(from_days, to_days), expected, "{from_days} to {to_days}");
        }
    }
}
