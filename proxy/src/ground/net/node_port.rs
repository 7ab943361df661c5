//! Way to other nodes by their names, through a broker that all nodes reach.

use std::fmt::Debug;
use std::io;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::io::DuplexStream;

/// Port of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodePort {
    Admin,
    Clients,
}

impl NodePort {
    const ALL: [Self; 2] = [Self::Admin, Self::Clients];

    fn label(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Clients => "clients",
        }
    }

    /// Host name of this port of a node's start.
    pub(super) fn host_of(self, boot: &str) -> String {
        format!("{}.{boot}", self.label())
    }

    /// Boot id and port in a host name.
    pub(super) fn from_host(host: &str) -> Option<(&str, Self)> {
        let (label, boot) = host.split_once('.')?;
        Self::ALL.into_iter().find(|port| port.label() == label).map(|port| (boot, port))
    }
}

/// Dials nodes through a broker. Fails like a connection that does not come about.
pub(crate) trait DialByBroker: Debug + Send + Sync {
    fn dial<'a>(&'a self, boot: &'a str, port: NodePort) -> BoxFuture<'a, io::Result<DuplexStream>>;
}
