//! Schedule of moves: half a minute of traffic and faults, then a calm phase after which remaining connections must be
//! intact.

use super::letter::ConnectionNumber;
use super::move_app::{SENDERS, SenderStep};
use super::move_mutant::MoveMutant;
use super::move_world::{Event, Harm, MoveOutcome, MoveWorld};
use super::visitor::VisitorStage;
use crate::ledger::{Check, Violation, broken};

/// Duration after which all waits have ended: absences, and app servers waiting for a connection's node.
const CALM_MS: u64 = 70_000;

/// How long a draining node waits for its clients to leave.
const DRAIN_MS: u64 = 25_000;

/// Runs the schedule of a seed.
///
/// # Errors
/// The broken rule.
pub fn run_moves(seed: u64, mutant: Option<MoveMutant>, is_traced: bool) -> Result<MoveOutcome, Violation> {
    let mut world = MoveWorld::new(seed, mutant, is_traced);
    world.note(|| format!("{:?}", world.harm));
    (0..2 + world.random.index(3)).for_each(|slot| world.start_node(slot));
    for visitor in 0..world.visitors.len() {
        world.after(0, Event::Visit { visitor });
        let first_ms = world.random.below(1_000);
        world.after(first_ms, Event::Acknowledge { visitor });
    }
    for app in 0..world.apps.len() {
        (0..SENDERS).for_each(|sender| world.after(0, Event::Send { app, sender }));
    }
    world.after(0, Event::Fault);
    let until_ms = 5_000 + world.random.below(20_000);
    world.run_until(until_ms)?;
    world.note(|| "calm".into());
    world.is_calm = true;
    world.run_until(until_ms + CALM_MS)?;
    world.check_rest()?;
    Ok(world.outcome)
}

impl MoveWorld {
    /// Injects a fault and schedules the next one.
    pub(super) fn fault(&mut self) {
        if self.is_calm {
            return;
        }
        match self.random.below(20) {
            0 => self.drain_any(),
            1 if self.harm == Harm::Deadly => self.kill_any(),
            2 => self.replace_links(),
            _ => self.cut_any(),
        }
        let pause_ms = [100, 600, 2_500][self.random.index(3)];
        let next_ms = self.random.below(pause_ms);
        self.after(1 + next_ms, Event::Fault);
    }

    fn cut_any(&mut self) {
        let visitor = self.random.index(self.visitors.len());
        let state = &self.visitors[visitor];
        let is_fair = state.stage == VisitorStage::Connected || self.harm != Harm::Gentle;
        if let Some(socket) = state.socket.filter(|_| is_fair) {
            self.note(|| format!("the socket of client {visitor} is cut"));
            self.cut(socket);
        }
    }

    fn drain_any(&mut self) {
        let alive = self.alive();
        let ready: Vec<_> = alive.into_iter().filter(|node| self.nodes[*node].drains_until_ms.is_none()).collect();
        if ready.len() > 1 {
            let node = ready[self.random.index(ready.len())];
            self.note(|| format!("node {node} drains"));
            self.nodes[node].drains_until_ms = Some(self.now_ms + DRAIN_MS);
        }
    }

    fn kill_any(&mut self) {
        let alive = self.alive();
        if alive.len() > 1 {
            let node = alive[self.random.index(alive.len())];
            self.kill(node);
        }
    }

    /// Checks the result after the calm phase: each client has one intact connection, and there are no others.
    fn check_rest(&self) -> Check {
        let mut open = Vec::new();
        for (visitor, state) in self.visitors.iter().enumerate() {
            let Some(connection) = state.connection.filter(|_| state.stage == VisitorStage::Connected) else {
                return broken(format!("client {visitor} has no connection: {:?}", state.stage));
            };
            open.push(connection);
            self.check_whole(visitor, connection)?;
        }
        for (node, state) in self.nodes.iter().enumerate().filter(|(_, state)| state.is_alive) {
            if let Some(kept) = state.connections.keys().find(|connection| !open.contains(connection)) {
                return broken(format!("node {node} keeps connection {kept}"));
            }
            if !state.take_overs.is_empty() || !state.reserved.is_empty() {
                return broken(format!("node {node} still waits for a connection"));
            }
        }
        for (app, state) in self.apps.iter().enumerate() {
            if let Some(kept) = state.connections.keys().find(|connection| !open.contains(connection)) {
                return broken(format!("app server {app} keeps connection {kept}"));
            }
            if state.senders.iter().any(|sender| sender.step != SenderStep::Idle) {
                return broken(format!("a sender of app server {app} waits for ever"));
            }
            if !state.waiting.is_empty() || !state.answering.is_empty() {
                return broken(format!("app server {app} does not answer a move"));
            }
        }
        let untold = self.fates.iter().position(|fate| fate.is_opened && !fate.is_ended);
        match untold.filter(|connection| !open.contains(connection)) {
            Some(connection) => broken(format!("nobody is told that connection {connection} has ended")),
            None => Ok(()),
        }
    }

    /// Checks that a connection is at exactly one node and its app server, and that all messages have arrived.
    fn check_whole(&self, visitor: usize, connection: ConnectionNumber) -> Check {
        let holders: Vec<_> = (0..self.nodes.len()).filter(|node| self.nodes[*node].owns(connection)).collect();
        let [node] = holders.as_slice() else {
            return broken(format!("connection {connection} is at the nodes {holders:?}"));
        };
        let held = self.nodes[*node].connections.get(&connection);
        let Some(held) = held.filter(|held| held.ownership.is_owned() && held.socket.is_some()) else {
            return broken(format!("connection {connection} is not served by node {node}"));
        };
        let (state, app) = (&self.visitors[visitor], held.app);
        let Some(known) = self.apps[app].connections.get(&connection) else {
            return broken(format!("app server {app} does not know connection {connection}"));
        };
        if known.received != state.made {
            return broken(format!("{} of {} messages of client {visitor} have come", known.received, state.made));
        }
        for ((from, sender), seen) in state.seen.iter().filter(|((_, sender), _)| *sender < SENDERS) {
            let sent = self.apps[*from].senders[*sender].many;
            if seen.many != Some(sent) {
                return broken(format!("client {visitor} has got {seen:?} of {sent} messages to many"));
            }
        }
        for (sender, sent) in known.alone.iter().enumerate() {
            let got = state.seen.get(&(app, sender)).map_or(0, |seen| seen.alone);
            if got != *sent {
                return broken(format!("client {visitor} has got {got} of {sent} messages to it alone"));
            }
        }
        Ok(())
    }
}
