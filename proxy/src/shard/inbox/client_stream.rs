//! Stream of a client's bytes, before its connection is open.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::transport::http_transport::InnerHalf;

/// Stream of a client's bytes.
#[derive(Debug)]
pub(crate) enum ClientStream {
    /// A WebSocket; the upgrade is on its way.
    Upgrade(OnUpgrade),
    /// A WebSocket that this node's listener has answered itself; its socket is on its way.
    Direct(oneshot::Receiver<UpgradedSocket>),
    /// Requests carry them, to and from the other end of this pipe.
    Pipe(InnerHalf),
    /// An event stream of plain HTTP/1.1: requests carry what its client sends, and the socket below its answer is on
    /// its way.
    EventStream(Box<(InnerHalf, oneshot::Receiver<TcpStream>)>),
    /// A WebSocket without a network: a client in this process.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "replays have it, which apps do not"))]
    Memory(tokio::io::DuplexStream),
}

/// Socket below a WebSocket, and the bytes of it that were read already.
type UpgradedSocket = (TcpStream, Bytes);

/// Upgrade of a socket that is answered without an HTTP server, in the extensions of its request.
#[derive(Debug, Clone)]
pub(crate) struct DirectUpgrade(Arc<Mutex<Option<oneshot::Receiver<UpgradedSocket>>>>);

/// Other end of a [`DirectUpgrade`]: it gives the socket, once the answer is sent.
#[derive(Debug)]
pub(crate) struct DirectUpgraded(oneshot::Sender<UpgradedSocket>);

impl DirectUpgrade {
    #[must_use]
    pub(crate) fn new() -> (Self, DirectUpgraded) {
        let (sender, receiver) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(receiver)))), DirectUpgraded(sender))
    }

    /// Takes the stream that the socket is going to be.
    #[must_use]
    pub(crate) fn take(&self) -> Option<ClientStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map(ClientStream::Direct)
    }
}

impl DirectUpgraded {
    /// Gives the socket, and the bytes behind the request that were read already. It fails where the client was refused
    /// meanwhile: then the socket closes.
    pub(crate) fn complete(self, stream: TcpStream, early: Bytes) {
        drop(self.0.send((stream, early)));
    }
}
