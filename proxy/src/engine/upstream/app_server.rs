//! App servers and their locations.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};

use super::number::AppServerId;
use super::{MemoryLink, ServerGroup};
use crate::ground::net::address::Address;

#[derive(Debug)]
pub(crate) struct AppServer {
    pub id: AppServerId,
    /// Random id of the instance.
    pub instance: String,
    /// Name for logs and pages.
    pub name: String,
    pub target: AppTarget,
    pub group: Arc<ServerGroup>,
}

impl AppServer {
    pub(crate) fn weight(&self) -> u32 {
        match &self.target {
            AppTarget::Network(address) => self.group.weight_of(address),
            AppTarget::Memory(_) | AppTarget::DialsIn(_) => 1,
        }
    }

    /// Whether the source of its address still lists the app server. While listed ones of its group are up, an app
    /// server that has left gets no new clients and requests, and keeps the clients it has.
    pub(crate) fn is_listed(&self) -> bool {
        match &self.target {
            AppTarget::Network(address) => address.is_listed(),
            AppTarget::Memory(_) | AppTarget::DialsIn(_) => true,
        }
    }
}

/// Location of an app server: a network address, or this process.
#[derive(Debug, Clone)]
pub(crate) enum AppTarget {
    Network(Address),
    Memory(Arc<dyn MemoryDialler>),
    /// Dials in, from this address if known; this node never dials it.
    DialsIn(Option<IpAddr>),
}

impl AppTarget {
    pub(crate) fn is_webhook(&self) -> bool {
        matches!(self, Self::Memory(dialler) if dialler.back_end().is_some())
    }
}

/// Requests to a back end, and their outcomes.
#[derive(Debug, Clone, Default)]
pub struct BackEndState {
    /// Requests since the start, each attempt counted.
    pub requests: u64,
    /// Requests without a valid answer.
    pub failures: u64,
    /// Number of requests in flight.
    pub in_flight: u64,
    /// Time until the end of an answer, smoothed over the last requests.
    pub latency: Duration,
    /// Unix time of the first failure since the last valid answer, in milliseconds, and the latest problem.
    pub failing: Option<(u64, String)>,
}

/// Connector to the app that embeds this node.
pub trait MemoryDialler: std::fmt::Debug + Send + Sync {
    /// Passes the app its end of a link. The other arguments are sent as headers over the network.
    fn dial(&self, hub: &str, node: &str, boot: &str, slot: usize, link: MemoryLink);

    /// Passes the app a request for a path that it serves to proxies.
    fn ask(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

    /// Location of the app, for people.
    fn place(&self) -> String {
        "this process".into()
    }

    /// State of the back end to which the app's ends of links send requests; `None` for an app in this process.
    fn back_end(&self) -> Option<BackEndState> {
        None
    }

    /// Whether the app's ends of links report on traced messages.
    fn supports_traces(&self) -> bool {
        false
    }
}

impl std::fmt::Display for AppTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network(address) => write!(f, "{address}"),
            Self::Memory(dialler) => f.write_str(&dialler.place()),
            Self::DialsIn(_) => f.write_str("dials in"),
        }
    }
}
