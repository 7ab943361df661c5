//! Node for clients: its connections, and those it is taking over.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_protocol::fleet::Ownership;

use super::letter::{ConnectionNumber, NodeNumber};

/// Seconds that a node keeps the connection of an absent client.
pub(crate) const DISCONNECT_TIMEOUT_S: u32 = 15;

#[derive(Debug)]
pub(crate) struct HeldConnection {
    pub(crate) ownership: Ownership<usize>,
    /// Index of its app server.
    pub(crate) app: usize,
    pub(crate) socket: Option<usize>,
    /// Changes with each socket.
    pub(crate) serial: u64,
    /// Tick of the next check of its absence.
    pub(crate) check_at: u32,
    /// Nodes and requests waiting for its state; several only with a mutant.
    pub(crate) takers: Vec<(NodeNumber, u64)>,
    /// Last mark of its app server that is not confirmed.
    pub(crate) mark: Option<i64>,
    /// State at the start of its departure, for mutants that restore it.
    pub(crate) before: Option<Ownership<usize>>,
}

/// Takeover of a connection by this node.
#[derive(Debug)]
pub(crate) struct TakeOver {
    pub(crate) connection: ConnectionNumber,
    pub(crate) socket: usize,
    pub(crate) stage: TakeOverStage,
}

#[derive(Debug)]
pub(crate) enum TakeOverStage {
    /// Nodes that have not answered whether they own the connection.
    Looking(BTreeSet<NodeNumber>),
    /// The state of the connection is in flight.
    Taking,
}

/// One run of a node.
#[derive(Debug)]
pub(crate) struct MoveNode {
    pub(crate) is_alive: bool,
    /// Accepts no new connections and sends existing ones elsewhere until this time.
    pub(crate) drains_until_ms: Option<u64>,
    pub(crate) tick: u32,
    pub(crate) serials: u64,
    pub(crate) connections: BTreeMap<ConnectionNumber, HeldConnection>,
    /// Requested connection ids, with the waiting sockets.
    pub(crate) reserved: BTreeMap<ConnectionNumber, usize>,
    pub(crate) take_overs: BTreeMap<u64, TakeOver>,
}

impl MoveNode {
    pub(crate) fn new() -> Self {
        Self {
            is_alive: true,
            drains_until_ms: None,
            tick: 1,
            serials: 0,
            connections: BTreeMap::new(),
            reserved: BTreeMap::new(),
            take_overs: BTreeMap::new(),
        }
    }

    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serials += 1;
        self.serials
    }

    /// Whether the node owns the connection, including during a departure.
    pub(crate) fn owns(&self, connection: ConnectionNumber) -> bool {
        let held = self.connections.get(&connection);
        self.is_alive && held.is_some_and(|held| !held.ownership.is_given() && !held.ownership.is_arriving())
    }

    pub(crate) fn held(&mut self, connection: ConnectionNumber) -> Option<&mut HeldConnection> {
        self.connections.get_mut(&connection)
    }
}
