//! Connections to app servers, other nodes and key issuers: plain or TLS, with a channel on top if the peer must prove
//! membership in the fleet.

#[cfg(test)]
mod memory_network;

use std::fmt::Debug;
use std::io;
#[cfg(feature = "tls")]
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[cfg(feature = "tls")]
use arc_swap::ArcSwapOption;
#[cfg(feature = "tls")]
use rustls::pki_types::ServerName;
#[cfg(feature = "tls")]
use rustls::{ClientConfig, InvalidMessage};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
#[cfg(feature = "tls")]
use tokio_rustls::TlsConnector;
use trunkline_channel::{Dialled, OpenChannelError, dial_staggered};
use trunkline_protocol::key::{AccessKeys, PeerKind};

use super::address::Address;
use super::descriptor::DescriptorLimit;
use super::node_name::NodeNames;
use super::node_port::DialByBroker;
#[cfg(feature = "tls")]
use super::tls::{ClientTls, PresentedChain, TlsError, client_config, refusal_words};

#[cfg(test)]
pub(crate) use memory_network::MemoryNetwork;

/// Interval of TCP keep-alives. A vanished host is detected after a few of these, even while a response is awaited.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Opens connections; clones share the TLS files.
#[derive(Debug, Clone, Default)]
pub struct Connector {
    #[cfg(feature = "tls")]
    tls: Arc<ConnectorTls>,
    /// In-memory servers, used instead of the network.
    #[cfg(test)]
    memory: Option<MemoryNetwork>,
    /// Limit of file descriptors; `None` for connections of the node itself.
    descriptors: Option<DescriptorLimit>,
    channel: Option<Arc<FleetChannel>>,
    /// Way to nodes behind a broker, if this node has one.
    broker: Option<Arc<dyn DialByBroker>>,
    /// Names of nodes; `None` uses the system's resolver.
    names: Option<Arc<NodeNames>>,
}

/// Keys for channels, and the kind of peer that must hold one of them.
#[derive(Debug)]
struct FleetChannel {
    keys: AccessKeys,
    peer_kind: PeerKind,
}

#[cfg(feature = "tls")]
#[derive(Debug, Default)]
struct ConnectorTls {
    settings: ClientTls,
    /// `None` while no TLS server is known; the files have then not been read.
    config: ArcSwapOption<ClientConfig>,
}

#[cfg(feature = "tls")]
impl Connector {
    /// Reads the TLS files.
    ///
    /// # Errors
    /// If a file is missing or unusable.
    pub fn with_tls(settings: ClientTls) -> Result<Self, TlsError> {
        let config = ArcSwapOption::from_pointee(client_config(&settings)?);
        let tls = Arc::new(ConnectorTls { settings, config });
        Ok(Self { tls, ..Self::default() })
    }

    pub(crate) fn can_tls(&self) -> bool {
        self.tls.config.load().is_some()
    }

    /// Reloads all files, for new connections. Fails if a file is missing or unusable; the old ones stay in use.
    pub(crate) fn read_again(&self) -> Result<(), TlsError> {
        if self.tls.config.load().is_some() {
            self.tls.config.store(Some(Arc::new(client_config(&self.tls.settings)?)));
        }
        Ok(())
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let ClientTls { roots, identity } = &self.tls.settings;
        let own = identity.iter().flat_map(|files| [files.certificate.as_path(), &files.key]);
        roots.iter().map(|path| path.as_path()).chain(own)
    }

    /// Reads the chain of the client certificate, if any.
    pub(crate) fn presented_chain(&self) -> Option<PresentedChain> {
        self.tls.settings.presented_chain()
    }

    async fn secure(&self, stream: TcpStream, address: &Address) -> io::Result<OutgoingStream> {
        let config = self.tls.config.load_full().ok_or_else(without_tls)?;
        let name = ServerName::try_from(address.host().to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let secured = TlsConnector::from(config).connect(name, stream).await.map_err(in_words)?;
        Ok(Box::new(secured))
    }
}

/// Adds a remedy to the error if the peer answers a TLS handshake in plain text or has an unusable certificate.
#[cfg(feature = "tls")]
fn in_words(error: io::Error) -> io::Error {
    let words = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            Some("it speaks no TLS: write http:// in place of https://".to_owned())
        }
        Some(error) => refusal_words(error),
        None => None,
    };
    match words {
        Some(words) => io::Error::new(error.kind(), words),
        None => error,
    }
}

#[cfg(not(feature = "tls"))]
impl Connector {
    #[expect(clippy::unused_async, reason = "as the one with TLS")]
    async fn secure(&self, _stream: TcpStream, _address: &Address) -> io::Result<OutgoingStream> {
        Err(without_tls())
    }
}

#[cfg(test)]
impl Connector {
    pub(crate) fn in_memory(network: MemoryNetwork) -> Self {
        Self { memory: Some(network), ..Self::default() }
    }

    pub(crate) fn memory(&self) -> Option<&MemoryNetwork> {
        self.memory.as_ref()
    }
}

impl Connector {
    /// Connector to holders of one of the keys; each connection is a channel.
    pub(crate) fn through_channels(&self, keys: &AccessKeys, peer_kind: PeerKind) -> Self {
        Self { channel: Some(Arc::new(FleetChannel { keys: keys.clone(), peer_kind })), ..self.clone() }
    }

    /// Connector for connections caused by clients, which can't use the process's last file descriptors.
    pub(crate) fn for_clients(&self) -> Self {
        let mut connector = self.clone();
        connector.descriptors = Some(DescriptorLimit::for_clients());
        connector
    }

    /// Connector that can also reach nodes through a broker.
    pub(crate) fn by_broker(&self, broker: Arc<dyn DialByBroker>) -> Self {
        Self { broker: Some(broker), ..self.clone() }
    }

    /// Connector that can reach nodes whose DNS names are gone.
    pub(crate) fn by_names(&self, names: Arc<NodeNames>) -> Self {
        Self { names: Some(names), ..self.clone() }
    }

    /// Connects to an address. Fails if the connection fails, the certificate is invalid, or the peer lacks the
    /// required fleet key; the last is an inner [`OpenChannelError`].
    pub(crate) async fn connect(&self, address: &Address) -> io::Result<OutgoingStream> {
        let Some(channel) = &self.channel else { return self.connect_socket(address).await };
        let names = self.names.as_ref().filter(|_| address.resolved().is_none() && !address.is_one_server());
        let reached = Mutex::new(None);
        let dial = || async {
            let Some(names) = names else { return self.connect_socket(address).await };
            let at_one = |at| async move { self.connect_socket(&address.at(at)).await };
            let (stream, at) = names.dial(address, at_one).await?;
            *reached.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
            Ok(stream)
        };
        let dialled = Dialled { peer_kind: channel.peer_kind, name: address.authority() };
        let opened = trunkline_channel::open_channel(dial, dialled, &channel.keys).await;
        match (names, reached.into_inner().unwrap_or_else(PoisonError::into_inner), &opened) {
            (Some(names), Some(at), Ok(_)) => names.note_reached(address, at),
            (Some(names), Some(_), Err(_)) => names.forget(address),
            _ => {}
        }
        match opened {
            Ok(stream) => Ok(Box::new(stream)),
            Err(OpenChannelError::Connect(error)) => Err(error),
            Err(error) => Err(io::Error::new(io::ErrorKind::PermissionDenied, error)),
        }
    }

    /// Whether the kernel at an address accepts connections, regardless of the process.
    pub(crate) async fn reaches(&self, address: &Address) -> bool {
        if address.node().is_some() {
            return self.connect_socket(address).await.is_ok();
        }
        #[cfg(test)]
        if let Some(network) = &self.memory {
            return network.dial(address).await.is_ok();
        }
        connect_tcp(address).await.is_ok()
    }

    async fn connect_socket(&self, address: &Address) -> io::Result<OutgoingStream> {
        if let Some((boot, port)) = address.node() {
            let broker = self.broker.as_ref().ok_or_else(|| io::Error::other("this node has no --fleet-by nats"))?;
            return Ok(Box::new(broker.dial(boot, port).await?));
        }
        #[cfg(test)]
        if let Some(network) = &self.memory {
            return Ok(Box::new(network.dial(address).await?));
        }
        let stream = connect_tcp(address).await?;
        if self.descriptors.is_some_and(|descriptors| !descriptors.allows(&stream)) {
            return Err(io::Error::other("the last file descriptors are reserved: raise the limit of open files"));
        }
        stream.set_nodelay(true)?;
        SockRef::from(&stream)
            .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE))?;
        if address.is_tls() { self.secure(stream, address).await } else { Ok(Box::new(stream)) }
    }
}

async fn connect_tcp(address: &Address) -> io::Result<TcpStream> {
    let endpoints = match address.endpoints() {
        Some(endpoints) => endpoints,
        None => lookup_host(address.authority()).await?.collect(),
    };
    Ok(dial_staggered(endpoints, TcpStream::connect).await?.0)
}

/// Returns the innermost cause of an error, such as a rejected certificate, without its wrappers.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().map(ToString::to_string).unwrap_or_default()
}

fn without_tls() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this node was not set up for TLS: give it --upstream-ca")
}

/// Open connection to a server: plain, TLS, or a channel over either.
pub(crate) type OutgoingStream = Box<dyn DialledStream>;

pub(crate) trait DialledStream: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Debug + Send + Unpin> DialledStream for S {}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_far_end_without_tls_is_named_with_the_remedy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        let connector = Connector::with_tls(ClientTls::default()).unwrap();
        let error = connector.connect(&address).await.err().unwrap();
        assert_eq!(error.to_string(), "it speaks no TLS: write http:// in place of https://");
    }
}
