//! Node to which clients connect: its connections, and those that it takes over.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_protocol::fleet::Ownership;

use super::letter::{ConnectionNumber, NodeNumber};

/// Seconds for which a node keeps the connection of an absent client.
pub(crate) const DISCONNECT_TIMEOUT_S: u32 = 15;

/// Connection at a node.
#[derive(Debug)]
pub(crate) struct HeldConnection {
    pub(crate) ownership: Ownership<usize>,
    /// Its own app server.
    pub(crate) app: usize,
    pub(crate) socket: Option<usize>,
    /// Changed with each socket.
    pub(crate) serial: u64,
    /// Tick at which its absence is looked at next.
    pub(crate) check_at: u32,
    /// Node and question that wait for its state; several only with a mutant.
    pub(crate) takers: Vec<(NodeNumber, u64)>,
    /// State as it was when it began to depart, for mutants that go back to it.
    pub(crate) before: Option<Ownership<usize>>,
}

/// Take-over of a connection by this node.
#[derive(Debug)]
pub(crate) struct TakeOver {
    pub(crate) connection: ConnectionNumber,
    /// Socket of the client that waits for it.
    pub(crate) socket: usize,
    pub(crate) stage: TakeOverStage,
}

#[derive(Debug)]
pub(crate) enum TakeOverStage {
    /// These nodes have not said whether they have it.
    Looking(BTreeSet<NodeNumber>),
    /// It is about to arrive.
    Taking,
}

/// One start of a node.
#[derive(Debug)]
pub(crate) struct MoveNode {
    pub(crate) is_alive: bool,
    /// It takes no new connections, and sends those that it has elsewhere.
    pub(crate) drains_until_ms: Option<u64>,
    pub(crate) tick: u32,
    pub(crate) serials: u64,
    pub(crate) connections: BTreeMap<ConnectionNumber, HeldConnection>,
    /// Ids that are asked for, by the sockets that wait.
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

    /// Whether it has the connection, or still has.
    pub(crate) fn owns(&self, connection: ConnectionNumber) -> bool {
        let held = self.connections.get(&connection);
        self.is_alive && held.is_some_and(|held| !held.ownership.is_given() && !held.ownership.is_arriving())
    }

    pub(crate) fn held(&mut self, connection: ConnectionNumber) -> Option<&mut HeldConnection> {
        self.connections.get_mut(&connection)
    }
}
