//! Byte stream of a client before its connection is open.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::engine::transport::http_transport::InnerHalf;

#[derive(Debug)]
pub(crate) enum ClientStream {
    /// WebSocket with an upgrade in progress.
    Upgrade(OnUpgrade),
    /// WebSocket answered by this node's listener; the socket follows.
    Direct(oneshot::Receiver<UpgradedSocket>),
    /// Pipe to HTTP requests that carry the bytes.
    Pipe(InnerHalf),
    /// Event stream over plain HTTP/1.1: requests carry upstream data; the response's socket follows.
    EventStream(Box<(InnerHalf, oneshot::Receiver<TcpStream>)>),
}

/// Socket of a WebSocket, with bytes already read.
type UpgradedSocket = (TcpStream, Bytes);

/// Upgrade of a socket that is answered without an HTTP server, stored in the request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct DirectUpgrade(Arc<Mutex<Option<oneshot::Receiver<UpgradedSocket>>>>);

/// Sending half of a [`DirectUpgrade`], used once the response is sent.
#[derive(Debug)]
pub(crate) struct DirectUpgraded(oneshot::Sender<UpgradedSocket>);

impl DirectUpgrade {
    pub(crate) fn new() -> (Self, DirectUpgraded) {
        let (sender, receiver) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(receiver)))), DirectUpgraded(sender))
    }

    /// Takes the stream of the future socket.
    #[must_use]
    pub(crate) fn take(&self) -> Option<ClientStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map(ClientStream::Direct)
    }
}

impl DirectUpgraded {
    /// Sends the socket, with bytes already read after the request. Closes the socket if the client was refused
    /// meanwhile.
    pub(crate) fn complete(self, stream: TcpStream, early: Bytes) {
        drop(self.0.send((stream, early)));
    }
}
