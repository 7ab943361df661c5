//! Errors of a node's start.

use std::io;
use std::net::SocketAddr;

/// Reason why a node can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address can't be listened on.
    #[error("{flag} {address}: {source}{}", advice(flag, source))]
    Listen {
        /// Flag with the address.
        flag: &'static str,
        /// Address in the configuration.
        address: SocketAddr,
        /// Error of the system.
        source: io::Error,
    },
    /// Inherited socket without a matching flag.
    #[error(
        "a socket at {0} was passed by the supervisor, but none of --listen, --tls-listen and --admin is {0}: use it \
         for one of these flags, or remove it (`ListenStream=` of systemd's socket unit)"
    )]
    Stray(SocketAddr),
    /// TLS can't be set up.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Tls(#[from] crate::ground::net::tls::TlsError),
    /// A group of app servers is invalid.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Spans and metrics can't be exported.
    #[cfg(feature = "otlp")]
    #[error("--otlp can't be used: {0}")]
    Otlp(#[source] io::Error),
    /// A thread can't be created.
    #[error("a thread can't be started: {0}")]
    Thread(#[source] io::Error),
}

/// Reason why a group of app servers is invalid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    #[cfg(feature = "tls")]
    #[error("group {group:?}: {source}")]
    Tls { group: String, source: crate::ground::net::tls::TlsError },
    #[error(
        "group {group:?} {} until a moment ago, and its app servers are still linked: {} a group with another name",
        role(*.was_mirror), new_role(*.was_mirror)
    )]
    Role { group: String, was_mirror: bool },
    #[error(
        "group {group:?} has {address} on another machine, but this node has only the development key of its machine: \
         give both ends an access key"
    )]
    NoKey { group: String, address: String },
    #[error("{address} is in the group {one:?} and in {other:?}: an app server can be in only one group")]
    Twice { address: String, one: String, other: String },
    #[error(
        "[issuers.{table}] has the `iss` {issuer:?} of --jwt-issuer, so the keys of the flags (--jwt-secret-file, \
         --jwt-public-key, --jwt-jwks) would verify no token: move these keys into the table, or drop one of both"
    )]
    IssuerTwice { table: String, issuer: String },
    #[error("{0}")]
    Webhook(String),
    #[error(transparent)]
    AppKeys(#[from] crate::ground::auth::AppKeySetError),
}

fn role(was_mirror: bool) -> &'static str {
    if was_mirror { "was a mirror's" } else { "took clients" }
}

fn new_role(was_mirror: bool) -> &'static str {
    if was_mirror { "have clients go to" } else { "give the mirror" }
}

fn advice(flag: &str, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            let shared = if cfg!(unix) && flag != "--admin" { ", or give --share-port to both nodes" } else { "" };
            format!(" - the address is in use; choose another address by {flag}{shared}")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_comes_with_the_flag_that_changes_it() {
        let text = |flag, kind: io::ErrorKind| {
            let address = ([127, 0, 0, 1], 8080).into();
            StartError::Listen { flag, address, source: kind.into() }.to_string()
        };
        let taken = text("--listen", io::ErrorKind::AddrInUse);
        assert!(taken.starts_with("--listen 127.0.0.1:8080: ") && taken.contains("another address by --listen"));
        assert_eq!(taken.ends_with("or give --share-port to both nodes"), cfg!(unix), "{taken}");
        let admin = text("--admin", io::ErrorKind::AddrInUse);
        assert!(admin.ends_with("another address by --admin"), "the admin port is never shared: {admin}");
        assert!(!text("--listen", io::ErrorKind::PermissionDenied).contains("choose"));
    }
}
