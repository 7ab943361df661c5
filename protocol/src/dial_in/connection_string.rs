//! Connection string of a dialling app server, as in Azure SignalR:
//! `Endpoint=https://proxy;Port=8443;AccessKey=…;Version=1.0;`.

use std::fmt;
use std::str::FromStr;

use super::service_url::{ServiceUrl, ServiceUrlError, parse_port};
use crate::key::{AccessKey, AccessKeyError};

const ENDPOINT: &str = "Endpoint";
const PORT: &str = "Port";
const ACCESS_KEY: &str = "AccessKey";
const VERSION: &str = "Version";
const CLIENT_ENDPOINT: &str = "ClientEndpoint";
const SERVER_ENDPOINT: &str = "ServerEndpoint";

/// Keys allowed in a connection string. Error texts list them, so the list stays short.
const KEYS: [&str; 6] = [ENDPOINT, PORT, ACCESS_KEY, VERSION, CLIENT_ENDPOINT, SERVER_ENDPOINT];

/// Keys for Entra ID, supported only by Azure's service.
const LOGIN_KEYS: [&str; 5] = ["AuthType", "ClientId", "ClientSecret", "ClientCert", "TenantId"];

/// Connection string of a service: its address and the key shared with the app server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionString {
    endpoint: ServiceUrl,
    server_endpoint: Option<ServiceUrl>,
    client_endpoint: Option<ServiceUrl>,
    access_key: AccessKey,
}

/// Error in a connection string: key, problem and allowed values. Never contains the access key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionStringError {
    /// A part is not a `key=value` pair.
    #[error(
        "part {0} of the connection string is not `key=value`: the format is \
         `Endpoint=https://HOST;Port=PORT;AccessKey=KEY;Version=1.0;`"
    )]
    NoPair(usize),
    /// Unknown key in the string.
    #[error("'{0}' is not a key of a connection string (allowed: {keys})", keys = KEYS.join(", "))]
    UnknownKey(String),
    /// Key that occurs twice.
    #[error("'{0}' occurs twice in the connection string: remove one")]
    Duplicate(&'static str),
    /// A required key is missing.
    #[error(
        "'{0}' is missing in the connection string: the format is \
         `Endpoint=https://HOST;Port=PORT;AccessKey=KEY;Version=1.0;`"
    )]
    Missing(&'static str),
    /// Key for Entra ID, which only Azure's service supports.
    #[error("'{0}' is for Entra ID, which is not supported: use the AccessKey of the service")]
    Login(&'static str),
    /// Invalid URL of a service.
    #[error("'{key}' of the connection string is '{value}', not a URL such as https://proxy.example: {problem}")]
    Url {
        /// Key of the URL.
        key: &'static str,
        /// The value as given.
        value: String,
        /// Problem with the value.
        problem: ServiceUrlError,
    },
    /// Invalid port number given.
    #[error("'Port' of the connection string is '{0}': a number from 1 to 65535 is allowed")]
    Port(String),
    /// Version that is not supported.
    #[error("'Version' of the connection string is '{0}': 1.0 is allowed, and any 1.x")]
    Version(String),
    /// Invalid access key given.
    #[error("'AccessKey' of the connection string can't be used: {0}")]
    AccessKey(AccessKeyError),
}

impl ConnectionString {
    /// URL of the service that tokens name.
    #[must_use]
    pub fn endpoint(&self) -> &ServiceUrl {
        &self.endpoint
    }

    /// URL that the app server dials.
    #[must_use]
    pub fn server_endpoint(&self) -> &ServiceUrl {
        self.server_endpoint.as_ref().unwrap_or(&self.endpoint)
    }

    /// URL to which clients are redirected.
    #[must_use]
    pub fn client_endpoint(&self) -> &ServiceUrl {
        self.client_endpoint.as_ref().unwrap_or(&self.endpoint)
    }

    /// Key that signs tokens.
    #[must_use]
    pub fn access_key(&self) -> &AccessKey {
        &self.access_key
    }
}

impl FromStr for ConnectionString {
    type Err = ConnectionStringError;

    fn from_str(text: &str) -> Result<Self, ConnectionStringError> {
        let mut values: [Option<&str>; KEYS.len()] = [None; KEYS.len()];
        for (at, part) in text.split(';').enumerate().filter(|(_, part)| !part.trim().is_empty()) {
            let (key, value) = part.split_once('=').ok_or(ConnectionStringError::NoPair(at + 1))?;
            let (name, place) = place_of(key.trim(), &mut values)?;
            if place.replace(value.trim()).is_some() {
                return Err(ConnectionStringError::Duplicate(name));
            }
        }
        let [endpoint, port, access_key, version, client_endpoint, server_endpoint] = values;
        let mut endpoint = url(ENDPOINT, endpoint.ok_or(ConnectionStringError::Missing(ENDPOINT))?)?;
        if let Some(port) = port {
            let number = parse_port(port).ok_or_else(|| ConnectionStringError::Port(port.to_owned()))?;
            endpoint = endpoint.with_port(number);
        }
        if let Some(version) = version.filter(|version| !is_known_version(version)) {
            return Err(ConnectionStringError::Version(version.to_owned()));
        }
        let access_key = access_key.ok_or(ConnectionStringError::Missing(ACCESS_KEY))?;
        Ok(Self {
            endpoint,
            server_endpoint: server_endpoint.map(|value| url(SERVER_ENDPOINT, value)).transpose()?,
            client_endpoint: client_endpoint.map(|value| url(CLIENT_ENDPOINT, value)).transpose()?,
            access_key: AccessKey::new(access_key).map_err(ConnectionStringError::AccessKey)?,
        })
    }
}

impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ENDPOINT}={}", self.endpoint)?;
        for (key, url) in [(SERVER_ENDPOINT, &self.server_endpoint), (CLIENT_ENDPOINT, &self.client_endpoint)] {
            if let Some(url) = url {
                write!(f, ";{key}={url}")?;
            }
        }
        Ok(())
    }
}

/// Finds the slot for a key's value. Keys are case-insensitive.
fn place_of<'a, 'b>(
    key: &str,
    values: &'a mut [Option<&'b str>; KEYS.len()],
) -> Result<(&'static str, &'a mut Option<&'b str>), ConnectionStringError> {
    if let Some(login) = LOGIN_KEYS.into_iter().find(|known| known.eq_ignore_ascii_case(key)) {
        return Err(ConnectionStringError::Login(login));
    }
    let found = KEYS.into_iter().zip(values).find(|(known, _)| known.eq_ignore_ascii_case(key));
    found.ok_or_else(|| ConnectionStringError::UnknownKey(key.to_owned()))
}

fn url(key: &'static str, value: &str) -> Result<ServiceUrl, ConnectionStringError> {
    value.parse().map_err(|problem| ConnectionStringError::Url { key, value: value.to_owned(), problem })
}

/// Whether the version is 1.x, the only supported one.
fn is_known_version(version: &str) -> bool {
    let minor = version.strip_prefix("1.");
    minor.is_some_and(|minor| !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefgh";

    fn parse(text: &str) -> Result<ConnectionString, ConnectionStringError> {
        text.replace("KEY", KEY).parse()
    }

    #[test]
    fn a_connection_string_names_service_and_key() {
        let parsed = parse("Endpoint=http://proxy/;Port=8080;AccessKey=KEY;Version=1.0;").unwrap();
        assert_eq!(parsed.endpoint().to_string(), "http://proxy:8080");
        assert_eq!(parsed.server_endpoint(), parsed.client_endpoint());
        assert_eq!(parsed.access_key().expose(), KEY);
        assert!(!format!("{parsed} {parsed:?}").contains(KEY), "the key is a secret");
    }

    #[test]
    fn clients_and_app_servers_may_have_urls_of_their_own() {
        let text =
            " endpoint = https://a.example ;accesskey=KEY;ClientEndpoint=https://cdn.example/x;ServerEndpoint=http://b";
        let parsed = parse(text).unwrap();
        assert_eq!(parsed.client_endpoint().to_string(), "https://cdn.example/x");
        assert_eq!(parsed.server_endpoint().to_string(), "http://b");
        assert_eq!(parsed.endpoint().audience_base(), "https://a.example");
    }

    #[test]
    fn a_key_with_equals_signs_is_taken_whole() {
        let parsed: ConnectionString = "Endpoint=http://p;AccessKey=0123456789abcdef==".parse().unwrap();
        assert_eq!(parsed.access_key().expose(), "0123456789abcdef==");
    }

    #[test]
    fn each_mistake_is_reported_with_the_allowed_values() {
        for (text, words) in [
            ("", "'Endpoint' is missing"),
            ("Endpoint=http://p", "'AccessKey' is missing"),
            ("Endpoint=http://p;KEY", "part 2"),
            ("Endpoint=http://p;Endpoint=http://q;AccessKey=KEY", "'Endpoint' occurs twice"),
            (
                "Endpoint=http://p;Acceskey=KEY",
                "'Acceskey' is not a key of a connection string (allowed: Endpoint, \
                                                Port",
            ),
            ("Endpoint=http://p;AuthType=azure", "'AuthType' is for Entra ID"),
            ("Endpoint=p:80;AccessKey=KEY", "'Endpoint' of the connection string is 'p:80'"),
            ("Endpoint=http://p;ClientEndpoint=x;AccessKey=KEY", "'ClientEndpoint' of the connection string is 'x'"),
            ("Endpoint=http://p;Port=99999;AccessKey=KEY", "'99999': a number from 1 to 65535"),
            ("Endpoint=http://p;Version=2.0;AccessKey=KEY", "'2.0': 1.0 is allowed"),
            ("Endpoint=http://p;Version=1;AccessKey=KEY", "'1': 1.0 is allowed"),
            ("Endpoint=http://p;AccessKey=short", "access key has 5 bytes, but needs at least 16"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains(KEY), "{text}: {error}");
        }
    }
}
