//! Where somebody answers over HTTP: an app server, or another node.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;
use http::uri::PathAndQuery;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::is_loopback_host;

const EXAMPLE: &str = "is no URL like http://127.0.0.1:5000 or https://app.example";

/// How bytes travel to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Security {
    Plain,
    Tls,
}

/// Host, port, and whether TLS is spoken there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    security: Security,
    authority: Arc<str>,
    at: Option<SocketAddr>,
}

impl Address {
    /// Whether TLS is spoken there.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.security == Security::Tls
    }

    /// The same by one of the addresses that its name resolves to. What is asked for there stays the name.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { at: Some(address), ..self.clone() }
    }

    /// The address to connect to, where it is settled.
    #[must_use]
    pub fn resolved(&self) -> Option<SocketAddr> {
        self.at
    }

    /// `host:port`, with brackets around an IPv6 address.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host alone, without brackets: what a certificate has to name.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The URI of something there. The address to connect to, where it is settled, stands before the name as a user name
    /// would, which goes nowhere: so a URI is all that a pool of connections has to know. It tells them apart by it.
    ///
    /// # Errors
    /// When the host is one that can't stand in a URI.
    pub fn uri(&self, target: PathAndQuery) -> Result<Uri, http::Error> {
        let at = self.at.map(|at| format!("{}@", utf8_percent_encode(&at.to_string(), NON_ALPHANUMERIC)));
        let authority = format!("{}{}", at.unwrap_or_default(), self.authority);
        Uri::builder().scheme(self.scheme()).authority(authority).path_and_query(target).build()
    }

    fn scheme(&self) -> &'static str {
        match self.security {
            Security::Plain => "http",
            Security::Tls => "https",
        }
    }

    /// Whether that is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(&self.authority)
    }
}

impl FromStr for Address {
    type Err = &'static str;

    /// Reads `http://host:port` or `https://host:port`; the error ends a sentence that begins with what was given.
    fn from_str(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_| EXAMPLE)?;
        if security_of(&uri).is_none() {
            return Err(EXAMPLE);
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("has a path: give only scheme, host and port");
        }
        if user_info(&uri).is_some() {
            return Err("has a user name: give only scheme, host and port");
        }
        Self::try_from(&uri)
    }
}

impl TryFrom<&Uri> for Address {
    type Error = &'static str;

    /// Whom a URI names, as [`Address::uri`] writes it; the error ends a sentence that begins with the URI.
    fn try_from(uri: &Uri) -> Result<Self, &'static str> {
        let (security, usual_port) = security_of(uri).ok_or(EXAMPLE)?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("has no host")?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(usual_port)).into();
        let at = user_info(uri).map(|at| {
            let at = percent_decode_str(at).decode_utf8().ok().and_then(|at| at.parse().ok());
            at.ok_or("has a user name that is no address")
        });
        Ok(Self { security, authority, at: at.transpose()? })
    }
}

/// The security that a URI's scheme tells, and the usual port.
fn security_of(uri: &Uri) -> Option<(Security, u16)> {
    match uri.scheme_str()? {
        "http" => Some((Security::Plain, 80)),
        "https" => Some((Security::Tls, 443)),
        _ => None,
    }
}

fn user_info(uri: &Uri) -> Option<&str> {
    Some(uri.authority()?.as_str().rsplit_once('@')?.0)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority)?;
        self.at.map_or(Ok(()), |at| write!(f, " ({at})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_host_port_and_security() {
        for (url, shown, host) in [
            ("http://app:5000", "http://app:5000", "app"),
            ("http://app/", "http://app:80", "app"),
            ("https://app.example", "https://app.example:443", "app.example"),
            ("https://[2001:db8::1]:5000", "https://[2001:db8::1]:5000", "2001:db8::1"),
            ("http://[::1]", "http://[::1]:80", "::1"),
        ] {
            let address: Address = url.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.host()), (shown, host));
            assert_eq!(address.is_tls(), url.starts_with("https"));
            let at = address.at(([10, 0, 0, 1], 5000).into());
            assert_eq!((at.authority(), at.to_string()), (address.authority(), format!("{shown} (10.0.0.1:5000)")));
        }
    }

    #[test]
    fn a_uri_holds_all_of_an_address_and_shows_only_the_name() {
        for (url, host) in [("http://app", "app"), ("https://[2001:db8::1]:5000", "[2001:db8::1]")] {
            let name: Address = url.parse().unwrap();
            for at in ["10.0.0.1:5000", "[2001:db8::2]:80", "[fe80::1%2]:443"] {
                let address = name.at(at.parse().unwrap());
                let uri = address.uri(PathAndQuery::from_static("/path?query")).unwrap();
                assert_eq!(Address::try_from(&uri).unwrap(), address);
                assert_eq!((uri.host(), uri.path(), uri.query()), (Some(host), "/path", Some("query")));
            }
            assert_eq!(Address::try_from(&name.uri(PathAndQuery::from_static("/")).unwrap()).unwrap(), name);
        }
        assert!(Address::try_from(&Uri::from_static("http://me@app/")).unwrap_err().starts_with("has a user name"));
    }

    #[test]
    fn what_is_no_such_url_is_refused_with_the_reason() {
        for (url, reason) in [
            ("ftp://x", "is no URL"),
            ("app:5000", "is no URL"),
            ("http://::1:5000", "is no URL"),
            ("http://x/path", "has a path"),
            ("http://x?q", "has a path"),
            ("http://me@x", "has a user name"),
        ] {
            let problem = url.parse::<Address>().unwrap_err();
            assert!(problem.starts_with(reason), "{url}: {problem}");
        }
    }
}
