//! TLS listener for `axum::serve` that yields connections after their handshake.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

/// Timeout of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of concurrent handshakes. Further connections wait in the system's queue.
const HANDSHAKES_MAX: usize = 256;

/// Pause after a failed accept. An immediate retry would only burn CPU time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type HandshakeResult = io::Result<(TlsStream<TcpStream>, SocketAddr)>;

/// TLS listener that runs handshakes concurrently, so that a slow client does not delay others.
pub(crate) struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<HandshakeResult>,
}

impl TlsListener {
    /// Listens at `address` with the certificate and key from PEM files.
    pub(crate) async fn bind(address: &str, certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
        let chain = chain.with_context(|| format!("can't read --tls-cert {}", certificate.display()))?;
        let key =
            PrivateKeyDer::from_pem_file(key).with_context(|| format!("can't read --tls-key {}", key.display()))?;
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("can't listen on --tls-listen {address}"))?;
        Ok(Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), handshakes: JoinSet::new() })
    }

    fn start_handshake(&mut self, stream: TcpStream, peer: SocketAddr) {
        // TCP_NODELAY: small messages must not wait for full packets.
        let _ = stream.set_nodelay(true);
        let handshake = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream));
        self.handshakes.spawn(async move { Ok((handshake.await??, peer)) });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if self.handshakes.len() < HANDSHAKES_MAX => match accepted {
                    Ok((stream, peer)) => self.start_handshake(stream, peer),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(finished) = self.handshakes.join_next() => match finished {
                    Ok(Ok(connection)) => return connection,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    Err(error) => tracing::warn!(%error, "TLS handshake task failed"),
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
