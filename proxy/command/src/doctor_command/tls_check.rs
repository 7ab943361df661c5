//! Checks TLS: version, chain, names and expiry of the certificate.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use trunkline_proxy::parts::{Address, CertificateFault, ClientTls, TlsProbeError, TlsSeen, probe_tls, unix_seconds};

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
    let looked = timeout(deadline, async { probe_tls(TcpStream::connect(at).await?, address.host(), settings).await });
    match looked.await {
        Ok(Ok(seen)) => judge_tls(&seen, address.host(), settings, unix_seconds()),
        Ok(Err(error)) => judge_no_tls(&error),
        Err(_) => Finding::failed(
            TLS,
            "the handshake got no response",
            "check that this port uses TLS: `--tls-listen` at a node, `bind … ssl` in HAProxy, `listen … ssl` in nginx",
        ),
    }
}

fn judge_plain(address: &Address) -> Finding {
    match address.is_loopback() {
        true => Finding::ok(TLS, "no TLS, which is not needed on this machine"),
        false => Finding::warning(
            TLS,
            "no TLS: anyone on the network path can read tokens and messages",
            "give clients an https:// URL: terminate TLS in the load balancer, or at the nodes by --tls-listen",
        ),
    }
}

fn judge_no_tls(error: &TlsProbeError) -> Finding {
    let advice = match error {
        TlsProbeError::Setup(_) | TlsProbeError::Roots(_) => "give the CA certificates by --ca-file",
        TlsProbeError::Name(_) => "give clients a host name that a certificate can contain",
        TlsProbeError::Handshake(_) | TlsProbeError::NoCertificate => {
            "check that this port uses TLS 1.2 or 1.3, without client certificates"
        }
    };
    Finding::failed(TLS, format!("handshake failed: {error}"), advice)
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
            Finding::warning(TLS, text, "renew the certificate, and find out why it was not renewed automatically")
        }
        _ => Finding::ok(TLS, text),
    }
}

fn judge_fault(fault: &CertificateFault, seen: &TlsSeen, host: &str, settings: &ClientTls, now_s: u64) -> Finding {
    let (text, advice) = match fault {
        CertificateFault::UnknownIssuer => {
            let by = if settings.roots.is_empty() { "no CA that this system trusts" } else { "no CA of --ca-file" };
            let sent = match seen.certificates {
                1 => "the server sends only its own certificate".to_owned(),
                count => format!("the server sends {count} certificates"),
            };
            (
                format!("the certificate comes from {by}; {sent}"),
                "give the server the whole chain (--tls-cert, HAProxy `crt`, nginx `ssl_certificate`: its own \
                 certificate, then the intermediate ones); if clients use a private CA, give it by --ca-file"
                    .to_owned(),
            )
        }
        CertificateFault::OtherNames(names) => {
            let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
            (format!("the certificate is for {names}, not for {host}"), format!("get a certificate for {host}"))
        }
        CertificateFault::Expired => {
            let days = seen.expires_s.map(|expires_s| now_s.saturating_sub(expires_s) / DAY_S).unwrap_or_default();
            (
                format!("the certificate expired {days} days ago"),
                "renew the certificate, and reload it in the server: nodes do so when the file changes".to_owned(),
            )
        }
        CertificateFault::NotYetValid => (
            "the certificate is not valid yet".to_owned(),
            "compare the clocks of this machine and of the certificate's issuer".to_owned(),
        ),
        CertificateFault::Authority => (
            "the certificate is a CA certificate (CA:TRUE), which a server can't use".to_owned(),
            "create a certificate with CA:FALSE: `openssl req -x509 -addext basicConstraints=critical,CA:FALSE \
             …`"
            .to_owned(),
        ),
        CertificateFault::Other(problem) => {
            (format!("the certificate is refused: {problem}"), "get another certificate".to_owned())
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
    fn a_certificate_that_expires_soon_is_a_warning_and_an_expired_one_fails() {
        assert_eq!(judged(None, 60).seen, "TLS 1.3, a certificate for chat.example, for 60 more days");
        assert_eq!((judged(None, 60).verdict, judged(None, 13).verdict), (Verdict::Ok, Verdict::Warning));
        let ended = judged(Some(CertificateFault::Expired), -3);
        assert_eq!((ended.verdict, ended.seen.as_str()), (Verdict::Failed, "the certificate expired 3 days ago"));
    }

    #[test]
    fn an_unknown_root_and_other_names_are_reported_with_advice() {
        let unknown = judged(Some(CertificateFault::UnknownIssuer), 60);
        assert!(unknown.seen.contains("sends only its own certificate"), "{unknown}");
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
