//! Protection of server connections in transit: TLS with the system's root certificates (feature `tls`), an encrypted
//! channel, or none on the same machine.

use std::net::IpAddr;

use tokio::net::{TcpStream, lookup_host};
use trunkline_channel::{Dialled, OpenChannelError, dial_staggered, open_channel};
use trunkline_protocol::dial_in::{ServiceScheme, ServiceUrl};
use trunkline_protocol::key::{AccessKey, AccessKeys, PeerKind};

use super::dial_error::{DialError, TlsError};
use crate::link::DialledStream;

/// Environment variable that allows plain HTTP to other machines.
const PLAIN_HTTP_VARIABLE: &str = "TRUNKLINE_DIAL_PLAIN_HTTP";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlainHttp {
    /// Only addresses of this machine.
    OnThisMachine,
    /// Any destination, because the app or its operator vouches for the network.
    Anywhere,
}

pub(super) enum Protection {
    /// None: the service is on this machine, or the network is trusted.
    Plain,
    Tls(Encryption),
    /// A channel that only a node with this key can open.
    Channel(AccessKeys),
}

impl PlainHttp {
    /// Extends what the app allows with what the environment allows.
    pub(crate) fn or_by_environment(self) -> Self {
        let allowed = std::env::var(PLAIN_HTTP_VARIABLE).is_ok_and(|value| matches!(value.trim(), "1" | "true"));
        if allowed { Self::Anywhere } else { self }
    }
}

impl Protection {
    /// Selects the protection for a service URL, and loads what TLS needs.
    pub(super) fn new(url: &ServiceUrl, key: &AccessKey, plain_http: PlainHttp) -> Result<Self, TlsError> {
        let is_near = plain_http == PlainHttp::Anywhere || is_loopback(url.bare_host());
        match url.scheme() {
            ServiceScheme::Https => Ok(Self::Tls(Encryption::new(url.bare_host())?)),
            ServiceScheme::Http if is_near => Ok(Self::Plain),
            ServiceScheme::Http => {
                let keys = AccessKeys::new(vec![key.clone()]).map_err(TlsError::Key)?;
                Ok(Self::Channel(keys))
            }
        }
    }

    /// Connects to the service. Nothing is sent before the service has authenticated as this protection requires.
    pub(super) async fn connect(&self, url: &ServiceUrl) -> Result<Box<dyn DialledStream>, DialError> {
        let dial = async || {
            let addresses = lookup_host((url.bare_host(), url.port())).await?;
            let (tcp, _) = dial_staggered(addresses, TcpStream::connect).await?;
            // TCP_NODELAY: small messages must not wait for full packets.
            let _ = tcp.set_nodelay(true);
            Ok(tcp)
        };
        let unreachable = |source| DialError::Unreachable { authority: url.authority(), source };
        match self {
            Self::Plain => Ok(Box::new(dial().await.map_err(unreachable)?)),
            Self::Tls(encryption) => encryption.encrypt(dial().await.map_err(unreachable)?).await,
            Self::Channel(keys) => {
                let authority = url.authority();
                match open_channel(dial, Dialled { peer_kind: PeerKind::DialIn, name: &authority }, keys).await {
                    Ok(stream) => Ok(Box::new(stream)),
                    Err(OpenChannelError::Connect(source)) => Err(unreachable(source)),
                    Err(error) => Err(DialError::NoChannel { authority, problem: error.to_string() }),
                }
            }
        }
    }
}

/// Whether a host is always this machine, independent of name resolution.
fn is_loopback(host: &str) -> bool {
    let is_name = host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost");
    is_name || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(feature = "tls")]
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, pki_types::ServerName},
};

/// Encrypts the server connections of one service. Cannot be created without the feature.
pub(super) struct Encryption {
    #[cfg(feature = "tls")]
    connector: TlsConnector,
    #[cfg(feature = "tls")]
    host: ServerName<'static>,
    #[cfg(not(feature = "tls"))]
    never: std::convert::Infallible,
}

#[cfg(feature = "tls")]
impl Encryption {
    pub(super) fn new(host: &str) -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let problems: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
            return Err(TlsError::NoRoots(problems.join("; ")));
        }
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let host = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Host)?;
        Ok(Self { connector: TlsConnector::from(std::sync::Arc::new(config)), host })
    }

    pub(super) async fn encrypt(&self, tcp: TcpStream) -> Result<Box<dyn DialledStream>, DialError> {
        let stream = self.connector.connect(self.host.clone(), tcp).await.map_err(DialError::Encryption)?;
        Ok(Box::new(stream))
    }
}

#[cfg(not(feature = "tls"))]
impl Encryption {
    pub(super) fn new(_host: &str) -> Result<Self, TlsError> {
        Err(TlsError::NoFeature)
    }

    #[expect(clippy::unused_async, reason = "with the feature it waits")]
    pub(super) async fn encrypt(&self, _tcp: TcpStream) -> Result<Box<dyn DialledStream>, DialError> {
        match self.never {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn protection(url: &str, plain_http: PlainHttp) -> &'static str {
        let key = AccessKey::new("0123456789abcdef").unwrap();
        match Protection::new(&url.parse().unwrap(), &key, plain_http).unwrap() {
            Protection::Plain => "plain",
            Protection::Tls(_) => "tls",
            Protection::Channel(_) => "channel",
        }
    }

    #[test]
    fn plain_http_leaves_this_machine_only_where_the_app_allows_it() {
        for near in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost", "http://app.localhost:1"] {
            assert_eq!(protection(near, PlainHttp::OnThisMachine), "plain", "{near}");
        }
        for far in ["http://proxy.example", "http://10.0.0.1:8080", "http://localhost.example", "http://[2001:db8::1]"]
        {
            assert_eq!(protection(far, PlainHttp::OnThisMachine), "channel", "{far}");
            assert_eq!(protection(far, PlainHttp::Anywhere), "plain", "{far}");
        }
    }

    #[tokio::test]
    async fn an_impostor_gets_a_hello_and_no_token() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: ServiceUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let impostor = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut said = Vec::new();
            while !said.ends_with(b"\r\n\r\n") {
                assert!(socket.read_buf(&mut said).await.unwrap() > 0, "a whole head");
            }
            let hello = "A".repeat(64);
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-trunkline-hello: {hello}\r\n\r\n"
            );
            socket.write_all(answer.as_bytes()).await.unwrap();
            socket.read_to_end(&mut said).await.unwrap();
            String::from_utf8(said).unwrap()
        });
        let keys = AccessKeys::new(vec![AccessKey::new("0123456789abcdef").unwrap()]).unwrap();
        let Err(problem) = Protection::Channel(keys).connect(&url).await else { panic!("a link to an impostor") };
        let said = impostor.await.unwrap();
        assert!(
            said.starts_with("GET /.trunkline/channel HTTP/1.1\r\n") && said.contains("x-trunkline-hello: "),
            "{said}"
        );
        assert!(!said.contains("authorization") && !said.contains("/server/"), "{said}");
        let text = problem.to_string();
        assert!(text.contains("https://") && text.contains("TRUNKLINE_DIAL_PLAIN_HTTP"), "{text}");
    }
}
