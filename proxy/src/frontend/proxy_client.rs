//! HTTP clients of one shard for forwarded requests: to app servers and to other nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::admission::Admission;
use crate::net::http_client::HttpClient;
use crate::shard::Shared;
use crate::upstream::AppServer;

/// Timeout for connecting to another node.
const HOP_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Clients for both kinds of servers, and the round-robin state of app servers.
#[derive(Debug)]
pub(crate) struct ProxyClient {
    pub(crate) app_servers: HttpClient,
    pub(crate) nodes: HttpClient,
    /// Number of requests passed through, for round robin.
    next: AtomicUsize,
}

/// Client for requests to other nodes about connections.
pub(crate) fn client_of_nodes(shared: &Shared, admission: &Admission) -> HttpClient {
    let connect_timeout = HOP_CONNECT_TIMEOUT.min(shared.settings.relay.hop_timeout);
    let channels = shared.ways.client_port_channels.for_clients().by_names(shared.ways.node_names.clone());
    HttpClient::new(channels, connect_timeout).for_others().behind(admission.node_dials.clone())
}

impl ProxyClient {
    pub(crate) fn new(shared: &Shared, admission: &Admission, app_servers: HttpClient) -> Self {
        Self { app_servers, nodes: client_of_nodes(shared, admission), next: AtomicUsize::new(0) }
    }

    /// Returns the app servers in the order of attempts.
    pub(crate) fn in_turn(&self, mut app_servers: Vec<Arc<AppServer>>) -> Vec<Arc<AppServer>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(app_servers.len()).unwrap_or_default();
        app_servers.rotate_left(first);
        app_servers
    }
}
