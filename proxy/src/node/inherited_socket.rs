//! Inherited sockets: listening sockets opened by a supervisor before it started the node (socket activation).
//!
//! A socket is matched with the flag that has its address. So rules about flags, such as the need for a key, still
//! apply, and a socket without a flag is an error, not an unnoticed open port.

use std::net::{SocketAddr, TcpListener};

use super::start_error::StartError;

/// Inherited sockets not yet taken by a listener.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<(SocketAddr, TcpListener)>);

impl InheritedSockets {
    /// Takes over listening sockets.
    ///
    /// # Errors
    /// If a socket has no address.
    pub fn new(listeners: impl IntoIterator<Item = TcpListener>) -> std::io::Result<Self> {
        let with_address = |listener: TcpListener| {
            // The supervisor may have made it blocking.
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        listeners.into_iter().map(with_address).collect::<std::io::Result<_>>().map(Self)
    }

    /// Takes all sockets at this address; there may be several.
    pub(super) fn take(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        self.0.extract_if(.., |entry| entry.0 == address).map(|(_, listener)| listener).collect()
    }

    /// Fails if a socket is left that matches no flag.
    pub(super) fn ensure_all_taken(&self) -> Result<(), StartError> {
        self.0.first().map_or(Ok(()), |(address, _)| Err(StartError::Stray(*address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_taken_by_its_address_and_a_stray_one_is_an_error() {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [first, second] = [&listeners[0], &listeners[1]].map(|listener| listener.local_addr().unwrap());
        let mut sockets = InheritedSockets::new(listeners).unwrap();
        assert_eq!(sockets.take(first).len(), 1);
        assert!(sockets.take(first).is_empty());
        assert!(sockets.ensure_all_taken().unwrap_err().to_string().contains(&second.to_string()));
        assert_eq!(sockets.take(second).len(), 1);
        assert!(sockets.ensure_all_taken().is_ok());
    }
}
