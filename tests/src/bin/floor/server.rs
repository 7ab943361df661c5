//! What a crowd is at: the floor, or a proxy before an app server, each a process of its own.

use std::net::SocketAddr;

use anyhow::Result;
use trunkline_tests::bench::process::Speaker;
use trunkline_tests::bench::product::{self, Product};

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
    /// Starts the floor. It ends when its first client does.
    pub(crate) fn floor() -> Result<Self> {
        let address = product::address()?;
        let floor = Speaker::start("floor", &["writer", "--listen", &address.to_string()])?;
        Ok(Self::Floor(floor, address))
    }

    /// Starts a proxy and its app server, and waits for the links between them.
    pub(crate) fn proxy(shards: u16) -> Result<Self> {
        let outbox = OUTBOX_MAX_BYTES.to_string();
        Ok(Self::Proxy(Product::start_with(shards, &["--outbox-max-bytes", &outbox])?))
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Floor(_, address) => *address,
            Self::Proxy(product) => product.address(),
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
