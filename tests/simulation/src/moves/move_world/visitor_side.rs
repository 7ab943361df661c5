//! Clients: send, acknowledge, reconnect after broken sockets, and start a new connection when refused.

use super::{ClientSocket, ConnectionFate, Event, Harm, MoveWorld};
use crate::ledger::{Check, broken};
use crate::moves::letter::{Numbered, OverSocket};
use crate::moves::visitor::VisitorStage;

/// Reconnect attempts before a client starts a new connection.
const TRIES_MAX: u32 = 3;

impl MoveWorld {
    pub(super) fn visit(&mut self, visitor: usize) {
        match self.visitors[visitor].stage {
            VisitorStage::Out => self.knock(visitor),
            VisitorStage::Connected if self.random.below(400) == 0 && !self.is_calm => self.send_goodbye(visitor),
            VisitorStage::Connected if !self.is_calm => self.speak(visitor),
            VisitorStage::Knocking { .. } | VisitorStage::Connected => {}
        }
        let wait_ms = if self.is_calm { 500 } else { 1 + self.random.below(120) };
        self.after(wait_ms, Event::Visit { visitor });
    }

    fn speak(&mut self, visitor: usize) {
        let message = self.visitors[visitor].next_message();
        if let Some(socket) = self.visitors[visitor].socket {
            self.write(socket, true, OverSocket::Message(message));
        }
    }

    fn send_goodbye(&mut self, visitor: usize) {
        let Some(socket) = self.visitors[visitor].socket else { return };
        self.write(socket, true, OverSocket::Goodbye);
        self.begin_anew(visitor);
    }

    /// Gives its connection up, so that the next attempt starts a new one.
    pub(super) fn begin_anew(&mut self, visitor: usize) {
        if let Some(connection) = self.visitors[visitor].connection {
            self.note(|| format!("client {visitor} leaves {connection}"));
            self.excuse(connection);
        }
        self.visitors[visitor].begin_anew();
    }

    /// Opens a socket to any node, for a new or its existing connection.
    fn knock(&mut self, visitor: usize) {
        let returns = self.visitors[visitor].connection.is_some();
        let is_open = |node: &usize| returns || self.nodes[*node].drains_until_ms.is_none();
        let nodes: Vec<_> = self.alive().into_iter().filter(is_open).collect();
        if nodes.is_empty() {
            return;
        }
        let (node, socket) = (nodes[self.random.index(nodes.len())], self.sockets.len());
        self.sockets.push(ClientSocket { visitor, node, serves: None, is_over: false });
        let state = &mut self.visitors[visitor];
        (state.stage, state.socket) = (VisitorStage::Knocking { returns }, Some(socket));
        state.attempt += 1;
        let attempt = state.attempt;
        let letter = match state.connection {
            Some(connection) => OverSocket::Return(connection),
            None => {
                let connection = self.fates.len();
                state.connection = Some(connection);
                self.fates.push(ConnectionFate::default());
                OverSocket::Begin(connection)
            }
        };
        self.note(|| format!("client {visitor} knocks at node {node}: {letter:?}"));
        self.write(socket, true, letter);
        let patience_ms = match self.random.below(4) {
            _ if self.harm == Harm::Gentle || self.is_calm => 20_000,
            0 => 20 + self.random.below(200),
            _ => 300 + self.random.below(8_000),
        };
        self.after(patience_ms, Event::Impatient { visitor, attempt });
    }

    pub(super) fn lose_patience(&mut self, visitor: usize, attempt: u64) {
        let state = &self.visitors[visitor];
        if state.attempt == attempt
            && let (VisitorStage::Knocking { .. }, Some(socket)) = (state.stage, state.socket)
        {
            self.cut(socket);
            self.visitor_loses_socket(socket);
        }
    }

    pub(super) fn visitor_loses_socket(&mut self, socket: usize) {
        let visitor = self.sockets[socket].visitor;
        let state = &mut self.visitors[visitor];
        if state.socket != Some(socket) {
            return;
        }
        state.socket = None;
        state.tries += 1;
        if state.stage == (VisitorStage::Knocking { returns: false }) || state.tries > TRIES_MAX {
            return self.begin_anew(visitor);
        }
        state.stage = VisitorStage::Out;
        self.knock(visitor);
    }

    pub(super) fn visitor_reads(&mut self, socket: usize, letter: OverSocket) -> Check {
        let visitor = self.sockets[socket].visitor;
        let state = &mut self.visitors[visitor];
        if state.socket != Some(socket) {
            return Ok(());
        }
        match letter {
            OverSocket::Accepted => self.enter(visitor, socket),
            OverSocket::Refused | OverSocket::Goodbye => return self.turn_away(visitor),
            OverSocket::Sequence(number) if state.received.begin_at(number).is_err() => {
                return broken(format!("client {visitor} is sent message {number} next, behind a gap"));
            }
            OverSocket::Ack(number) => state.sent.acknowledge(number),
            OverSocket::Message(frame) => {
                if !state.received.take_message() {
                    self.outcome.again += 1;
                    return Ok(());
                }
                self.outcome.down += 1;
                let message = Numbered::read(&frame);
                let taken = state.take(message);
                return taken;
            }
            OverSocket::Sequence(_) | OverSocket::Begin(_) | OverSocket::Return(_) => {}
        }
        Ok(())
    }

    fn enter(&mut self, visitor: usize, socket: usize) {
        let state = &mut self.visitors[visitor];
        let returns = state.stage == (VisitorStage::Knocking { returns: true });
        (state.stage, state.tries) = (VisitorStage::Connected, 0);
        if !returns {
            return;
        }
        let (sequence, frames) = (state.sent.sequence(), state.sent.frames().cloned().collect::<Vec<_>>());
        self.write(socket, true, OverSocket::Sequence(sequence));
        for frame in frames {
            self.write(socket, true, OverSocket::Message(frame));
        }
    }

    /// Handles a refusal or a closed connection: the client starts a new one.
    fn turn_away(&mut self, visitor: usize) -> Check {
        let connection = self.visitors[visitor].connection.filter(|connection| !self.fates[*connection].may_end);
        let returns = self.visitors[visitor].stage != (VisitorStage::Knocking { returns: false });
        if let Some(connection) = connection.filter(|_| returns && self.harm == Harm::Gentle) {
            return broken(format!("client {visitor} is turned away from {connection}, and nobody has ended it"));
        }
        self.begin_anew(visitor);
        Ok(())
    }

    pub(super) fn acknowledge(&mut self, visitor: usize) {
        let state = &mut self.visitors[visitor];
        if let (VisitorStage::Connected, Some(socket)) = (state.stage, state.socket)
            && let Some(number) = state.received.acknowledgement()
        {
            self.write(socket, true, OverSocket::Ack(number));
        }
        // Official clients acknowledge once a second; in the calm phase, waiting messages have to arrive sooner.
        let wait_ms = if self.is_calm { 50 } else { 1_000 };
        self.after(wait_ms, Event::Acknowledge { visitor });
    }
}
