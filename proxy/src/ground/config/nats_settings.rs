//! Settings of the store in NATS.

use std::path::PathBuf;

use http::Uri;

/// Names that may be a prefix: part of the name of a bucket.
const PREFIX_MAX_BYTES: usize = 64;

/// Settings of a store in NATS JetStream.
#[derive(Debug, Clone)]
pub struct NatsSettings {
    /// Servers, of which one is used at a time.
    pub servers: Vec<NatsServer>,
    /// Name of the bucket, which separates fleets in one account.
    pub prefix: String,
    /// Copies of each value; `None` for three in a cluster of three servers, else one.
    pub replicas: Option<u8>,
    /// Content of a credentials file.
    pub credentials: Option<NatsCredentials>,
    /// PEM file with the CA certificates of the servers, which then need TLS.
    pub ca: Option<PathBuf>,
    /// Whether a node that can't reach the store at its start serves clients without.
    pub is_optional_at_start: bool,
}

/// JWT and seed of a user. Never shown.
#[derive(Clone)]
pub struct NatsCredentials(pub String);

impl std::fmt::Debug for NatsCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NatsCredentials")
    }
}

/// Address of a server, and the user of its URL.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsServer {
    /// URL without the user.
    pub url: String,
    /// User and password, or a token alone.
    pub user: Option<(String, Option<String>)>,
}

impl std::fmt::Debug for NatsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

impl std::str::FromStr for NatsServer {
    type Err = &'static str;

    /// Parses `nats://host:port` or `tls://user:password@host:port`. The error text is worded to follow the input.
    fn from_str(url: &str) -> Result<Self, &'static str> {
        const EXAMPLE: &str = "is not a URL such as nats://127.0.0.1:4222 or tls://nats.example:4222";
        let uri: Uri = url.parse().map_err(|_| EXAMPLE)?;
        let (Some(scheme @ ("nats" | "tls")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(EXAMPLE);
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("has a path: give only scheme, user, host and port");
        }
        let (user, host) = match authority.as_str().rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority.as_str()),
        };
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user = user.map(|user| match user.split_once(':') {
            Some((user, password)) => (decoded(user), Some(decoded(password))),
            None => (decoded(user), None),
        });
        let port = if authority.port_u16().is_some() { "" } else { ":4222" };
        if authority.host().is_empty() || (!port.is_empty() && host != authority.host()) {
            return Err(EXAMPLE);
        }
        Ok(Self { url: format!("{scheme}://{host}{port}"), user })
    }
}

/// Checks the prefix of a store. The error text is worded to follow the input.
pub fn check_nats_prefix(prefix: &str) -> Result<(), &'static str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match (1..=PREFIX_MAX_BYTES).contains(&prefix.len()) && prefix.bytes().all(is_plain) {
        true => Ok(()),
        false => Err("must be 1 to 64 letters, digits, - or _"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_a_port_and_its_password_is_not_shown() {
        let parse = |text: &str| text.parse::<NatsServer>();
        let plain = parse("nats://a").unwrap();
        assert_eq!((&*plain.url, plain.user), ("nats://a:4222", None));
        let user = parse("tls://ann:p%40ss:word@[::1]:4223/").unwrap();
        assert_eq!(format!("{user:?}"), "tls://[::1]:4223");
        assert_eq!(user.user, Some(("ann".into(), Some("p@ss:word".into()))));
        assert_eq!(parse("nats://token@a:1").unwrap().user, Some(("token".into(), None)));
        for wrong in ["", "a:4222", "http://a", "nats://", "nats://a:x", "nats://a:1/x", "nats://a?x", "nats://@"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_prefix_is_part_of_a_name() {
        assert!(["trunkline", "a-B_9", &"x".repeat(64)].into_iter().all(|prefix| check_nats_prefix(prefix).is_ok()));
        let wrong = ["", "a.b", "a b", "ä", ">", &"x".repeat(65)];
        assert!(wrong.into_iter().all(|prefix| check_nats_prefix(prefix).is_err()));
    }
}
