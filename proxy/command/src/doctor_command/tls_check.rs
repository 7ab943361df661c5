//! Checks TLS: version, chain, names and expiry of the certificate.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use trunkline_proxy::parts::{Address, CertificateFault, ClientTls, TlsLookError, TlsSeen, look_at_tls, unix_seconds};

use super::finding::Finding;

const TLS: &str = "tls";

const DAY_S: u64 = 24 * 3600;

/// A certificate should have been renewed this many days before its expiry.
const RENEWAL_DAYS: u64 = 14;

/// Performs a TLS handshake and judges the server's certificate.
pub(super) async fn check_tls(address: &Address, at: SocketAddr, settings: &ClientTls, deadline: Duration) -> Finding {
    if !address.is_tls() {
        return judge_plain(address);
    }
    let looked =
        timeout(deadline, async { look_at_tls(TcpStream::connect(at).await?, address.host(), settings).await });
    match looked.await {
        Ok(Ok(seen)) => judge_tls(&seen, address.host(), settings, unix_seconds()),
        Ok(Err(error)) => judge_no_tls(&error),
        Err(_) => Finding::failed(
            TLS,
            "the handshake gets no answer",
            "see whether this port speaks TLS: `--tls-listen` at a node, `bind … ssl` in HAProxy, `listen … ssl` in nginx",
        ),
    }
}

fn judge_plain(address: &Address) -> Finding {
    match address.is_loopback() {
        true => Finding::ok(TLS, "none, and none is needed on this machine"),
        false => Finding::warning(
            TLS,
            "none: whoever is on the way reads tokens and messages",
            "give clients an https:// URL: end TLS in the balancer, or at the nodes with --tls-listen",
        ),
    }
}

fn judge_no_tls(error: &TlsLookError) -> Finding {
    let advice = match error {
        TlsLookError::Setup(_) | TlsLookError::Roots(_) => "name the roots of the certificate by --ca-file",
        TlsLookError::Name(_) => "give clients a name that a certificate can hold",
        TlsLookError::Handshake(_) | TlsLookError::NoCertificate => {
            "see whether this port speaks TLS, of version 1.2 or 1.3, and without certificates of clients"
        }
    };
    Finding::failed(TLS, format!("no handshake: {error}"), advice)
}

fn judge_tls(seen: &TlsSeen, host: &str, settings: &ClientTls, now_s: u64) -> Finding {
    let left_days = seen.expires_s.map(|expires_s| expires_s.saturating_sub(now_s) / DAY_S);
    if let Some(fault) = &seen.fault {
        return judge_fault(fault, seen, host, settings, now_s);
    }
    let end = left_days.map(|days| format!(", for {days} more days")).unwrap_or_default();
    let text = format!("{}, a certificate for {host}{end}", seen.version);
    match left_days {
        Some(days) if days < RENEWAL_DAYS => {
            Finding::warning(TLS, text, "renew it, and see why that has not happened by itself")
        }
        _ => Finding::ok(TLS, text),
    }
}

fn judge_fault(fault: &CertificateFault, seen: &TlsSeen, host: &str, settings: &ClientTls, now_s: u64) -> Finding {
    let (text, advice) = match fault {
        CertificateFault::UnknownIssuer => {
            let by = if settings.roots.is_empty() { "no root that this system trusts" } else { "no root of --ca-file" };
            let sent = match seen.certificates {
                1 => "the server sends its own certificate alone".to_owned(),
                count => format!("the server sends {count} certificates"),
            };
            (
                format!("the certificate comes from {by}; {sent}"),
                "give the server the whole chain (--tls-cert, HAProxy `crt`, nginx `ssl_certificate`: its own certificate, \
                 then the intermediate ones); if clients have a root of their own, name it by --ca-file"
                    .to_owned(),
            )
        }
        CertificateFault::OtherNames(names) => {
            let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
            (format!("the certificate is for {names}, not for {host}"), format!("have one made that names {host}"))
        }
        CertificateFault::Expired => {
            let days = seen.expires_s.map(|expires_s| now_s.saturating_sub(expires_s) / DAY_S).unwrap_or_default();
            (
                format!("the certificate ended {days} days ago"),
                "renew it, and have the server read it again: nodes do when the file changes".to_owned(),
            )
        }
        CertificateFault::NotYetValid => (
            "the certificate is not valid yet".to_owned(),
            "compare the clocks of this machine and of who has signed it".to_owned(),
        ),
        CertificateFault::Authority => (
            "the certificate is an authority's (CA:TRUE), which can't be a server's".to_owned(),
            "have one made with CA:FALSE: `openssl req -x509 -addext basicConstraints=critical,CA:FALSE …`".to_owned(),
        ),
        CertificateFault::Other(problem) => {
            (format!("the certificate is refused: {problem}"), "have another one made".to_owned())
        }
    };
    Finding::failed(TLS, text, advice)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn judged(fault: Option<CertificateFault>, days: i64) -> Finding {
        let expires_s = NOW_S.checked_add_signed(days * 24 * 3600);
        let seen = TlsSeen { version: "TLS 1.3", certificates: 1, fault, expires_s };
        judge_tls(&seen, "chat.example", &ClientTls::default(), NOW_S)
    }

    #[test]
    fn a_certificate_that_ends_soon_is_a_warning_and_one_that_has_ended_fails() {
        assert_eq!(judged(None, 60).seen, "TLS 1.3, a certificate for chat.example, for 60 more days");
        assert_eq!((judged(None, 60).verdict, judged(None, 13).verdict), (Verdict::Ok, Verdict::Warning));
        let ended = judged(Some(CertificateFault::Expired), -3);
        assert_eq!((ended.verdict, ended.seen.as_str()), (Verdict::Failed, "the certificate ended 3 days ago"));
    }

    #[test]
    fn an_unknown_root_and_other_names_are_told_with_what_to_change() {
        let unknown = judged(Some(CertificateFault::UnknownIssuer), 60);
        assert!(unknown.seen.contains("sends its own certificate alone"), "{unknown}");
        assert!(unknown.advice.unwrap().contains("--ca-file"));
        let authority = judged(Some(CertificateFault::Authority), 60);
        assert!(authority.seen.contains("CA:TRUE") && authority.advice.unwrap().contains("CA:FALSE"));
        let other = judged(Some(CertificateFault::OtherNames(vec!["DnsName(\"x\")".into()])), 60);
        assert!(other.seen.ends_with("not for chat.example"), "{other}");
    }

    #[test]
    fn tokens_need_tls_beyond_this_machine() {
        let verdict = |url: &str| judge_plain(&url.parse().unwrap()).verdict;
        assert_eq!((verdict("http://127.0.0.1"), verdict("http://chat.example")), (Verdict::Ok, Verdict::Warning));
    }
}
