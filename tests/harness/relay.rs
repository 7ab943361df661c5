//! TCP relay between a proxy and an app server that can cut, hold and refuse connections, like a bad network.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// First bytes of a channel request. From outside, channels of links and manifests look alike, but those for manifests
/// end immediately.
const CHANNEL_REQUEST: &[u8] = b"GET /.trunkline/channel";

/// Number of bytes forwarded at a time.
const PIECE_BYTES: usize = 16 * 1024;

/// Treatment of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Bytes pass through unchanged.
    Passes,
    /// The connection ends immediately.
    Cut,
    /// The connection ends halfway through the next chunk, usually within a frame.
    CutInPiece,
    /// The connection ends at the server without the client noticing: further bytes from the client are lost.
    CutAtServer,
    /// The connection stays open, but no bytes pass.
    Held,
}

/// Running relay. Its tasks end with the runtime.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<watch::Sender<Fate>>>>,
    is_open: watch::Sender<bool>,
    /// Number of further links to refuse.
    refused: Arc<AtomicUsize>,
}

impl Relay {
    /// Starts a relay for a server at `host:port`.
    pub async fn start(server: &str) -> Result<Self> {
        Self::start_for(CHANNEL_REQUEST, server).await
    }

    /// Starts a relay that treats connections with this request prefix as links.
    pub async fn start_for(request: &'static [u8], server: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (is_open, lets_in) = watch::channel(true);
        let relay = Self { address, connections: Arc::default(), is_open, refused: Arc::default() };
        let (server, connections) = (server.to_owned(), Arc::clone(&relay.connections));
        let refused = Arc::clone(&relay.refused);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *lets_in.borrow() {
                    let kind = LinkKind { request, refused: Arc::clone(&refused) };
                    tokio::spawn(relay_one(kind, client, server.clone(), Arc::clone(&connections)));
                }
            }
        });
        Ok(relay)
    }

    /// Address to connect to, as `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Accepts new connections, or ends them immediately.
    pub fn let_in(&self, is_open: bool) {
        self.is_open.send_replace(is_open);
    }

    /// Number of open links.
    #[must_use]
    pub fn links(&self) -> usize {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.iter().filter(|connection| !connection.is_closed()).count()
    }

    /// Ends this many of the next links immediately.
    pub fn refuse(&self, count: usize) {
        self.refused.store(count, Ordering::Relaxed);
    }

    /// Sets the treatment of the first `count` open links.
    pub fn decide(&self, fate: Fate, count: usize) {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let passing = connections.iter().filter(|connection| !connection.is_closed());
        for connection in passing.filter(|connection| *connection.borrow() == Fate::Passes).take(count) {
            connection.send_replace(fate);
        }
    }
}

/// Request prefix of links, and the number to refuse.
struct LinkKind {
    request: &'static [u8],
    refused: Arc<AtomicUsize>,
}

async fn relay_one(
    kind: LinkKind,
    mut client: TcpStream,
    server: String,
    connections: Arc<Mutex<Vec<watch::Sender<Fate>>>>,
) -> Result<()> {
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut head = vec![0; PIECE_BYTES];
    let length = client.read(&mut head).await?;
    let head = head.get(..length).unwrap_or_default();
    let (sender, fate) = watch::channel(Fate::Passes);
    // Connections for forwarded client requests are exempt from cuts.
    let mut other = None;
    if head.starts_with(kind.request) {
        let one_less = |count: usize| count.checked_sub(1);
        if kind.refused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            return Ok(());
        }
        let mut all = connections.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|connection| !connection.is_closed());
        all.push(sender);
    } else {
        other = Some(sender);
    }
    server.write_all(head).await?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    // If one direction ends, both end, because the halves are dropped together.
    tokio::select! {
        () = pass(&mut from_client, &mut to_server, fate.clone()) => {}
        () = pass(&mut from_server, &mut to_client, fate.clone()) => {}
    }
    drop((from_server, to_server));
    if *fate.borrow() == Fate::CutAtServer {
        tokio::io::copy(&mut from_client, &mut tokio::io::sink()).await?;
    }
    drop(other);
    Ok(())
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut fate: watch::Receiver<Fate>) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let now = *fate.borrow_and_update();
        if matches!(now, Fate::Cut | Fate::CutAtServer) {
            return;
        }
        let length = tokio::select! {
            biased;
            changed = fate.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            read = from.read(&mut piece), if now != Fate::Held => match read {
                Ok(length @ 1..) => length,
                Ok(0) | Err(_) => return,
            },
        };
        let length = if now == Fate::CutInPiece { length / 2 } else { length };
        let whole = piece.get(..length).unwrap_or_default();
        if to.write_all(whole).await.is_err() || now == Fate::CutInPiece {
            return;
        }
    }
}
