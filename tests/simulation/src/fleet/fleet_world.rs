//! All nodes of a fleet, their sockets, and time.
//!
//! ```text
//!  schedule ──► FleetWorld ──► Process ─┬─ Peer: outgoing NodeEnd ◄──► LinkSocket ◄──► incoming NodeEnd of the other
//!     posts, clients, harm              └─ clients, interest
//! ```

mod node_links;
mod node_work;
mod posting;

pub(crate) use posting::PostKind;

use std::collections::BTreeMap;

use super::fleet_mutant::FleetMutant;
use super::node_end::LinkSocket;
use super::post::{Post, Recipients};
use super::process::{ADDRESSES_PER_NODE, Contact, Process};
use crate::ledger::Check;
use crate::random::Random;

/// Reason why a session of a node link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// Verdict of the session state machine.
    Verdict(trunkline_protocol::service::SessionEndReason),
    /// The peer does not know the session.
    Refused,
    /// The peer has started a newer session.
    Superseded,
    /// The answer to its first dial was lost.
    Unanswered,
    /// The peer has ended it.
    Closed,
    /// This node leaves the fleet.
    Left,
    /// Another process answers at the address.
    Restarted,
    /// Essential messages exceed the room.
    Overfull,
}

/// Counts of a fleet's schedule, to detect schedules without events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FleetOutcome {
    /// Messages that entered the fleet.
    pub posts: u64,
    /// Messages queued for another node.
    pub queued: u64,
    /// Messages not sent to a node without interest.
    pub spared: u64,
    /// Messages dropped for lack of room.
    pub dropped: u64,
    /// Messages that reached a node without recipients.
    pub needless: u64,
    /// Deliveries to all clients.
    pub delivered: u64,
    /// Answers from other nodes.
    pub answered: u64,
    /// Nodes that did not answer.
    pub missing: u64,
    /// Sessions resumed over another socket.
    pub resumed: u64,
    /// Ended sessions of nodes that kept running.
    pub ended: u64,
    /// Messages lost with such a session.
    pub lost: u64,
    /// Messages sent because of stale interest.
    pub stale: u64,
    /// Messages for clients of another node with a confirmed membership.
    pub promised: u64,
    /// Reports by a node that views differ.
    pub disagreements: u64,
}

impl std::ops::Add for FleetOutcome {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            posts: self.posts + other.posts,
            queued: self.queued + other.queued,
            spared: self.spared + other.spared,
            dropped: self.dropped + other.dropped,
            needless: self.needless + other.needless,
            delivered: self.delivered + other.delivered,
            answered: self.answered + other.answered,
            missing: self.missing + other.missing,
            resumed: self.resumed + other.resumed,
            ended: self.ended + other.ended,
            lost: self.lost + other.lost,
            stale: self.stale + other.stale,
            promised: self.promised + other.promised,
            disagreements: self.disagreements + other.disagreements,
        }
    }
}

#[derive(Debug)]
pub(crate) struct FleetWorld {
    pub(crate) now_ms: u64,
    pub(crate) random: Random,
    pub(crate) mutant: Option<FleetMutant>,
    /// All processes that ever ran.
    pub(crate) processes: Vec<Process>,
    /// Running process of each node.
    pub(crate) running: Vec<Option<usize>>,
    pub(crate) sockets: Vec<LinkSocket>,
    /// Network partition of each node.
    pub(crate) parts: Vec<u64>,
    /// Pairs of nodes that can't reach each other, with the end time.
    pub(crate) severed: BTreeMap<(usize, usize), u64>,
    pub(crate) is_calm: bool,
    pub(crate) is_traced: bool,
    pub(crate) outcome: FleetOutcome,
    /// Process that last lost a socket. New clients preferably connect there.
    pub(crate) shaken: Option<usize>,
    /// Hub and group that a client joined last. New messages are preferably sent to it.
    pub(crate) joined: Option<(usize, Recipients)>,
    /// Number of recipients at each process of a message that requests an answer.
    pub(crate) applied: BTreeMap<(usize, usize, u64), u64>,
}

impl FleetWorld {
    pub(crate) fn new(seed: u64, nodes: usize, mutant: Option<FleetMutant>, is_traced: bool) -> Self {
        Self {
            now_ms: 1_000,
            random: Random::new(seed),
            mutant,
            processes: Vec::new(),
            running: vec![None; nodes],
            sockets: Vec::new(),
            parts: vec![0; nodes],
            severed: BTreeMap::new(),
            is_calm: false,
            is_traced,
            outcome: FleetOutcome::default(),
            shaken: None,
            joined: None,
            applied: BTreeMap::new(),
        }
    }

    pub(crate) fn is(&self, mutant: FleetMutant) -> bool {
        self.mutant == Some(mutant)
    }

    #[expect(clippy::print_stdout, reason = "the trace of a schedule that is replayed")]
    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{:>7} ms  {}", self.now_ms, text());
        }
    }

    pub(crate) fn is_awake(&self, process: usize) -> bool {
        self.processes[process].is_awake(self.now_ms)
    }

    /// Whether the network connects two processes.
    pub(crate) fn is_joined(&self, one: usize, other: usize) -> bool {
        let (one, other) = (self.processes[one].slot, self.processes[other].slot);
        let is_severed =
            self.severed.get(&(one.min(other), one.max(other))).is_some_and(|until_ms| *until_ms > self.now_ms);
        self.parts[one] == self.parts[other] && !is_severed
    }

    pub(crate) fn start(&mut self, slot: usize, addresses: impl IntoIterator<Item = usize>) -> usize {
        let id = self.processes.len();
        let mut process = Process::new(id, slot, self.now_ms);
        let given = Contact { is_given: true, ..Contact::default() };
        process.contacts.extend(addresses.into_iter().map(|address| (address, given.clone())));
        process.sweep_at_ms += self.random.below(3_000);
        self.processes.push(process);
        self.running[slot] = Some(id);
        self.note(|| format!("node {slot} starts as {id}"));
        id
    }

    pub(crate) fn crash(&mut self, id: usize) -> Check {
        self.note(|| format!("{id} is killed"));
        let now_ms = self.now_ms;
        let process = &mut self.processes[id];
        for mut end in
            std::mem::take(&mut process.peers).into_values().flat_map(|peer| [peer.outgoing, peer.incoming]).flatten()
        {
            end.detach(&mut self.sockets, now_ms, &mut self.random)?;
        }
        self.bury(id);
        Ok(())
    }

    /// Removes the state of a process.
    pub(crate) fn bury(&mut self, id: usize) {
        let process = &mut self.processes[id];
        (process.is_alive, process.clients) = (false, Vec::new());
        process.contacts.clear();
        process.asks.clear();
        if self.running[process.slot] == Some(id) {
            self.running[process.slot] = None;
        }
    }

    pub(crate) fn alive(&self) -> Vec<usize> {
        self.running.iter().flatten().copied().collect()
    }

    /// Advances time and lets each running node work.
    pub(crate) fn step(&mut self, by_ms: u64) -> Check {
        self.now_ms += by_ms;
        let mut alive = self.alive();
        if !alive.is_empty() {
            let first = self.random.index(alive.len());
            alive.rotate_left(first);
        }
        for process in alive {
            if self.is_awake(process) {
                self.work(process)?;
            }
        }
        Ok(())
    }

    pub(crate) fn at(&self, address: usize) -> Option<usize> {
        *self.running.get(address / ADDRESSES_PER_NODE)?
    }

    /// Ledger key of a message's result at a process.
    pub(crate) fn applied_key(process: usize, post: Post) -> (usize, usize, u64) {
        (process, post.entry, post.number)
    }
}
