//! Schedule of a fleet: a minute of traffic and faults, then a calm phase until all nodes have reconnected.

use std::collections::BTreeSet;

use trunkline_protocol::fleet::{LATE_AFTER_MS, NodePhase};

use super::client::Client;
use super::fleet_mutant::FleetMutant;
use super::fleet_world::{FleetOutcome, FleetWorld, PostKind};
use super::post::{HUBS, NAMES, Recipients};
use super::process::ADDRESSES_PER_NODE;
use crate::ledger::{Check, Violation, broken};

/// Time limit of the calm phase: stalls end, dead sockets are detected, lost sessions ended, links redialled.
const CALM_MS: u64 = 90_000;

/// Time for which a fleet must be settled: requests time out after five seconds.
const SETTLE_MS: u64 = 6_000;

/// Time limit for the arrival of the last messages.
const ARRIVAL_MS: u64 = 5_000;

/// Percentage of messages for a group that a client has just joined, and of clients that join where a socket was just
/// lost.
const FOLLOWING_PERCENT: u64 = 50;

const CLIENTS_PER_NODE_MAX: usize = 6;

/// Size of a fleet and its schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetSize {
    /// Number of nodes; by default a few, depending on the seed.
    pub nodes: Option<usize>,
    /// Duration of traffic and faults.
    pub seconds: u64,
    /// Maximum time step in milliseconds.
    pub step_ms: u64,
}

impl FleetSize {
    /// Fleet of two to eight nodes.
    pub const SMALL: Self = Self { nodes: None, seconds: 60, step_ms: 60 };

    /// Fleet of this many nodes, with longer steps.
    #[must_use]
    pub fn large(nodes: usize) -> Self {
        Self { nodes: Some(nodes), seconds: 30, step_ms: 120 }
    }
}

/// Addresses given to each node at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peers {
    /// All addresses of all nodes, like a name that resolves to all of them.
    All,
    /// One address of the first node.
    First,
    /// One address of the next node.
    Next,
}

impl Peers {
    fn of(self, slot: usize, nodes: usize) -> Vec<usize> {
        match self {
            Self::All => (0..nodes * ADDRESSES_PER_NODE).collect(),
            Self::First => vec![0],
            Self::Next => vec![(slot + 1) % nodes * ADDRESSES_PER_NODE + 1],
        }
    }
}

/// Runs the schedule of a seed.
///
/// # Errors
/// The broken rule.
pub fn run_fleet(
    seed: u64,
    size: FleetSize,
    mutant: Option<FleetMutant>,
    is_traced: bool,
) -> Result<FleetOutcome, Violation> {
    let nodes = size.nodes.unwrap_or(2 + usize::try_from(seed % 7).unwrap_or_default());
    let mut world = FleetWorld::new(seed, nodes, mutant, is_traced);
    let peers = [Peers::All, Peers::First, Peers::Next][world.random.index(3)];
    // Some schedules have few faults on purpose: rare faults reveal other bugs than frequent ones.
    let harm = [u64::from(size.nodes.is_some()), 1, 3, 8][world.random.index(4)];
    let traffic = [if size.nodes.is_some() { 15 } else { 5 }, 30, 80][world.random.index(3)];
    let until_ms = world.now_ms + size.seconds * 1_000;
    if world.random.percent(50) {
        world.start_all(peers);
    }
    while world.now_ms < until_ms {
        let by_ms = 1 + world.random.below(size.step_ms);
        world.step(by_ms)?;
        world.start_some(peers);
        for _ in 0..1 + nodes / 20 {
            if world.random.percent(harm) {
                world.harm()?;
            }
            world.move_clients();
            if world.random.percent(traffic) {
                world.post_any()?;
            }
        }
    }
    world.calm(peers)?;
    Ok(world.outcome)
}

impl FleetWorld {
    fn start_some(&mut self, peers: Peers) {
        let nodes = self.running.len();
        for slot in 0..nodes {
            if self.running[slot].is_none() && (self.is_calm || self.random.percent(4)) {
                self.start_node(slot, peers);
            }
        }
    }

    /// Starts all nodes of a fleet simultaneously.
    fn start_all(&mut self, peers: Peers) {
        (0..self.running.len()).for_each(|slot| self.start_node(slot, peers));
    }

    fn start_node(&mut self, slot: usize, peers: Peers) {
        let process = self.start(slot, peers.of(slot, self.running.len()));
        for _ in 0..self.random.index(CLIENTS_PER_NODE_MAX) {
            self.connect(process);
        }
    }

    /// Random running node that is not frozen.
    fn any_node(&mut self) -> Option<usize> {
        let nodes: Vec<_> = self.alive().into_iter().filter(|process| self.is_awake(*process)).collect();
        if nodes.is_empty() { None } else { Some(nodes[self.random.index(nodes.len())]) }
    }

    fn connect(&mut self, process: usize) {
        let mut client = Client::new(self.random.index(HUBS.len()), self.random.index(NAMES));
        client.groups.extend((0..self.random.index(3)).map(|_| self.random.index(NAMES)));
        self.processes[process].add_client(client);
    }

    /// A client connects, disconnects, joins a group or leaves one.
    fn move_clients(&mut self) {
        let shaken = self.shaken.filter(|&shaken| self.is_awake(shaken) && self.random.percent(FOLLOWING_PERCENT));
        let Some(process) = shaken.or_else(|| self.any_node()) else { return };
        let count = self.processes[process].clients.len();
        let (act, index, group) = (self.random.below(10), self.random.index(count), self.random.index(NAMES));
        match act {
            0 if count < CLIENTS_PER_NODE_MAX => self.connect(process),
            1 if count > 0 => self.processes[process].remove_client(index),
            2..5 if count > 0 => {
                let node = &mut self.processes[process];
                let (hub, is_in) = (node.clients[index].hub, node.clients[index].groups.remove(&group));
                if is_in {
                    node.leave(hub, Recipients::Group(group));
                } else {
                    node.clients[index].groups.insert(group);
                    node.enter(hub, Recipients::Group(group));
                    self.joined = Some((hub, Recipients::Group(group)));
                }
            }
            _ => {}
        }
    }

    fn post_any(&mut self) -> Check {
        let Some(process) = self.any_node() else { return Ok(()) };
        let anything = (self.random.index(HUBS.len()), Recipients::any(&mut self.random));
        let (hub, to) = self.joined.filter(|_| self.random.percent(FOLLOWING_PERCENT)).unwrap_or(anything);
        let kind = if self.random.percent(25) { PostKind::Asked } else { PostKind::Relayed };
        self.post(process, hub, to, kind)
    }

    fn harm(&mut self) -> Check {
        let Some(process) = self.any_node() else { return Ok(()) };
        let now_ms = self.now_ms;
        match self.random.below(22) {
            0..9 => self.cut(process),
            9..13 => self.stall(process),
            13..16 => {
                let until_ms = now_ms + self.random.below(15_000);
                self.note(|| format!("{process} is frozen until {until_ms}"));
                self.processes[process].frozen_until_ms = until_ms;
            }
            16 => self.crash(process)?,
            17 => {
                self.note(|| format!("{process} drains"));
                self.processes[process].leaves_at_ms = now_ms + self.random.below(4_000);
                self.processes[process].phase = NodePhase::Draining;
            }
            18 => {
                let parts: Vec<_> = self.parts.iter().map(|_| self.random.below(2)).collect();
                self.note(|| format!("the network is split: {parts:?}"));
                self.parts = parts;
            }
            19 => self.parts.fill(0),
            _ => self.sever(),
        }
        Ok(())
    }

    /// Two nodes can't reach each other, but others reach both.
    fn sever(&mut self) {
        let nodes = self.running.len();
        let (one, other) = (self.random.index(nodes), self.random.index(nodes));
        let until_ms = self.now_ms + self.random.below(45_000);
        self.note(|| format!("nodes {one} and {other} don't reach each other until {until_ms}"));
        self.severed.insert((one.min(other), one.max(other)), until_ms);
    }

    fn any_socket(&mut self, process: usize) -> Option<usize> {
        let ends = self.processes[process].peers.values().flat_map(|peer| [&peer.outgoing, &peer.incoming]);
        let sockets: Vec<_> = ends.flatten().filter_map(|end| Some(end.socket?.0)).collect();
        if sockets.is_empty() { None } else { Some(sockets[self.random.index(sockets.len())]) }
    }

    fn cut(&mut self, process: usize) {
        let Some(socket) = self.any_socket(process) else { return };
        self.note(|| format!("a socket of {process} is cut"));
        self.shaken = Some(process);
        self.sockets[socket].pipe.cut(self.now_ms, &mut self.random);
    }

    fn stall(&mut self, process: usize) {
        let Some(socket) = self.any_socket(process) else { return };
        let until_ms = self.now_ms + self.random.below(20_000);
        self.note(|| format!("a socket of {process} is stalled until {until_ms}"));
        self.sockets[socket].pipe.stall(until_ms);
    }

    /// Stops the faults: within limited time, all nodes must see each other, nothing may wait, and each message must
    /// reach all clients.
    fn calm(&mut self, peers: Peers) -> Check {
        self.note(|| "calm".into());
        self.is_calm = true;
        self.parts.fill(0);
        self.severed.clear();
        for process in self.alive() {
            self.processes[process].frozen_until_ms = 0;
        }
        let until_ms = self.now_ms + CALM_MS;
        let mut settled_ms = self.now_ms;
        // By then, recent changes are announced, recent stalls detected, and old requests finished.
        while self.now_ms < settled_ms + SETTLE_MS {
            self.start_some(peers);
            self.pass(500)?;
            if let Some(problem) = self.unsettled() {
                self.note(|| format!("not settled: {problem}"));
                if self.now_ms > until_ms {
                    return broken(format!("after {CALM_MS} ms of calm {problem}"));
                }
                settled_ms = self.now_ms;
            }
        }
        self.reach_all()
    }

    fn pass(&mut self, ms: u64) -> Check {
        (0..ms / 50).try_for_each(|_| self.step(50))
    }

    /// Each client gets a message that enters at any node exactly once.
    fn reach_all(&mut self) -> Check {
        let (before, mut expected) = (self.outcome, 0);
        let alive = self.alive();
        for _ in 0..4 {
            let entry = alive[self.random.index(alive.len())];
            let (hub, to) = (self.random.index(HUBS.len()), Recipients::any(&mut self.random));
            self.post(entry, hub, to, PostKind::Asked)?;
            let post = super::post::Post { entry, number: self.processes[entry].posted, hub, to };
            let clients = alive.iter().flat_map(|process| &self.processes[*process].clients);
            expected += clients.filter(|client| client.wants(post)).count() as u64;
        }
        self.pass(ARRIVAL_MS)?;
        let (delivered, missing) = (self.outcome.delivered - before.delivered, self.outcome.missing - before.missing);
        if delivered != expected || missing > 0 {
            return broken(format!(
                "in calm {delivered} of {expected} clients are reached, {missing} nodes are missing"
            ));
        }
        Ok(())
    }

    /// Reason why the fleet is not settled, if any.
    fn unsettled(&self) -> Option<String> {
        let alive: BTreeSet<_> = self.alive().into_iter().collect();
        if alive.len() < self.running.len() {
            return Some("a node is down".into());
        }
        for &id in &alive {
            let node = &self.processes[id];
            let members = node.members();
            if node.phase == NodePhase::Draining {
                return Some(format!("{id} drains"));
            }
            if members != alive {
                let missing: Vec<_> = alive.difference(&members).collect();
                let gone: Vec<_> = members.difference(&alive).collect();
                return Some(format!("{id} misses {missing:?} and sees {gone:?}"));
            }
            if node.peers.keys().any(|(process, _)| !alive.contains(process)) {
                return Some(format!("{id} keeps a node that is gone"));
            }
            for (key, peer) in &node.peers {
                for end in [&peer.outgoing, &peer.incoming].into_iter().flatten() {
                    if end.socket.is_none() || !end.owed.is_empty() || end.lag_ms(self.now_ms) >= LATE_AFTER_MS {
                        return Some(format!("{id} and {key:?} are not in step"));
                    }
                }
                if !peer.interest.is_known(self.now_ms) {
                    return Some(format!("{id} does not know the interest of {key:?}"));
                }
            }
        }
        // Checked last, because earlier checks reveal the cause, if any.
        let differing = alive.iter().find(|id| !self.processes[**id].agreement.agrees());
        differing.map(|id| format!("{id} says that views differ"))
    }
}
