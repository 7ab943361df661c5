//! All listeners of a node, plain and TLS for clients, and for the data plane: one of each per shard. Sockets
//! inherited from a supervisor are used first.

use std::net::{SocketAddr, TcpListener};
#[cfg(feature = "tls")]
use std::sync::Arc;

use super::shared_port;
use super::start_error::StartError;
use crate::edge::frontend::Layers;
#[cfg(feature = "tls")]
use crate::edge::frontend::TlsLayer;
use crate::ground::config::{Config, PortSharing};
#[cfg(feature = "tls")]
use crate::ground::net::tls::{Certificates, server_config};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenerPurpose {
    Clients,
    /// The REST data plane only.
    Rest,
}

/// Listener of one shard, with the layers below HTTP.
#[derive(Debug)]
pub(super) struct ShardListener {
    pub(super) listener: TcpListener,
    pub(super) layers: Layers,
    pub(super) purpose: ListenerPurpose,
}

#[derive(Debug)]
pub(super) struct ListenerSet {
    pub(super) of_shards: Vec<Vec<ShardListener>>,
    sharing: PortSharing,
    #[cfg(feature = "tls")]
    pub(super) certificates: Option<Arc<Certificates>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct BoundAddresses {
    pub(super) plain: SocketAddr,
    pub(super) tls: Option<SocketAddr>,
    /// Port of the data plane; `None` if it has none of its own.
    pub(super) rest: Option<SocketAddr>,
}

impl ListenerSet {
    /// Opens the configured listeners, using inherited sockets where available.
    pub(super) fn open(config: &Config, sockets: &mut InheritedSockets) -> Result<(Self, BoundAddresses), StartError> {
        let mut set = Self {
            of_shards: (0..config.shards).map(|_| Vec::new()).collect(),
            sharing: config.settings.port_sharing,
            #[cfg(feature = "tls")]
            certificates: None,
        };
        let layers = Layers::plain(config.settings.proxy_protocol.clone());
        let plain = set.add("--listen", config.listen, &(layers.clone(), ListenerPurpose::Clients), sockets)?;
        #[cfg(feature = "tls")]
        let tls = set.add_tls(config, layers, sockets)?;
        #[cfg(not(feature = "tls"))]
        let tls = None;
        let rest = match config.settings.rest.listen.filter(|address| *address != config.admin) {
            Some(address) => {
                let layers = (Layers::plain(None), ListenerPurpose::Rest);
                Some(set.add("--rest-listen", address, &layers, sockets)?)
            }
            None => None,
        };
        Ok((set, BoundAddresses { plain, tls, rest }))
    }

    #[cfg(feature = "tls")]
    fn add_tls(
        &mut self,
        config: &Config,
        layers: Layers,
        sockets: &mut InheritedSockets,
    ) -> Result<Option<SocketAddr>, StartError> {
        let Some(tls) = &config.tls_listen else { return Ok(None) };
        let certificates = Certificates::read(tls.identities.clone())?;
        let config = Arc::new(server_config(certificates.clone())?);
        self.certificates = Some(certificates);
        let layers = Layers { tls: Some(TlsLayer::new(config, tls.handshake_timeout)), ..layers };
        self.add("--tls-listen", tls.address, &(layers, ListenerPurpose::Clients), sockets).map(Some)
    }

    /// Adds a listener at `address` to each shard.
    fn add(
        &mut self,
        flag: &'static str,
        address: SocketAddr,
        (layers, purpose): &(Layers, ListenerPurpose),
        sockets: &mut InheritedSockets,
    ) -> Result<SocketAddr, StartError> {
        let count = u16::try_from(self.of_shards.len()).unwrap_or(u16::MAX);
        let refused = |source| StartError::Listen { flag, address, source };
        let inherited = sockets.take(address);
        let sharing = self.sharing;
        let (address, shares) = if inherited.is_empty() {
            let (address, listeners) = shared_port::bind_shared(address, count, sharing).map_err(refused)?;
            (address, listeners.into_iter().map(|listener| vec![listener]).collect())
        } else {
            (address, shared_port::distribute(&inherited, count).map_err(refused)?)
        };
        let of_shard = |listener| ShardListener { listener, layers: layers.clone(), purpose: *purpose };
        for (shard, listeners) in self.of_shards.iter_mut().zip(shares) {
            shard.extend(listeners.into_iter().map(of_shard));
        }
        Ok(address)
    }
}

/// Inherited sockets not yet taken by a listener.
///
/// A socket is matched with the flag that has its address. So rules about flags, such as the need for a key, still
/// apply, and a socket without a flag is an error, not an unnoticed open port.
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
