//! Group of app servers: addresses with weights, and what differs from the node's own settings.

use std::path::PathBuf;
use std::sync::Arc;

use trunkline_protocol::key::AccessKeys;

use crate::net::address::Address;

/// Name of the group of `upstream`, which takes what no rule claims.
pub(crate) const DEFAULT_GROUP: &str = "default";

/// App server of a group, or several behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WeightedUpstream {
    pub address: Address,
    /// Share of new connections in proportion to the others', 1 by default.
    pub weight: u32,
}

/// Group of app servers with one duty.
#[derive(Debug, Clone)]
pub(crate) struct GroupRule {
    pub name: Arc<str>,
    pub upstreams: Vec<WeightedUpstream>,
    /// Links to each app server for each hub; `None` for the node's own number.
    pub pool_size: Option<usize>,
    /// Access keys of its app servers; `None` for the node's own.
    pub keys: Option<AccessKeys>,
    /// PEM files of the authorities that may have signed its certificates; empty for the node's own.
    pub roots: Vec<PathBuf>,
    /// PEM files of the client certificate and its key; `None` for the node's own.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Settings of the default group that differ from the node's own. Its addresses are those of `upstream`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DefaultGroup {
    /// Weights of some of its upstreams, 1 for all others.
    pub weights: Vec<WeightedUpstream>,
    /// Links to each app server for each hub; `None` for the node's own number.
    pub pool_size: Option<usize>,
}
