//! Takeover of a client that reconnected elsewhere: the new owner requests the connection, the old one releases it.

use trunkline_protocol::fleet::{MoveStep, MovedState, MovingConnection, Ownership};

use super::{Event, MoveWorld};
use crate::ledger::{Check, broken};
use crate::moves::letter::{BetweenNodes, ConnectionNumber, NodeNumber, OverSocket, ToApp};
use crate::moves::move_mutant::MoveMutant;
use crate::moves::move_node::{DISCONNECT_TIMEOUT_S, HeldConnection, TakeOver, TakeOverStage};

/// Time limit for other nodes to answer whether they have a connection.
const LOOK_TIMEOUT_MS: u64 = 2_000;

/// Time limit for the old owner to release a connection's state.
const TAKE_TIMEOUT_MS: u64 = 5_000;

impl MoveWorld {
    /// Claims a connection for its client's new socket, here or at another node.
    pub(super) fn claim(&mut self, node: NodeNumber, connection: ConnectionNumber, socket: usize) {
        let claims_all = self.is(MoveMutant::ClaimsWhileDeparting);
        let held = self.nodes[node].held(connection);
        let may_claim = |it: &Ownership<usize>| it.is_owned() || (claims_all && !it.is_arriving());
        if let Some(held) = held {
            if may_claim(&held.ownership) {
                self.sever(node, connection);
                return self.hand_over(node, connection, socket);
            }
            if held.ownership.is_given() {
                // The new owner already has it, but this node was not notified yet.
                self.excuse(connection);
            }
            return self.refuse(socket);
        }
        if self.nodes[node].reserved.contains_key(&connection) {
            return self.refuse(socket);
        }
        self.nodes[node].reserved.insert(connection, socket);
        let open: Vec<_> = self.alive().into_iter().filter(|other| *other != node).collect();
        if open.is_empty() {
            self.nodes[node].reserved.remove(&connection);
            return self.refuse(socket);
        }
        let question = self.ask(node, &open, MoveStep::Inspect, connection, LOOK_TIMEOUT_MS);
        let stage = TakeOverStage::Looking(open.into_iter().collect());
        self.nodes[node].take_overs.insert(question, TakeOver { connection, socket, stage });
    }

    fn refuse(&mut self, socket: usize) {
        self.outcome.refused += 1;
        self.write(socket, false, OverSocket::Refused);
    }

    /// Hands a returning client's socket to its connection.
    fn hand_over(&mut self, node: NodeNumber, connection: ConnectionNumber, socket: usize) {
        let Some(serial) = self.nodes[node].held(connection).map(|held| held.serial) else { return };
        let wait_ms = self.random.below(10);
        self.after(wait_ms, Event::ComeBack { node, connection, serial, socket });
    }

    fn ask(
        &mut self,
        node: NodeNumber,
        asked: &[NodeNumber],
        step: MoveStep,
        connection: ConnectionNumber,
        within_ms: u64,
    ) -> u64 {
        self.questions += 1;
        let question = self.questions;
        for other in asked {
            self.between(node, *other, BetweenNodes::Asks { question, step, connection });
        }
        self.after(within_ms, Event::Unanswered { node, question });
        question
    }

    pub(super) fn unanswered(&mut self, node: NodeNumber, question: u64) {
        if let Some(take_over) = self.nodes[node].take_overs.remove(&question) {
            self.fail(node, &take_over);
        }
    }

    fn fail(&mut self, node: NodeNumber, take_over: &TakeOver) {
        let connection = take_over.connection;
        self.nodes[node].reserved.retain(|_, waiting| *waiting != take_over.socket);
        self.refuse(take_over.socket);
        if let TakeOverStage::Taking = take_over.stage
            && !self.is(MoveMutant::KeepsArrivals)
            && self.nodes[node].held(connection).is_some_and(|held| held.ownership.is_arriving())
        {
            self.outcome.withdrawn += 1;
            self.note(|| format!("{connection} does not arrive at node {node}"));
            self.close(node, connection, None);
        }
    }

    pub(super) fn node_hears(&mut self, from: NodeNumber, to: NodeNumber, letter: BetweenNodes) -> Check {
        if !self.nodes[to].is_alive {
            return Ok(());
        }
        match letter {
            BetweenNodes::Asks { question, step: MoveStep::Inspect, connection } => {
                self.inspect(to, from, question, connection)
            }
            BetweenNodes::Asks { question, step: MoveStep::Take, connection } => {
                self.depart(to, from, question, connection);
            }
            BetweenNodes::Asks { step: MoveStep::Arrived, connection, .. } => {
                if self.nodes[to].held(connection).is_some_and(|held| held.ownership.is_given()) {
                    let notice = self.is(MoveMutant::ClosesWhatHasMoved).then_some(ToApp::Closed);
                    self.close(to, connection, notice);
                }
            }
            BetweenNodes::Answers { question, state } => return self.answered(from, to, question, state),
        }
        Ok(())
    }

    /// Describes a connection that another node is about to take over.
    fn inspect(&mut self, node: NodeNumber, asker: NodeNumber, question: u64, connection: ConnectionNumber) {
        let cuts = !self.is(MoveMutant::LooksWithoutCut);
        let held = self.nodes[node].held(connection).filter(|held| held.ownership.is_owned());
        let Some((app, is_away)) = held.map(|held| (held.app, held.ownership.absence().is_some())) else {
            return self.answer(node, asker, question, None);
        };
        if !is_away && cuts {
            self.sever(node, connection);
        }
        let moving = MovingConnection { app_server: app.to_string().into(), ..MovingConnection::default() };
        self.answer(node, asker, question, Some(moving.encode()));
    }

    fn depart(&mut self, node: NodeNumber, asker: NodeNumber, question: u64, connection: ConnectionNumber) {
        let gives_twice = self.is(MoveMutant::GivesTwice);
        let (tick, apps) = (self.nodes[node].tick, self.apps.len());
        let Some(held) = self.nodes[node].held(connection) else {
            return self.answer(node, asker, question, None);
        };
        if gives_twice && !held.takers.is_empty() {
            return held.takers.push((asker, question));
        }
        let (before, app) = (held.ownership.clone(), held.app);
        if held.ownership.depart(tick).is_none() {
            return self.answer(node, asker, question, None);
        }
        (held.takers, held.before) = (vec![(asker, question)], Some(before));
        if self.is(MoveMutant::AsksBeforeThePause) {
            if let Some(held) = self.nodes[node].held(connection) {
                held.ownership.asked((0..apps).collect());
            }
            (0..apps).for_each(|app| self.send_to_app(node, app, connection, ToApp::Move));
        }
        self.send_to_app(node, app, connection, ToApp::Pause);
    }

    /// Handles the app server's confirmation that it sends no further client-only frames here; now all app servers are
    /// asked for their epochs.
    pub(super) fn departure_paused(&mut self, node: NodeNumber, connection: ConnectionNumber) {
        let (own_only, is_hasty) = (self.is(MoveMutant::AsksOwnAppOnly), self.is(MoveMutant::LeavesBeforeAnswers));
        let apps = self.apps.len();
        let Some(held) = self.nodes[node].held(connection) else { return };
        if !held.ownership.pause_acknowledged() {
            return;
        }
        let asked: Vec<_> = (0..apps).filter(|app| !own_only || *app == held.app).collect();
        held.ownership.asked(if is_hasty { Vec::new() } else { asked.clone() });
        asked.into_iter().for_each(|app| self.send_to_app(node, app, connection, ToApp::Move));
        self.let_go_if_ready(node, connection);
    }

    pub(super) fn let_go_if_ready(&mut self, node: NodeNumber, connection: ConnectionNumber) {
        let tick = self.nodes[node].tick;
        let shift = i64::from(self.is(MoveMutant::BeginsTooLate)) - i64::from(self.is(MoveMutant::BeginsTooEarly));
        let loses_held = self.is(MoveMutant::LeavesHeldFrames);
        let Some(held) = self.nodes[node].held(connection) else { return };
        let Some((mut state, epochs)) = held.ownership.let_go(tick) else { return };
        state.epochs = epochs.into_iter().map(|(app, epoch)| (app.to_string().into(), epoch + shift)).collect();
        if loses_held {
            state.held.clear();
        }
        let state = state.encode();
        for (taker, question) in std::mem::take(&mut held.takers) {
            self.note(|| format!("node {node} gives {connection} to {taker}"));
            self.answer(node, taker, question, Some(state.clone()));
        }
    }

    /// Handles another node's answer in a takeover.
    fn answered(&mut self, from: NodeNumber, node: NodeNumber, question: u64, answer: Option<bytes::Bytes>) -> Check {
        let Some(take_over) = self.nodes[node].take_overs.get_mut(&question) else { return Ok(()) };
        if let (TakeOverStage::Looking(open), None) = (&mut take_over.stage, &answer) {
            open.remove(&from);
            if !open.is_empty() {
                return Ok(());
            }
        }
        let Some(take_over) = self.nodes[node].take_overs.remove(&question) else { return Ok(()) };
        match (&take_over.stage, answer) {
            (TakeOverStage::Looking(_), Some(moving)) => self.arrive(from, node, take_over, &moving),
            (TakeOverStage::Taking, Some(state)) => self.settle(from, node, &take_over, &state),
            (_, None) => {
                self.fail(node, &take_over);
                Ok(())
            }
        }
    }

    /// Registers an arriving connection and requests its state.
    fn arrive(&mut self, owner: NodeNumber, node: NodeNumber, take_over: TakeOver, moving: &bytes::Bytes) -> Check {
        let Ok(moving) = MovingConnection::decode(moving) else { return broken("a connection can't be read") };
        let TakeOver { connection, socket, .. } = take_over;
        if self.nodes[node].connections.contains_key(&connection) {
            self.nodes[node].reserved.retain(|_, waiting| *waiting != socket);
            self.refuse(socket);
            return Ok(());
        }
        let (serial, tick) = (self.nodes[node].next_serial(), self.nodes[node].tick);
        let (ownership, check_at) = Ownership::arriving(self.limit_bytes, tick);
        let app = moving.app_server.parse().unwrap_or_default();
        let (takers, mark, before) = (Vec::new(), None, None);
        let held = HeldConnection { ownership, app, socket: None, serial, check_at, takers, mark, before };
        self.nodes[node].connections.insert(connection, held);
        let question = self.ask(node, &[owner], MoveStep::Take, connection, TAKE_TIMEOUT_MS);
        let stage = TakeOverStage::Taking;
        self.nodes[node].take_overs.insert(question, TakeOver { connection, socket, stage });
        Ok(())
    }

    /// Takes the state of a connection, which is now here.
    fn settle(&mut self, owner: NodeNumber, node: NodeNumber, take_over: &TakeOver, state: &bytes::Bytes) -> Check {
        let Ok(mut state) = MovedState::decode(state) else { return broken("a state can't be read") };
        let connection = take_over.connection;
        let until = self.nodes[node].tick + DISCONNECT_TIMEOUT_S;
        let epochs = state.epochs.iter().map(|(app, epoch)| (app.parse().unwrap_or_default(), *epoch)).collect();
        if self.is(MoveMutant::CountsFromOneAgain) {
            state.received = 0;
        }
        let held = self.nodes[node].held(connection);
        let settled = held.and_then(|held| held.ownership.settle(state, epochs, until).then_some(held.app));
        let Some(app) = settled else {
            self.excuse_harm(connection);
            self.fail(node, take_over);
            return Ok(());
        };
        self.outcome.moved += 1;
        self.note(|| format!("{connection} has arrived at node {node}"));
        self.send_to_app(node, app, connection, ToApp::Resume);
        self.between(node, owner, BetweenNodes::Asks { question: 0, step: MoveStep::Arrived, connection });
        self.nodes[node].reserved.retain(|_, waiting| *waiting != take_over.socket);
        self.hand_over(node, connection, take_over.socket);
        self.check_owners(connection)
    }
}
