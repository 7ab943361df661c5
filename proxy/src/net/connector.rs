//! Connect to app servers, other nodes and issuers of keys, plainly or with TLS: for links, manifests, key sets, and
//! requests that go on.

mod http_client;
mod wire;

use std::io;
#[cfg(feature = "tls")]
use std::path::Path;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "tls")]
use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use http::Uri;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
#[cfg(feature = "tls")]
use {rustls::ClientConfig, rustls::pki_types::ServerName, tokio_rustls::TlsConnector};

use crate::auth::{self, Dial};
use crate::config::Address;
#[cfg(feature = "tls")]
use crate::config::ClientTls;
#[cfg(feature = "tls")]
use crate::net::tls::{TlsError, client_config};

pub(crate) use http_client::{ExchangeError, HttpClient};
pub(crate) use wire::Wire;

/// A host that went away without a word is noticed after some of these, also in the middle of a silent answer.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Opens connections. Its copies are one and the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connector {
    #[cfg(feature = "tls")]
    tls: Arc<Tls>,
}

#[cfg(feature = "tls")]
#[derive(Debug, Default)]
struct Tls {
    settings: ClientTls,
    /// None while nobody is known who speaks TLS: then nothing was read either.
    config: ArcSwapOption<ClientConfig>,
}

#[cfg(feature = "tls")]
impl Connector {
    /// A connector that speaks TLS, too.
    ///
    /// # Errors
    /// When a file is missing or of no use.
    pub(crate) fn with_tls(settings: ClientTls) -> Result<Self, TlsError> {
        let config = ArcSwapOption::from_pointee(client_config(&settings)?);
        Ok(Self { tls: Arc::new(Tls { settings, config }) })
    }

    /// Reads all files anew, for the connections to come.
    ///
    /// # Errors
    /// When a file is missing or of no use; all stays as it was.
    pub(crate) fn read_again(&self) -> Result<(), TlsError> {
        if self.tls.config.load().is_some() {
            self.tls.config.store(Some(Arc::new(client_config(&self.tls.settings)?)));
        }
        Ok(())
    }

    /// The files that it goes by.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let ClientTls { roots, identity } = &self.tls.settings;
        let own = identity.iter().flat_map(|files| [files.certificate.as_path(), &files.key]);
        roots.iter().map(|path| path.as_path()).chain(own)
    }

    async fn secure(&self, stream: TcpStream, address: &Address) -> io::Result<Wire> {
        let config = self.tls.config.load_full().ok_or_else(without_tls)?;
        let name = ServerName::try_from(address.host().to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Wire::Tls(Box::new(TlsConnector::from(config).connect(name, stream).await?)))
    }
}

#[cfg(not(feature = "tls"))]
impl Connector {
    #[expect(clippy::unused_async, reason = "as the one with TLS")]
    async fn secure(&self, _stream: TcpStream, _address: &Address) -> io::Result<Wire> {
        Err(without_tls())
    }
}

impl Connector {
    /// Connects.
    ///
    /// # Errors
    /// When nobody answers there, or not as who it should be.
    pub(crate) async fn connect(&self, address: &Address) -> io::Result<Wire> {
        let stream = match address.resolved() {
            Some(address) => TcpStream::connect(address).await?,
            None => TcpStream::connect(address.authority()).await?,
        };
        stream.set_nodelay(true)?;
        SockRef::from(&stream)
            .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE))?;
        if address.is_tls() { self.secure(stream, address).await } else { Ok(Wire::Plain(stream)) }
    }

    /// Connects to whom a URI names, see [`Address::uri`].
    fn connect_to(&self, uri: Uri) -> impl Future<Output = io::Result<Wire>> + Send + use<> {
        let connector = self.clone();
        async move {
            let unfit = |problem: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{uri} {problem}"));
            let address = Address::try_from(&uri).map_err(unfit)?;
            connector.connect(&address).await
        }
    }
}

/// What lies below an error that only says where it came up: a refused certificate shows itself so.
#[must_use]
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().map(ToString::to_string).unwrap_or_default()
}

fn without_tls() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this node was not set up for TLS: give it --upstream-ca")
}

impl Dial for Connector {
    fn dial(&self, url: &Uri) -> BoxFuture<'static, io::Result<Box<dyn auth::Wire>>> {
        self.connect_to(url.clone()).map_ok(|wire| Box::new(wire) as Box<dyn auth::Wire>).boxed()
    }
}
