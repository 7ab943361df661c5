//! Open all listeners, plain and with TLS: one of each per shard.

use std::net::SocketAddr;
#[cfg(feature = "tls")]
use std::sync::Arc;

use super::handed::Handed;
use super::thread::Door;
use super::{StartError, listen};
use crate::config::Config;
use crate::frontend::Layers;
#[cfg(feature = "tls")]
use crate::frontend::TlsLayer;
#[cfg(feature = "tls")]
use crate::net::tls::{Certificates, server_config};

/// Where a node is to be found.
#[derive(Debug)]
pub(super) struct Doors {
    pub(super) of_shards: Vec<Vec<Door>>,
    #[cfg(feature = "tls")]
    pub(super) certificates: Option<Arc<Certificates>>,
}

impl Doors {
    /// Opens what is configured, and says where that is.
    pub(super) fn open(config: &Config, handed: &mut Handed) -> Result<(Self, Addresses), StartError> {
        let mut doors = Self {
            of_shards: (0..config.shards).map(|_| Vec::new()).collect(),
            #[cfg(feature = "tls")]
            certificates: None,
        };
        let layers = Layers::plain(config.settings.proxy_protocol.clone());
        let plain = doors.add("--listen", config.listen, &layers, handed)?;
        #[cfg(feature = "tls")]
        let tls = doors.add_tls(config, layers, handed)?;
        #[cfg(not(feature = "tls"))]
        let tls = None;
        Ok((doors, Addresses { plain, tls }))
    }

    #[cfg(feature = "tls")]
    fn add_tls(
        &mut self,
        config: &Config,
        layers: Layers,
        handed: &mut Handed,
    ) -> Result<Option<SocketAddr>, StartError> {
        let Some(tls) = &config.tls_listen else { return Ok(None) };
        let certificates = Certificates::read(tls.identities.clone())?;
        let config = Arc::new(server_config(certificates.clone())?);
        self.certificates = Some(certificates);
        let layers = Layers { tls: Some(TlsLayer::new(config, tls.handshake_timeout)), ..layers };
        self.add("--tls-listen", tls.address, &layers, handed).map(Some)
    }

    fn add(
        &mut self,
        flag: &'static str,
        address: SocketAddr,
        layers: &Layers,
        handed: &mut Handed,
    ) -> Result<SocketAddr, StartError> {
        let count = u16::try_from(self.of_shards.len()).unwrap_or(u16::MAX);
        let refused = |source| StartError::Listen { flag, address, source };
        let handed = handed.take(address);
        let (address, shares) = if handed.is_empty() {
            let (address, listeners) = listen::reuse_port(address, count).map_err(refused)?;
            (address, listeners.into_iter().map(|listener| vec![listener]).collect())
        } else {
            (address, listen::shared_out(handed, count).map_err(refused)?)
        };
        for (shard, listeners) in self.of_shards.iter_mut().zip(shares) {
            shard.extend(listeners.into_iter().map(|listener| Door { listener, layers: layers.clone() }));
        }
        Ok(address)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) plain: SocketAddr,
    pub(super) tls: Option<SocketAddr>,
}
