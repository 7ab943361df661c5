//! App servers, and where they are.

use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response};

use super::number::AppServerId;
use super::{MemoryLink, ServerGroup};
use crate::net::address::Address;

/// An app server instance.
#[derive(Debug)]
pub(crate) struct AppServer {
    pub id: AppServerId,
    /// Its random instance id.
    pub instance: String,
    /// Its name, for people.
    pub name: String,
    pub target: AppTarget,
    pub group: Arc<ServerGroup>,
}

impl AppServer {
    /// Weight of its turns among those of its group.
    #[must_use]
    pub(crate) fn weight(&self) -> u32 {
        match &self.target {
            AppTarget::Network(address) => self.group.weight_of(address),
            AppTarget::Memory(_) | AppTarget::DialsIn => 1,
        }
    }
}

/// Where an app server is: behind an address, or in this process.
#[derive(Debug, Clone)]
pub(crate) enum AppTarget {
    Network(Address),
    Memory(Arc<dyn MemoryDialler>),
    /// It dials in, and nobody dials it.
    DialsIn,
}

/// Connector to the app that this node is embedded in.
pub trait MemoryDialler: std::fmt::Debug + Send + Sync {
    /// Gives the app the far end of a link, with the values that headers have over the network.
    fn dial(&self, hub: &str, node: &str, boot: &str, slot: usize, link: MemoryLink);

    /// Has the app answer a request to one of the paths that it serves for proxies.
    fn ask(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

    /// Says for people where the app is.
    fn place(&self) -> String {
        "this process".into()
    }

    /// Whether the far ends of its links report on messages that a live trace follows.
    fn knows_traces(&self) -> bool {
        false
    }
}

impl std::fmt::Display for AppTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network(address) => write!(f, "{address}"),
            Self::Memory(dialler) => f.write_str(&dialler.place()),
            Self::DialsIn => f.write_str("dials in"),
        }
    }
}
