//! App server: its connections with their homes, and senders that each do one thing after the other.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use trunkline_protocol::fleet::{ClientHome, SendEpoch};

use super::letter::{ConnectionNumber, NodeNumber};

/// Senders of each app server.
pub(crate) const SENDERS: usize = 2;

/// Connection as its app server knows it.
#[derive(Debug)]
pub(crate) struct AppConnection {
    /// A link is named by the node that it leads to.
    pub(crate) home: ClientHome<NodeNumber, NodeNumber>,
    /// Messages that have come from the client.
    pub(crate) received: u64,
    /// Messages that each sender has sent to it alone, and those that never wait.
    pub(crate) alone: [u64; SENDERS + 1],
}

/// Task of an app server that sends, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SenderStep {
    Idle,
    /// Copies of a send to many that these nodes have still to get.
    Many {
        epoch: i64,
        frame: Bytes,
        left: Vec<NodeNumber>,
    },
    /// A frame for this client alone waits for its way.
    Waits {
        connection: ConnectionNumber,
    },
    /// It has the way, and its link is full.
    Passes {
        connection: ConnectionNumber,
        node: NodeNumber,
        frame: Bytes,
    },
}

/// Sender of an app server.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) step: SenderStep,
    /// Messages to many that it has sent.
    pub(crate) many: u64,
}

/// App server with its senders.
#[derive(Debug)]
pub(crate) struct MoveApp {
    pub(crate) links: BTreeSet<NodeNumber>,
    pub(crate) connections: BTreeMap<ConnectionNumber, AppConnection>,
    /// Connections that were closed while they moved.
    pub(crate) parting: BTreeMap<ConnectionNumber, AppConnection>,
    pub(crate) senders: [Sender; SENDERS],
    pub(crate) epoch: SendEpoch,
    /// Moves that wait for an epoch to begin.
    pub(crate) waiting: Vec<(NodeNumber, ConnectionNumber)>,
    /// Moves that wait for the end of the last epoch.
    pub(crate) answering: Vec<(NodeNumber, ConnectionNumber)>,
}

impl MoveApp {
    pub(crate) fn new() -> Self {
        Self {
            links: BTreeSet::new(),
            connections: BTreeMap::new(),
            parting: BTreeMap::new(),
            senders: std::array::from_fn(|_| Sender { step: SenderStep::Idle, many: 0 }),
            epoch: SendEpoch::default(),
            waiting: Vec::new(),
            answering: Vec::new(),
        }
    }
}
