//! What a crowd is at: the floor, or a proxy before an app server, each a process of its own.

use std::net::SocketAddr;

use anyhow::Result;
use trunkline_tests::bench::process::Speaker;
use trunkline_tests::bench::product::{self, Product};

use crate::crowd::CrowdArguments;

/// What may wait for one client: little, so that those who have stopped reading come to it within a run.
const OUTBOX_MAX_BYTES: usize = 256 * 1024;

/// A running server.
#[derive(Debug)]
pub(crate) enum Server {
    /// The floor, and where it listens.
    Floor(Speaker, SocketAddr),
    /// A proxy and its app server.
    Proxy(Product),
}

impl Server {
    /// Starts the floor.
    pub(crate) fn floor(arguments: &CrowdArguments) -> Result<Self> {
        let address = product::address()?;
        let (listen, payload) = (address.to_string(), arguments.payload.to_string());
        let arguments = ["writer", "--listen", &listen, "--work", arguments.work.name(), "--payload", &payload];
        let floor = Speaker::start("floor", &arguments)?;
        Ok(Self::Floor(floor, address))
    }

    /// Starts a proxy and its app server, and waits for the links between them.
    pub(crate) fn proxy(shards: u16, links: u16) -> Result<Self> {
        let outbox = OUTBOX_MAX_BYTES.to_string();
        Ok(Self::Proxy(Product::start_with(shards, links, &["--outbox-max-bytes", &outbox])?))
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Floor(_, address) => *address,
            Self::Proxy(product) => product.address(),
        }
    }

    /// The app server behind it.
    pub(crate) fn app_pid(&self) -> Option<u32> {
        match self {
            Self::Floor(..) => None,
            Self::Proxy(product) => Some(product.app_pid()),
        }
    }

    /// The process that is measured.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Floor(floor, _) => floor.id(),
            Self::Proxy(product) => product.proxy_pid(),
        }
    }
}
