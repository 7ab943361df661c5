//! Nodes: sockets, sends, time, and their own end.

use trunkline_protocol::cause::Cause;
use trunkline_protocol::fleet::{Ownership, Placement, SendOrigin};

use super::{Event, Harm, Lane, MoveWorld};
use crate::ledger::{Check, broken};
use crate::moves::letter::{BetweenNodes, ConnectionNumber, NodeNumber, OverSocket, ToApp, ToNode};
use crate::moves::move_mutant::MoveMutant;
use crate::moves::move_node::{DISCONNECT_TIMEOUT_S, HeldConnection, MoveNode};

impl MoveWorld {
    pub(crate) fn send_to_app(&mut self, node: NodeNumber, app: usize, connection: ConnectionNumber, letter: ToApp) {
        self.send(Lane::ToApp { app, node }, Event::ToApp { app, node, connection, letter });
    }

    pub(crate) fn write(&mut self, socket: usize, is_up: bool, letter: OverSocket) {
        if !self.sockets[socket].is_over {
            self.send(Lane::Socket { socket, is_up }, Event::Socket { socket, is_up, letter });
        }
    }

    pub(crate) fn start_node(&mut self, slot: usize) {
        let node = self.nodes.len();
        self.nodes.push(MoveNode::new());
        match self.slots.get_mut(slot) {
            Some(place) => *place = node,
            None => self.slots.push(node),
        }
        for app in &mut self.apps {
            app.links.insert(node);
        }
        let first_ms = self.random.below(1_000);
        self.after(first_ms, Event::Tick { node });
        self.note(|| format!("node {node} starts"));
    }

    pub(crate) fn kill(&mut self, node: NodeNumber) {
        self.note(|| format!("node {node} dies"));
        self.outcome.died += 1;
        let taken = self.nodes[node].take_overs.values().map(|take_over| take_over.connection);
        for connection in taken.chain(self.nodes[node].connections.keys().copied()).collect::<Vec<_>>() {
            self.excuse(connection);
        }
        for other in 0..self.nodes.len() {
            self.lose(Lane::Between { from: node, to: other });
        }
        self.bury(node, true);
    }

    /// Removes an ended node; app servers notice later.
    fn bury(&mut self, node: NodeNumber, is_dead: bool) {
        self.nodes[node].is_alive = false;
        self.nodes[node].connections.clear();
        self.nodes[node].take_overs.clear();
        for socket in 0..self.sockets.len() {
            if self.sockets[socket].node == node {
                self.cut(socket);
            }
        }
        for app in 0..self.apps.len() {
            // A node that left gracefully has already sent everything.
            if is_dead {
                let lost_ms = self.lose(Lane::ToApp { app, node }).saturating_sub(self.now_ms);
                let told_ms = self.random.below(5_000);
                self.after(lost_ms + told_ms, Event::LinkLost { app, node });
            } else {
                self.send(Lane::ToApp { app, node }, Event::LinkLost { app, node });
            }
        }
        if let Some(slot) = self.slots.iter().position(|place| *place == node) {
            let down_ms = 200 + self.random.below(4_000);
            self.after(down_ms, Event::Start { slot });
        }
    }

    pub(super) fn node_takes(&mut self, app: usize, node: NodeNumber, letter: ToNode) {
        if !self.nodes[node].is_alive {
            return;
        }
        match letter {
            ToNode::Many { epoch, frame } => {
                for connection in self.nodes[node].connections.keys().copied().collect::<Vec<_>>() {
                    self.put(node, connection, Some(SendOrigin::Sender(app, epoch)), frame.clone());
                }
            }
            ToNode::Data { connection, frame } if self.is_own(node, connection, app) => {
                self.put(node, connection, None, frame);
            }
            ToNode::Close { connection } if self.is_own(node, connection, app) => {
                self.close(node, connection, None);
            }
            ToNode::PauseAck { connection } if self.is_own(node, connection, app) => {
                self.departure_paused(node, connection);
            }
            ToNode::Moved { connection, epoch } => {
                if let Some(held) = self.nodes[node].held(connection) {
                    held.ownership.answered(app, epoch);
                }
                self.let_go_if_ready(node, connection);
            }
            ToNode::Mark { connection, number, links } if self.is_own(node, connection, app) && links == self.links => {
                if let Some(held) = self.nodes[node].held(connection) {
                    held.mark = Some(number);
                }
                self.confirm_mark(node, connection);
            }
            ToNode::Data { .. } | ToNode::Close { .. } | ToNode::PauseAck { .. } | ToNode::Mark { .. } => {}
        }
    }

    fn is_own(&self, node: NodeNumber, connection: ConnectionNumber, app: usize) -> bool {
        self.nodes[node].connections.get(&connection).is_some_and(|held| held.app == app)
    }

    /// Passes a frame to a connection, and to its client if it can be sent immediately.
    fn put(
        &mut self,
        node: NodeNumber,
        connection: ConnectionNumber,
        origin: Option<SendOrigin<usize>>,
        frame: bytes::Bytes,
    ) {
        let (drops, forgets) = (self.is(MoveMutant::DropsWhileArriving), self.is(MoveMutant::ForgetsEpochs));
        let Some(held) = self.nodes[node].held(connection) else { return };
        if drops && held.ownership.is_arriving() {
            return;
        }
        let origin = match origin {
            Some(SendOrigin::Sender(app, _)) if forgets && held.ownership.is_owned() => {
                Some(SendOrigin::Sender(app, i64::MAX))
            }
            origin => origin,
        };
        let placement = held.ownership.place(frame.clone(), 1, origin, |_| true);
        if let (Placement::Kept, Some(socket)) = (placement, held.socket) {
            self.write(socket, false, OverSocket::Message(frame));
        }
    }

    pub(super) fn node_reads(&mut self, socket: usize, letter: OverSocket) -> Check {
        let node = self.sockets[socket].node;
        if !self.nodes[node].is_alive {
            return Ok(());
        }
        match letter {
            OverSocket::Begin(connection) => self.begin(node, connection, socket),
            OverSocket::Return(connection) => self.claim(node, connection, socket),
            letter => {
                let Some((connection, serial)) = self.sockets[socket].serves else { return Ok(()) };
                let reads_old = self.is(MoveMutant::ReadsOldSockets);
                let is_current =
                    self.nodes[node].held(connection).is_some_and(|held| held.serial == serial || reads_old);
                if is_current {
                    return self.read_message(node, connection, letter);
                }
            }
        }
        Ok(())
    }

    fn read_message(&mut self, node: NodeNumber, connection: ConnectionNumber, letter: OverSocket) -> Check {
        let passes_twice = self.is(MoveMutant::PassesOnTwice);
        let Some(held) = self.nodes[node].held(connection) else { return Ok(()) };
        let app = held.app;
        match letter {
            OverSocket::Sequence(number) if held.ownership.received.begin_at(number).is_err() => {
                return broken(format!("the client of {connection} comes back with a gap before {number}"));
            }
            OverSocket::Ack(number) => {
                held.ownership.acknowledge(number);
                self.release(node, connection);
                self.confirm_mark(node, connection);
            }
            OverSocket::Message(message) => {
                if held.ownership.received.take_message() || passes_twice {
                    let number = message.as_ref().try_into().map(u64::from_be_bytes).unwrap_or_default();
                    self.send_to_app(node, app, connection, ToApp::Data(number));
                } else {
                    self.outcome.again += 1;
                }
            }
            OverSocket::Goodbye => self.close(node, connection, Some(ToApp::Closed)),
            _ => {}
        }
        Ok(())
    }

    fn release(&mut self, node: NodeNumber, connection: ConnectionNumber) {
        while let Some(held) = self.nodes[node].held(connection)
            && let Some(frame) = held.ownership.release()
        {
            if let Some(socket) = held.socket {
                self.write(socket, false, OverSocket::Message(frame));
            }
        }
    }

    fn begin(&mut self, node: NodeNumber, connection: ConnectionNumber, socket: usize) {
        if self.nodes[node].drains_until_ms.is_some() {
            return self.write(socket, false, OverSocket::Refused);
        }
        let app = self.random.index(self.apps.len());
        let serial = self.nodes[node].next_serial();
        let (ownership, check_at) = (Ownership::new(self.limit_bytes), u32::MAX);
        let (takers, mark, before) = (Vec::new(), None, None);
        let held = HeldConnection { ownership, app, socket: Some(socket), serial, check_at, takers, mark, before };
        self.nodes[node].connections.insert(connection, held);
        self.sockets[socket].serves = Some((connection, serial));
        self.outcome.begun += 1;
        self.send_to_app(node, app, connection, ToApp::Open);
        self.write(socket, false, OverSocket::Accepted);
    }

    /// Detaches the socket of a connection, which becomes absent.
    pub(super) fn sever(&mut self, node: NodeNumber, connection: ConnectionNumber) {
        let (serial, until) = (self.nodes[node].next_serial(), self.nodes[node].tick + DISCONNECT_TIMEOUT_S);
        let Some(held) = self.nodes[node].held(connection) else { return };
        held.ownership.leave(until, Cause::SocketEnded);
        (held.serial, held.check_at) = (serial, until);
        if let Some(socket) = held.socket.take() {
            self.cut(socket);
        }
    }

    pub(super) fn node_loses_socket(&mut self, socket: usize) {
        let node = self.sockets[socket].node;
        self.nodes[node].reserved.retain(|_, waiting| *waiting != socket);
        let Some((connection, serial)) = self.sockets[socket].serves else { return };
        if self.nodes[node].held(connection).is_some_and(|held| held.serial == serial) {
            self.sever(node, connection);
        }
    }

    /// Attaches the new socket to a connection, unless a newer one came first.
    pub(super) fn come_back(&mut self, node: NodeNumber, connection: ConnectionNumber, claimed: u64, socket: usize) {
        let (is_too_high, claims_all) =
            (self.is(MoveMutant::NumbersTooHigh), self.is(MoveMutant::ClaimsWhileDeparting));
        let serial = self.nodes[node].next_serial();
        let held = self.nodes[node].held(connection).filter(|held| held.serial == claimed);
        let Some(held) = held.filter(|_| !self.sockets[socket].is_over) else {
            return self.cut(socket);
        };
        if !held.ownership.come_back() && !claims_all {
            return self.cut(socket);
        }
        (held.serial, held.socket, held.check_at) = (serial, Some(socket), u32::MAX);
        let (sequence, frames) = held.ownership.replay();
        let frames: Vec<_> = frames.cloned().collect();
        self.sockets[socket].serves = Some((connection, serial));
        self.outcome.resumed += 1;
        self.write(socket, false, OverSocket::Accepted);
        self.write(socket, false, OverSocket::Sequence(sequence + u64::from(is_too_high)));
        for frame in frames {
            self.write(socket, false, OverSocket::Message(frame));
        }
        self.release(node, connection);
    }

    /// Ends a connection, or drops it if it has not arrived.
    pub(super) fn close(&mut self, node: NodeNumber, connection: ConnectionNumber, notice: Option<ToApp>) {
        let Some(held) = self.nodes[node].connections.remove(&connection) else { return };
        for (taker, question) in held.takers {
            self.answer(node, taker, question, None);
        }
        if held.ownership.is_arriving() {
            return;
        }
        if let Some(socket) = held.socket {
            self.write(socket, false, OverSocket::Goodbye);
        }
        if let Some(notice) = notice {
            self.send_to_app(node, held.app, connection, notice);
        }
    }

    pub(super) fn tick(&mut self, node: NodeNumber) -> Check {
        if !self.nodes[node].is_alive {
            return Ok(());
        }
        self.nodes[node].tick += 1;
        let now = self.nodes[node].tick;
        for connection in self.nodes[node].connections.keys().copied().collect::<Vec<_>>() {
            self.check_absence(node, connection, now);
            self.acknowledge_client(node, connection);
            self.end_late_departure(node, connection, now);
        }
        self.drain(node);
        self.after(1_000, Event::Tick { node });
        Ok(())
    }

    fn check_absence(&mut self, node: NodeNumber, connection: ConnectionNumber, now: u32) {
        let keeps = (self.is(MoveMutant::KeepsTheAbsent), self.is(MoveMutant::KeepsArrivals));
        let Some(held) = self.nodes[node].held(connection).filter(|held| held.check_at <= now) else { return };
        let Some(absence) = held.ownership.absence() else { return };
        if absence.until > now {
            held.check_at = absence.until;
            return;
        }
        let (is_given, is_arriving) = (held.ownership.is_given(), held.ownership.is_arriving());
        if (keeps.0 && !is_arriving) || (keeps.1 && is_arriving) {
            return;
        }
        self.note(|| format!("node {node} gives {connection} up"));
        if is_given {
            // Its state arrived too late or never.
            self.excuse_harm(connection);
        }
        self.close(node, connection, Some(ToApp::Closed));
    }

    fn acknowledge_client(&mut self, node: NodeNumber, connection: ConnectionNumber) {
        let too_much = u64::from(self.is(MoveMutant::AcknowledgesTooMuch));
        let Some(held) = self.nodes[node].held(connection) else { return };
        if let Some(socket) = held.socket
            && let Some(number) = held.ownership.received.acknowledgement()
        {
            self.write(socket, false, OverSocket::Ack(number + too_much));
        }
    }

    fn end_late_departure(&mut self, node: NodeNumber, connection: ConnectionNumber, now: u32) {
        let (forgets, is_silent) = (self.is(MoveMutant::ForgetsFailedMoves), self.is(MoveMutant::LeavesAppPaused));
        let takes_back = self.is(MoveMutant::TakesBackWhatIsGiven);
        let Some(held) = self.nodes[node].held(connection) else { return };
        if takes_back && held.ownership.is_given() {
            held.ownership = held.before.take().unwrap_or_else(|| held.ownership.clone());
        }
        if !held.ownership.is_late(now) || !held.ownership.stay() {
            return;
        }
        if let Some(before) = held.before.take().filter(|_| forgets) {
            held.ownership = before;
        }
        let (app, takers) = (held.app, std::mem::take(&mut held.takers));
        self.outcome.stayed += 1;
        self.note(|| format!("{connection} stays at node {node}"));
        for (taker, question) in takers {
            self.answer(node, taker, question, None);
        }
        if !is_silent {
            self.send_to_app(node, app, connection, ToApp::Resume);
        }
    }

    /// Sends clients with a socket elsewhere. Leaves when none remain.
    fn drain(&mut self, node: NodeNumber) {
        let Some(until_ms) = self.nodes[node].drains_until_ms else { return };
        let is_over = self.now_ms >= until_ms;
        for connection in self.nodes[node].connections.keys().copied().collect::<Vec<_>>() {
            let Some(held) = self.nodes[node].held(connection) else { continue };
            if is_over {
                self.excuse(connection);
                self.close(node, connection, Some(ToApp::Closed));
            } else if held.socket.is_some() {
                self.sever(node, connection);
            }
        }
        if self.nodes[node].connections.is_empty() && self.nodes[node].take_overs.is_empty() {
            self.note(|| format!("node {node} leaves"));
            self.outcome.drained += 1;
            self.bury(node, false);
        }
    }

    pub(super) fn answer(&mut self, node: NodeNumber, to: NodeNumber, question: u64, state: Option<bytes::Bytes>) {
        self.between(node, to, BetweenNodes::Answers { question, state });
    }

    /// Sends to another node. In faulty schedules, the message may be lost.
    pub(super) fn between(&mut self, from: NodeNumber, to: NodeNumber, letter: BetweenNodes) {
        if self.harm != Harm::Gentle && !self.is_calm && self.random.percent(2) {
            return self.note(|| format!("{letter:?} is lost from {from} to {to}"));
        }
        self.send(Lane::Between { from, to }, Event::Between { from, to, letter });
    }

    /// Records that a connection may end because of faults in nodes and links.
    pub(super) fn excuse_harm(&mut self, connection: ConnectionNumber) {
        if self.harm != Harm::Gentle {
            self.excuse(connection);
        }
    }
}
