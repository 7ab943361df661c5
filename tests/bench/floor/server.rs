//! Servers of a crowd, each a process: the floor, or proxies with an app server.

use std::net::SocketAddr;

use anyhow::Result;
use trunkline_bench::child::Speaker;
use trunkline_bench::cores;
use trunkline_bench::product::{self, MeasuredProxy, Product, Wanted};
use trunkline_generator::memory::Memory;

use crate::arguments::CrowdArguments;
use crate::work::Work;

/// Outbox size per client: small, so that stalled clients fill it within a run.
const OUTBOX_MAX_BYTES: usize = 256 * 1024;
/// Large messages that may be queued per client.
const OUTBOX_MESSAGES: usize = 4;
/// Maximum size of a call, which may name thousands of groups.
const CALL_MAX_BYTES: usize = 256 * 1024;

/// Running server, stopped on drop.
#[derive(Debug)]
pub(crate) enum Server {
    /// The floor with its listen address.
    Floor(Speaker, SocketAddr),
    /// Proxies and their app server.
    Proxy(Product),
}

impl Server {
    pub(crate) fn floor(work: Work, payload: usize) -> Result<Self> {
        let address = product::address()?;
        let (listen, payload) = (address.to_string(), payload.to_string());
        let arguments = ["writer", "--listen", &listen, "--work", work.name(), "--payload", &payload];
        let floor = Speaker::start("floor", &arguments)?;
        Ok(Self::Floor(floor, address))
    }

    /// Starts proxies and their app server, and waits for the links between them.
    pub(crate) fn proxies(arguments: &CrowdArguments) -> Result<Self> {
        let CrowdArguments { proxies, shards, links, payload, .. } = *arguments;
        let outbox = OUTBOX_MAX_BYTES.max(OUTBOX_MESSAGES * payload).to_string();
        let message = CALL_MAX_BYTES.max(2 * payload).to_string();
        // Large messages to all are queued for all clients, but share memory, so their sum must not close clients.
        let mut more = vec!["--outbox-max-bytes", &outbox, "--outbox-total-max-bytes", "0"];
        if arguments.singly {
            more.push("--no-vectored-sends");
        }
        let app_more = &["--message-max-bytes", message.as_str()];
        Ok(Self::Proxy(Product::start_with(Wanted {
            proxies,
            shards,
            links,
            more: &more,
            app_more,
            ..Wanted::default()
        })?))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Floor(_, address) => *address,
            Self::Proxy(product) => product.address(),
        }
    }

    /// Addresses for clients, cyclically.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let all: Vec<_> = match self {
            Self::Floor(_, address) => vec![*address],
            Self::Proxy(product) => product.proxies().map(MeasuredProxy::address).collect(),
        };
        all.into_iter().cycle()
    }

    /// Process id of the app server, if any.
    pub(crate) fn app_pid(&self) -> Option<u32> {
        match self {
            Self::Floor(..) => None,
            Self::Proxy(product) => Some(product.app_pid()),
        }
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        match self {
            Self::Floor(floor, _) => vec![floor.id()],
            Self::Proxy(product) => product.proxies().map(MeasuredProxy::pid).collect(),
        }
    }

    pub(crate) fn pin(&self, core: u16) -> Result<()> {
        self.pids().into_iter().try_for_each(|pid| cores::pin(pid, core))
    }

    pub(crate) fn memory_bytes(&self) -> Result<u64> {
        self.pids().into_iter().map(|pid| Ok(Memory::of(pid)?.anonymous_bytes)).sum()
    }
}
