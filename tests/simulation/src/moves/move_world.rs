//! All nodes, app servers and clients, messages in flight, and time.
//!
//! ```text
//!  events by time ──► node_side: sockets, questions of other nodes, ticks
//!               ├───► app_side: connections, senders, epochs
//!               ├───► window_side: windows of clients, and marks
//!               └───► visitor_side: clients
//! ```

mod app_side;
mod claim_side;
mod node_side;
mod visitor_side;
mod window_side;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::letter::{BetweenNodes, ConnectionNumber, NodeNumber, OverSocket, ToApp, ToNode};
use super::move_app::MoveApp;
use super::move_mutant::MoveMutant;
use super::move_node::MoveNode;
use super::visitor::Visitor;
use crate::ledger::{Check, broken};
use crate::random::Random;

/// Counts of a schedule, to detect schedules without events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MoveOutcome {
    /// Connections started by clients.
    pub begun: u64,
    /// Connections ended at app servers.
    pub ended: u64,
    /// Clients that reconnected to their connection's node.
    pub resumed: u64,
    /// Connections that arrived at another node.
    pub moved: u64,
    /// Failed moves after which the connection stayed.
    pub stayed: u64,
    /// Connections that did not arrive.
    pub withdrawn: u64,
    /// Clients that were refused.
    pub refused: u64,
    /// Nodes that ended by a crash.
    pub died: u64,
    /// Nodes that drained until empty.
    pub drained: u64,
    /// Messages received by clients.
    pub down: u64,
    /// Messages received by app servers.
    pub up: u64,
    /// Frames that were replayed.
    pub again: u64,
    /// Messages that waited for the window of their client.
    pub waited: u64,
}

impl std::ops::Add for MoveOutcome {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            begun: self.begun + other.begun,
            ended: self.ended + other.ended,
            resumed: self.resumed + other.resumed,
            moved: self.moved + other.moved,
            stayed: self.stayed + other.stayed,
            withdrawn: self.withdrawn + other.withdrawn,
            refused: self.refused + other.refused,
            died: self.died + other.died,
            drained: self.drained + other.drained,
            down: self.down + other.down,
            up: self.up + other.up,
            again: self.again + other.again,
            waited: self.waited + other.waited,
        }
    }
}

/// Faults of a schedule in addition to broken sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// None: only clients and app servers may end connections.
    Gentle,
    /// Node links are slow and lose messages, app server links stall, clients are impatient.
    Slow,
    /// As `Slow`, and nodes die.
    Deadly,
}

/// Ordered path of messages between two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    ToApp { app: usize, node: NodeNumber },
    ToNode { app: usize, node: NodeNumber },
    Between { from: NodeNumber, to: NodeNumber },
    Socket { socket: usize, is_up: bool },
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    ToApp {
        app: usize,
        node: NodeNumber,
        connection: ConnectionNumber,
        letter: ToApp,
    },
    ToNode {
        app: usize,
        node: NodeNumber,
        letter: ToNode,
    },
    Between {
        from: NodeNumber,
        to: NodeNumber,
        letter: BetweenNodes,
    },
    Socket {
        socket: usize,
        is_up: bool,
        letter: OverSocket,
    },
    /// An end notices the end of its socket.
    SocketEnd {
        socket: usize,
        is_up: bool,
    },
    /// A node hands a returning client's socket to its connection.
    ComeBack {
        node: NodeNumber,
        connection: ConnectionNumber,
        serial: u64,
        socket: usize,
    },
    Tick {
        node: NodeNumber,
    },
    /// A request of a node times out.
    Unanswered {
        node: NodeNumber,
        question: u64,
    },
    /// An app server notices that a node is gone.
    LinkLost {
        app: usize,
        node: NodeNumber,
    },
    /// An app server's wait for a connection to resume times out.
    GiveUp {
        app: usize,
        node: NodeNumber,
        connection: ConnectionNumber,
    },
    /// An app server's wait for the end of a pause times out.
    GiveUpPause {
        app: usize,
        connection: ConnectionNumber,
        pause: u32,
    },
    Send {
        app: usize,
        sender: usize,
    },
    Visit {
        visitor: usize,
    },
    Acknowledge {
        visitor: usize,
    },
    /// A client's wait for its socket times out.
    Impatient {
        visitor: usize,
        attempt: u64,
    },
    Start {
        slot: usize,
    },
    Fault,
}

#[derive(Debug, Clone, Copy, Default)]
struct LaneState {
    last_ms: u64,
    /// Messages that have not arrived by this time are lost.
    lost_from_ms: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct ClientSocket {
    pub(crate) visitor: usize,
    pub(crate) node: NodeNumber,
    /// Connection served by the socket, with the connection's serial.
    pub(crate) serves: Option<(ConnectionNumber, u64)>,
    pub(crate) is_over: bool,
}

/// Life cycle of a connection, for the checks.
#[derive(Debug, Default)]
pub(crate) struct ConnectionFate {
    /// Its app server has seen its start, and its end.
    pub(crate) is_opened: bool,
    pub(crate) is_ended: bool,
    /// Its client or app server has ended it, or its node was stopped.
    pub(crate) may_end: bool,
}

#[derive(Debug)]
struct Scheduled(Reverse<(u64, u64)>, Event);

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

#[derive(Debug)]
pub(crate) struct MoveWorld {
    pub(crate) now_ms: u64,
    pub(crate) random: Random,
    pub(crate) mutant: Option<MoveMutant>,
    pub(crate) harm: Harm,
    pub(crate) is_calm: bool,
    pub(crate) is_traced: bool,
    pub(crate) limit_bytes: usize,
    /// Size of a message to one client in the client's window; 0 for nodes without marks.
    pub(crate) message_bytes: u32,
    /// Number of times that all links were replaced.
    pub(crate) links: u32,
    pub(crate) nodes: Vec<MoveNode>,
    /// Running process of each node.
    pub(crate) slots: Vec<NodeNumber>,
    pub(crate) apps: Vec<MoveApp>,
    pub(crate) visitors: Vec<Visitor>,
    pub(crate) sockets: Vec<ClientSocket>,
    pub(crate) fates: Vec<ConnectionFate>,
    pub(crate) questions: u64,
    pub(crate) outcome: MoveOutcome,
    events: BinaryHeap<Scheduled>,
    scheduled: u64,
    lanes: BTreeMap<Lane, LaneState>,
}

impl MoveWorld {
    pub(crate) fn new(seed: u64, mutant: Option<MoveMutant>, is_traced: bool) -> Self {
        let mut random = Random::new(seed);
        let harm = [Harm::Gentle, Harm::Slow, Harm::Deadly][random.index(3)];
        let limit_bytes = [100, 400, 4_000][random.index(3)];
        let message_bytes = [0, 4_096, 16_384][random.index(3)];
        let apps = (0..1 + random.index(2)).map(|_| MoveApp::new()).collect();
        let visitors = (0..1 + random.index(3)).map(|_| Visitor::new()).collect();
        Self {
            now_ms: 0,
            random,
            mutant,
            harm,
            is_calm: false,
            is_traced,
            limit_bytes,
            message_bytes,
            links: 0,
            nodes: Vec::new(),
            slots: Vec::new(),
            apps,
            visitors,
            sockets: Vec::new(),
            fates: Vec::new(),
            questions: 0,
            outcome: MoveOutcome::default(),
            events: BinaryHeap::new(),
            scheduled: 0,
            lanes: BTreeMap::new(),
        }
    }

    pub(crate) fn is(&self, mutant: MoveMutant) -> bool {
        self.mutant == Some(mutant)
    }

    #[expect(clippy::print_stdout, reason = "the trace of a schedule that is replayed")]
    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{:>7} ms  {}", self.now_ms, text());
        }
    }

    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Scheduled(Reverse((self.now_ms + ms, self.scheduled)), event));
    }

    /// Sends over a lane, after all earlier messages on it.
    pub(crate) fn send(&mut self, lane: Lane, event: Event) {
        let delay_ms = self.delay_ms(lane);
        let state = self.lanes.entry(lane).or_default();
        let at_ms = state.last_ms.max(self.now_ms + delay_ms);
        state.last_ms = at_ms;
        if state.lost_from_ms.is_none_or(|lost_ms| at_ms < lost_ms) {
            self.after(at_ms - self.now_ms, event);
        }
    }

    fn delay_ms(&mut self, lane: Lane) -> u64 {
        let is_slow = self.harm != Harm::Gentle && !self.is_calm && self.random.percent(1);
        match lane {
            Lane::Socket { .. } if self.random.percent(5) => self.random.below(500),
            Lane::Socket { .. } => 1 + self.random.below(30),
            _ if is_slow => self.random.below(6_000),
            _ if self.random.percent(10) => self.random.below(300),
            _ => self.random.below(20),
        }
    }

    /// Loses a lane's messages after some moment.
    pub(crate) fn lose(&mut self, lane: Lane) -> u64 {
        let lost_ms = self.now_ms + [0, self.random.below(60), self.random.below(600)][self.random.index(3)];
        let state = self.lanes.entry(lane).or_default();
        *state.lost_from_ms.get_or_insert(lost_ms)
    }

    fn is_lost(&self, event: &Event) -> bool {
        let lane = match *event {
            Event::ToApp { app, node, .. } => Lane::ToApp { app, node },
            Event::ToNode { app, node, .. } => Lane::ToNode { app, node },
            Event::Between { from, to, .. } => Lane::Between { from, to },
            Event::Socket { socket, is_up, .. } => Lane::Socket { socket, is_up },
            _ => return false,
        };
        let state = self.lanes.get(&lane);
        state.and_then(|state| state.lost_from_ms).is_some_and(|lost_ms| self.now_ms >= lost_ms)
    }

    /// Advances time and runs all due events.
    pub(crate) fn run_until(&mut self, until_ms: u64) -> Check {
        while self.events.peek().is_some_and(|Scheduled(Reverse((at_ms, _)), _)| *at_ms <= until_ms) {
            let Some(Scheduled(Reverse((at_ms, _)), event)) = self.events.pop() else { break };
            self.now_ms = at_ms;
            if !self.is_lost(&event) {
                self.happen(event)?;
            }
        }
        self.now_ms = until_ms;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Check {
        match event {
            Event::ToApp { app, node, connection, letter } => return self.app_takes(app, node, connection, letter),
            Event::ToNode { app, node, letter } => self.node_takes(app, node, letter),
            Event::Between { from, to, letter } => return self.node_hears(from, to, letter),
            Event::Socket { socket, is_up: true, letter } => return self.node_reads(socket, letter),
            Event::Socket { socket, is_up: false, letter } => return self.visitor_reads(socket, letter),
            Event::SocketEnd { socket, is_up: true } => self.node_loses_socket(socket),
            Event::SocketEnd { socket, is_up: false } => self.visitor_loses_socket(socket),
            Event::ComeBack { node, connection, serial, socket } => self.come_back(node, connection, serial, socket),
            Event::Tick { node } => return self.tick(node),
            Event::Unanswered { node, question } => self.unanswered(node, question),
            Event::LinkLost { app, node } => return self.lose_link(app, node),
            Event::GiveUp { app, node, connection } => return self.give_up(app, node, connection),
            Event::GiveUpPause { app, connection, pause } => return self.give_up_pause(app, connection, pause),
            Event::Send { app, sender } => return self.step_sender(app, sender),
            Event::Visit { visitor } => self.visit(visitor),
            Event::Acknowledge { visitor } => self.acknowledge(visitor),
            Event::Impatient { visitor, attempt } => self.lose_patience(visitor, attempt),
            Event::Start { slot } => self.start_node(slot),
            Event::Fault => self.fault(),
        }
        Ok(())
    }

    /// Cuts a socket. Each end notices later; its node perhaps never.
    pub(crate) fn cut(&mut self, socket: usize) {
        if std::mem::replace(&mut self.sockets[socket].is_over, true) {
            return;
        }
        for is_up in [true, false] {
            let lost_ms = self.lose(Lane::Socket { socket, is_up });
            let told_ms = match self.random.below(10) {
                0..7 => self.random.below(40),
                // Half-open until the client's timeout.
                9 if is_up => 30_000,
                _ => self.random.below(3_000),
            };
            self.after(lost_ms.saturating_sub(self.now_ms) + told_ms, Event::SocketEnd { socket, is_up });
        }
    }

    pub(crate) fn alive(&self) -> Vec<NodeNumber> {
        self.slots.iter().copied().filter(|node| self.nodes[*node].is_alive).collect()
    }

    pub(crate) fn check_owners(&self, connection: ConnectionNumber) -> Check {
        let owners: Vec<_> = (0..self.nodes.len()).filter(|node| self.nodes[*node].owns(connection)).collect();
        if owners.len() > 1 {
            return broken(format!("connection {connection} is at the nodes {owners:?}"));
        }
        Ok(())
    }

    /// Records that a connection may end.
    pub(crate) fn excuse(&mut self, connection: ConnectionNumber) {
        self.fates[connection].may_end = true;
    }
}
