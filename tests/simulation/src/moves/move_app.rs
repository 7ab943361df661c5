//! App server: its connections with their homes, and sequential senders.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use trunkline_protocol::fleet::{ClientHome, ClientWindow, SendEpoch, SenderLine};

use super::letter::{ConnectionNumber, NodeNumber};

pub(crate) const SENDERS: usize = 2;

/// Whether the first sender in line has been woken.
#[derive(Debug, Default)]
pub(crate) struct PolledLine(AtomicBool);

impl PolledLine {
    /// Records that another sender is now the first one.
    pub(crate) fn note_turn(&self) {
        self.wake();
    }

    pub(crate) fn take_wake(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl SenderLine for PolledLine {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Connection from its app server's perspective.
#[derive(Debug)]
pub(crate) struct AppConnection {
    /// Links are identified by the node they lead to.
    pub(crate) home: ClientHome<NodeNumber, NodeNumber>,
    /// Number of messages from the client.
    pub(crate) received: u64,
    /// Number of messages to this client alone, by sender; the last entry counts messages that never wait.
    pub(crate) alone: [u64; SENDERS + 1],
    pub(crate) window: ClientWindow<PolledLine>,
    /// Senders that wait for the window.
    pub(crate) line: VecDeque<(usize, Arc<PolledLine>)>,
}

/// Current step of a sending task of an app server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SenderStep {
    Idle,
    /// Copies of a send to many clients that are not queued for these nodes yet.
    Many {
        epoch: i64,
        frame: Bytes,
        left: Vec<NodeNumber>,
    },
    /// A frame for this client alone waits for the client's window; with a mutant, it already has a route.
    InLine {
        connection: ConnectionNumber,
        permit: Option<NodeNumber>,
    },
    /// A frame for this client alone waits until the pause ends.
    Waits {
        connection: ConnectionNumber,
    },
    /// The frame has a route, but its link is full.
    Passes {
        connection: ConnectionNumber,
        node: NodeNumber,
        frame: Bytes,
    },
}

#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) step: SenderStep,
    /// Number of its messages to many clients.
    pub(crate) many: u64,
}

#[derive(Debug)]
pub(crate) struct MoveApp {
    pub(crate) links: BTreeSet<NodeNumber>,
    pub(crate) connections: BTreeMap<ConnectionNumber, AppConnection>,
    /// Connections closed while they were moving.
    pub(crate) parting: BTreeMap<ConnectionNumber, AppConnection>,
    pub(crate) senders: [Sender; SENDERS],
    pub(crate) epoch: SendEpoch,
    /// Moves waiting for a new epoch.
    pub(crate) waiting: Vec<(NodeNumber, ConnectionNumber)>,
    /// Moves waiting for the end of the previous epoch.
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
