//! Work of a node: its links, and messages sent and received.

use trunkline_protocol::fleet::{BEAT_INTERVAL_MS, NodeMessage};
use trunkline_protocol::service::{SessionEvent, SessionId};

use super::{FleetWorld, LinkEnd};
use crate::fleet::fleet_mutant::FleetMutant;
use crate::fleet::node_end::Arrival;
use crate::fleet::process::{Direction, MemberKey};
use crate::ledger::{Check, broken};

/// Time after which a member without links is removed.
const GONE_AFTER_MS: u64 = 5_000;

/// Interval of a node's sweeps.
const SWEEP_INTERVAL_MS: u64 = 3_000;

/// Probability that an end reads in a step, in percent.
const READ_PERCENT: u64 = 70;

/// Probability that an end takes delivered frames in a step, in percent.
const TAKE_PERCENT: u64 = 50;

impl FleetWorld {
    pub(super) fn work(&mut self, process: usize) -> Check {
        if self.processes[process].leaves_at_ms <= self.now_ms {
            return self.depart(process);
        }
        // Additions are announced with a short delay.
        if self.random.percent(80) {
            self.announce_interest(process)?;
        }
        if self.processes[process].beat_at_ms <= self.now_ms {
            self.beat(process)?;
        }
        for (key, direction) in self.due_ends(process) {
            self.drive(process, key, direction)?;
        }
        self.dial_all(process)?;
        self.close_asks(process)
    }

    fn due_ends(&self, process: usize) -> Vec<(MemberKey, Direction)> {
        let mut due = Vec::new();
        for (key, peer) in &self.processes[process].peers {
            for (end, direction) in [(&peer.outgoing, Direction::Outgoing), (&peer.incoming, Direction::Incoming)] {
                if end.as_ref().is_some_and(|end| end.is_due(&self.sockets, self.now_ms)) {
                    due.push((*key, direction));
                }
            }
        }
        due
    }

    /// Leaves the fleet, ending all links gracefully.
    fn depart(&mut self, process: usize) -> Check {
        self.note(|| format!("{process} leaves"));
        for key in self.processes[process].keys() {
            for direction in [Direction::Outgoing, Direction::Incoming] {
                self.end_link(process, key, direction, LinkEnd::Left)?;
            }
        }
        self.bury(process);
        Ok(())
    }

    fn announce_interest(&mut self, process: usize) -> Check {
        let (now_ms, mutant) = (self.now_ms, self.mutant);
        let node = &mut self.processes[process];
        let round = node.take_news(now_ms);
        for update in &round.updates {
            self.send_to_members(process, &NodeMessage::Interest(update.clone()))?;
        }
        let node = &mut self.processes[process];
        node.await_peers(round, now_ms, mutant);
        let mut updates = Vec::new();
        if node.sweep_at_ms <= now_ms {
            node.sweep_at_ms = now_ms + SWEEP_INTERVAL_MS;
            updates.extend(node.sweep(now_ms, mutant));
        }
        for update in updates {
            self.send_to_members(process, &NodeMessage::Interest(update))?;
        }
        Ok(())
    }

    fn send_to_members(&mut self, process: usize, message: &NodeMessage) -> Check {
        for key in self.processes[process].keys() {
            self.notify(process, key, Direction::Outgoing, message)?;
        }
        Ok(())
    }

    /// Sends an essential message to a peer. A link without room for it is given up, and the next one sends everything
    /// again.
    pub(super) fn notify(
        &mut self,
        process: usize,
        key: MemberKey,
        direction: Direction,
        message: &NodeMessage,
    ) -> Check {
        let mutant = self.mutant;
        let forgets = mutant == Some(FleetMutant::ForgetsNewsWithoutSocket);
        let Some(end) = self.processes[process].end(key, direction) else { return Ok(()) };
        if forgets && end.socket.is_none() && matches!(message, NodeMessage::Interest(_)) {
            return Ok(());
        }
        if end.notify(message, mutant)? {
            return Ok(());
        }
        self.end_link(process, key, direction, LinkEnd::Overfull)
    }

    /// Sends beats and its state to all peers, and detects lost ones.
    fn beat(&mut self, process: usize) -> Check {
        let (now_ms, mutant) = (self.now_ms, self.mutant);
        let node = &mut self.processes[process];
        node.beat_at_ms = now_ms + BEAT_INTERVAL_MS;
        if mutant != Some(FleetMutant::KeepsTheGone) {
            node.peers.retain(|_, peer| {
                peer.outgoing.is_some() || peer.incoming.is_some() || peer.met_ms + GONE_AFTER_MS > now_ms
            });
        }
        for end in node.peers.values_mut().flat_map(|peer| [&mut peer.outgoing, &mut peer.incoming]).flatten() {
            end.beat(now_ms);
        }
        let state = NodeMessage::State(node.state(mutant));
        let change = node.agree(now_ms, mutant);
        if let Some(agrees) = change {
            self.outcome.disagreements += u64::from(!agrees);
            self.note(|| format!("{process}: all see the same members: {agrees}"));
        }
        for key in self.processes[process].keys() {
            if self.processes[process].is_linked(key) {
                self.notify(process, key, Direction::Outgoing, &state)?;
            }
        }
        self.greet_again(process)
    }

    /// Timeouts, reading and writing of one end of a link.
    fn drive(&mut self, process: usize, key: MemberKey, direction: Direction) -> Check {
        let (now_ms, mutant) = (self.now_ms, self.mutant);
        let is_joined = self.is_joined(process, key.0);
        let Some(end) = self.processes[process].end(key, direction) else { return Ok(()) };
        let is_due = end.session.poll_timeout().is_some_and(|at_ms| at_ms <= now_ms);
        match if is_due { end.session.handle_timeout(now_ms) } else { None } {
            Some(SessionEvent::PeerSilent) => end.detach(&mut self.sockets, now_ms, &mut self.random)?,
            Some(SessionEvent::End(reason)) => {
                return self.end_link(process, key, direction, LinkEnd::Verdict(reason));
            }
            None => {}
        }
        let Some(end) = self.processes[process].end(key, direction) else { return Ok(()) };
        let Some((socket, _)) = end.socket else { return Ok(()) };
        let session = end.session.id();
        if self.random.percent(TAKE_PERCENT) {
            end.take(now_ms);
        }
        let mut arrivals = Vec::new();
        if is_joined && self.random.percent(READ_PERCENT) {
            arrivals = end.read(&mut self.sockets, now_ms, &mut self.random, mutant)?;
        }
        let has_ended = is_joined && end.is_at_end(&self.sockets, now_ms);
        end.transmit(&mut self.sockets, now_ms);
        if has_ended && !self.sockets[socket].is_over {
            end.detach(&mut self.sockets, now_ms, &mut self.random)?;
        }
        for arrival in arrivals {
            self.handle(process, key, direction, session, arrival)?;
        }
        if has_ended && self.sockets[socket].is_over {
            self.end_link(process, key, direction, LinkEnd::Closed)?;
        }
        Ok(())
    }

    fn handle(
        &mut self,
        process: usize,
        key: MemberKey,
        direction: Direction,
        session: SessionId,
        arrival: Arrival,
    ) -> Check {
        match arrival {
            Arrival::Answered { number, asked_ms } => {
                match direction {
                    Direction::Incoming => self.confirm(process, key, asked_ms),
                    Direction::Outgoing => self.processes[process].ack_tracker.answered(&key.0, number),
                }
                Ok(())
            }
            Arrival::Echoed => {
                if direction == Direction::Outgoing {
                    self.processes[process].echoed.insert(key.0, self.now_ms);
                }
                Ok(())
            }
            Arrival::Body(body) => {
                let message = NodeMessage::decode(&body).or_else(|error| broken(format!("{error}")))?;
                match message {
                    Some(message) => self.handle_message(process, key, direction, session, message),
                    None => broken("an unknown node message"),
                }
            }
        }
    }

    /// The peer's interest is complete as of this time.
    fn confirm(&mut self, process: usize, key: MemberKey, asked_ms: u64) {
        let (now_ms, mutant) = (self.now_ms, self.mutant);
        let peer = self.processes[process].peers.entry(key).or_default();
        peer.taken.asked_ms = peer.taken.asked_ms.max(Some(asked_ms));
        peer.interest.confirm(if mutant == Some(FleetMutant::ConfirmsAtTheAnswer) { now_ms } else { asked_ms });
    }

    fn handle_message(
        &mut self,
        process: usize,
        key: MemberKey,
        direction: Direction,
        session: SessionId,
        message: NodeMessage,
    ) -> Check {
        match (message, direction) {
            (NodeMessage::Relay { hub, frame }, Direction::Incoming) => {
                self.apply(process, key, session, &hub, &frame).map(|_| ())
            }
            (NodeMessage::Ask { question, hub, frame }, Direction::Incoming) => {
                let answer = self.apply(process, key, session, &hub, &frame)?;
                let question = if self.is(FleetMutant::AnswersAnotherQuestion) { question - 1 } else { question };
                let answer = NodeMessage::Answer { question, frame: Some(answer) };
                self.notify(process, key, Direction::Incoming, &answer)
            }
            (NodeMessage::Answer { question, frame: Some(frame) }, Direction::Outgoing) => {
                self.take_answer(process, key, question, &frame)
            }
            (NodeMessage::State(state), Direction::Incoming) => {
                self.processes[process].peers.entry(key).or_default().view = Some(state.view);
                Ok(())
            }
            (NodeMessage::Interest(update), Direction::Incoming) => {
                let peer = self.processes[process].peers.entry(key).or_default();
                peer.taken.take(&update);
                peer.interest.apply(update);
                Ok(())
            }
            (other, direction) => broken(format!("{} over the {direction:?} link of {key:?}", other.name())),
        }
    }
}
