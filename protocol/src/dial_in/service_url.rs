//! URL of a service: scheme, host, port and an optional path prefix.

use std::fmt;
use std::str::FromStr;

/// Scheme of a service's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceScheme {
    /// HTTP without any encryption.
    Http,
    /// HTTP over TLS (`https`).
    Https,
}

/// URL of a service, as in a connection string. Kept as written, without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUrl {
    scheme: ServiceScheme,
    host: String,
    port: Option<u16>,
    path: String,
}

/// Reason why a text is not a valid service URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServiceUrlError {
    /// The scheme is missing or unsupported.
    #[error("it must begin with http:// or https://")]
    Scheme,
    /// The host is missing or invalid.
    #[error("the host is missing or has an invalid character")]
    Host,
    /// The port is invalid.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// Contains a query, fragment, user, or invalid path character.
    #[error("only a host, a port and a path are allowed")]
    Rest,
}

impl ServiceScheme {
    /// Scheme name in URLs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Default port of the scheme.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl ServiceUrl {
    /// Scheme of the URL.
    #[must_use]
    pub fn scheme(&self) -> ServiceScheme {
        self.scheme
    }

    /// Host of the URL, with brackets around IPv6 addresses.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Host to connect to, without brackets around IPv6 addresses.
    #[must_use]
    pub fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(self.scheme.default_port())
    }

    /// Host and explicit port, as in a `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        self.port.map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }

    /// Path prefix without a trailing slash, usually empty.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Replaces the port of the URL.
    #[must_use]
    pub fn with_port(self, port: u16) -> Self {
        Self { port: Some(port), ..self }
    }

    /// Base of token audiences, without port and path.
    pub(super) fn audience_base(&self) -> String {
        format!("{}://{}", self.scheme.name(), self.host)
    }
}

impl FromStr for ServiceUrl {
    type Err = ServiceUrlError;

    fn from_str(text: &str) -> Result<Self, ServiceUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(ServiceUrlError::Scheme)?;
        let scheme = [ServiceScheme::Http, ServiceScheme::Https]
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(scheme))
            .ok_or(ServiceUrlError::Scheme)?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains(['@', '?', '#']) || !path.bytes().all(is_path_byte) {
            return Err(ServiceUrlError::Rest);
        }
        let port_at = authority.rfind(':').filter(|&at| !authority.get(at..).unwrap_or_default().contains(']'));
        let (host, port) = match port_at {
            None => (authority, None),
            Some(at) => {
                let (host, port) = authority.split_at(at);
                (host, Some(parse_port(port.trim_start_matches(':')).ok_or(ServiceUrlError::Port)?))
            }
        };
        if !is_host(host) {
            return Err(ServiceUrlError::Host);
        }
        Ok(Self { scheme, host: host.to_owned(), port, path: path.trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.name(), self.authority(), self.path)
    }
}

/// Parses a port: digits only, not 0.
pub(super) fn parse_port(text: &str) -> Option<u16> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| is_digits && port != 0)
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            !host.is_empty() && host.bytes().all(is_host_byte)
        }
    }
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~' | b'%')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ServiceUrl {
        text.parse().unwrap()
    }

    #[test]
    fn parts_of_a_url_are_distinguished() {
        let plain = url("http://proxy");
        assert_eq!((plain.host(), plain.port(), plain.authority().as_str(), plain.path()), ("proxy", 80, "proxy", ""));
        let full = url("HTTPS://a.example:8443/signalr/");
        assert_eq!((full.scheme(), full.port(), full.path()), (ServiceScheme::Https, 8443, "/signalr"));
        assert_eq!(full.to_string(), "https://a.example:8443/signalr");
        assert_eq!(full.with_port(1).authority(), "a.example:1");
        assert_eq!((url("http://[::1]:81").host(), url("http://[::1]").port()), ("[::1]", 80));
    }

    #[test]
    fn invalid_service_urls_are_refused() {
        for (text, error) in [
            ("proxy:8080", ServiceUrlError::Scheme),
            ("ws://proxy", ServiceUrlError::Scheme),
            ("http://", ServiceUrlError::Host),
            ("http://a b", ServiceUrlError::Host),
            ("http://[::1", ServiceUrlError::Host),
            ("http://[x]", ServiceUrlError::Host),
            ("http://proxy:", ServiceUrlError::Port),
            ("http://proxy:0", ServiceUrlError::Port),
            ("http://proxy:+80", ServiceUrlError::Port),
            ("http://proxy:65536", ServiceUrlError::Port),
            ("http://ann@proxy", ServiceUrlError::Rest),
            ("http://proxy/?hub=x", ServiceUrlError::Rest),
            ("http://proxy?hub=x", ServiceUrlError::Rest),
        ] {
            assert_eq!(text.parse::<ServiceUrl>(), Err(error), "{text}");
        }
    }
}
