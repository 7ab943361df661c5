//! Sockets that a supervisor holds open for the node and hands over when it starts.
//!
//! A socket stands in for the flag whose address it has. So everything that goes by the flags, such as who may come
//! without a key, stays true; and a socket that nobody named is an error instead of a door that nobody watches.

use std::net::{SocketAddr, TcpListener};

use super::StartError;

/// Listening sockets that wait to be taken.
#[derive(Debug, Default)]
pub struct Handed(Vec<(SocketAddr, TcpListener)>);

impl Handed {
    /// Takes sockets over.
    ///
    /// # Errors
    /// When one has no address.
    pub fn new(listeners: impl IntoIterator<Item = TcpListener>) -> std::io::Result<Self> {
        let with_address = |listener: TcpListener| {
            // Who hands a socket over may have made it either way.
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        listeners.into_iter().map(with_address).collect::<std::io::Result<_>>().map(Self)
    }

    /// All sockets at this address, of which there may be several.
    pub(super) fn take(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        let is_there = |entry: &mut (SocketAddr, TcpListener)| entry.0 == address;
        self.0.extract_if(.., is_there).map(|(_, listener)| listener).collect()
    }

    /// All have been taken.
    ///
    /// # Errors
    /// When one is left.
    pub(super) fn none_is_left(&self) -> Result<(), StartError> {
        self.0.first().map_or(Ok(()), |(address, _)| Err(StartError::Stray(*address)))
    }
}
