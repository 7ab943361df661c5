//! App servers: accept connections, and send to single clients and to all.

use std::collections::VecDeque;

use trunkline_protocol::fleet::{ClientHome, ClientWindow, HomeLoss, ResumeOutcome, Route};
use trunkline_protocol::limits::STATEFUL_RECONNECT_TIMEOUT_S;

use super::{Event, Lane, MoveWorld};
use crate::ledger::{Check, broken};
use crate::moves::letter::{ConnectionNumber, NodeNumber, Numbered, ToApp, ToNode};
use crate::moves::move_app::{AppConnection, SENDERS, SenderStep};
use crate::moves::move_mutant::MoveMutant;

/// Time limit of a pause. Shorter than a real app server's, because links here are shorter-lived.
const PAUSE_MAX_MS: u64 = 30_000;

impl MoveWorld {
    pub(crate) fn send_to_node(&mut self, app: usize, node: NodeNumber, letter: ToNode) {
        self.send(Lane::ToNode { app, node }, Event::ToNode { app, node, letter });
    }

    /// Sends frames returned by a home.
    fn send_home(&mut self, app: usize, node: NodeNumber, frames: impl IntoIterator<Item = bytes::Bytes>) {
        for frame in frames {
            self.send_to_node(app, node, ToNode::from_bytes(frame));
        }
    }

    pub(super) fn app_takes(
        &mut self,
        app: usize,
        node: NodeNumber,
        connection: ConnectionNumber,
        letter: ToApp,
    ) -> Check {
        match letter {
            ToApp::Open => {
                let home = ClientHome::new(node, node, true);
                let (window, line) = (ClientWindow::default(), VecDeque::new());
                let opened = AppConnection { home, received: 0, alone: [0; SENDERS + 1], window, line };
                self.apps[app].connections.insert(connection, opened);
                self.fates[connection].is_opened = true;
            }
            ToApp::Data(number) => {
                let Some(known) = self.apps[app].connections.get_mut(&connection) else { return Ok(()) };
                known.received += 1;
                if known.received != number {
                    let expected = known.received;
                    return broken(format!("app server {app} gets message {number} of {connection}, not {expected}"));
                }
                self.outcome.up += 1;
            }
            ToApp::Closed => {
                let Some(known) = self.apps[app].connections.get(&connection) else { return Ok(()) };
                if *known.home.node() == node || self.is(MoveMutant::HeedsOldNodes) {
                    return self.end_at_app(app, connection);
                }
            }
            ToApp::Pause => self.pause(app, node, connection),
            ToApp::Resume => self.resume(app, node, connection),
            ToApp::Move => {
                self.apps[app].waiting.push((node, connection));
                self.answer_moves(app);
            }
            ToApp::Done { number, links } if links == self.links => {
                if let Some(known) = self.apps[app].connections.get_mut(&connection) {
                    known.window.confirm(number);
                }
            }
            ToApp::Done { .. } => {}
        }
        Ok(())
    }

    fn pause(&mut self, app: usize, node: NodeNumber, connection: ConnectionNumber) {
        let acknowledgement = ToNode::PauseAck { connection }.to_bytes();
        let is_early = self.is(MoveMutant::AcknowledgesPauseAtOnce);
        let Some(known) = self.apps[app].connections.get_mut(&connection) else { return };
        let mut answer = known.home.pause(&node, acknowledgement.clone());
        if is_early && known.home.is_paused() {
            answer = Some(acknowledgement);
        }
        if let Some(pause) = known.home.present_pause() {
            self.after(PAUSE_MAX_MS, Event::GiveUpPause { app, connection, pause });
        }
        self.send_home(app, node, answer);
    }

    fn resume(&mut self, app: usize, node: NodeNumber, connection: ConnectionNumber) {
        if let Some(mut closed) = self.apps[app].parting.remove(&connection) {
            let (_, frames) = closed.home.resume(node, &node);
            return self.send_home(app, node, frames);
        }
        let is_deaf = self.is(MoveMutant::StaysAtOldNode);
        let Some(known) = self.apps[app].connections.get_mut(&connection) else {
            return self.send_to_node(app, node, ToNode::Close { connection });
        };
        if is_deaf && *known.home.node() != node {
            return;
        }
        let (outcome, frames) = known.home.resume(node, &node);
        if outcome == ResumeOutcome::NotPaused && *known.home.node() != node {
            return self.send_to_node(app, node, ToNode::Close { connection });
        }
        if !self.is(MoveMutant::DropsWhatWasHeldBack) {
            self.send_home(app, node, frames);
        }
        self.repeat_mark(app, connection);
    }

    /// Answers moves once all earlier sends are queued.
    fn answer_moves(&mut self, app: usize) {
        let is_hasty = self.is(MoveMutant::AnswersBeforeSends);
        loop {
            let state = &mut self.apps[app];
            if state.answering.is_empty() {
                if state.waiting.is_empty() {
                    return;
                }
                state.answering = std::mem::take(&mut state.waiting);
                state.epoch.advance();
            }
            if !state.epoch.is_last_over() && !is_hasty {
                return;
            }
            let epoch = state.epoch.current();
            for (node, connection) in std::mem::take(&mut state.answering) {
                self.send_to_node(app, node, ToNode::Moved { connection, epoch });
            }
        }
    }

    /// Ends a connection. The hub is notified once.
    fn end_at_app(&mut self, app: usize, connection: ConnectionNumber) -> Check {
        let Some(mut known) = self.apps[app].connections.remove(&connection) else { return Ok(()) };
        let node = *known.home.node();
        let (_, frames) = known.home.resume(node, &node);
        self.send_home(app, node, frames);
        let fate = &mut self.fates[connection];
        if std::mem::replace(&mut fate.is_ended, true) {
            return broken(format!("connection {connection} ends twice"));
        }
        if !fate.may_end {
            return broken(format!("connection {connection} ends, and nobody has ended it"));
        }
        self.outcome.ended += 1;
        self.note(|| format!("connection {connection} has ended"));
        Ok(())
    }

    pub(super) fn close_any(&mut self, app: usize) {
        let open: Vec<_> = self.apps[app].connections.keys().copied().collect();
        if open.is_empty() {
            return;
        }
        let connection = open[self.random.index(open.len())];
        self.note(|| format!("app server {app} closes {connection}"));
        self.excuse(connection);
        let close = ToNode::Close { connection };
        let Some(mut known) = self.apps[app].connections.remove(&connection) else { return };
        self.fates[connection].is_ended = true;
        self.outcome.ended += 1;
        if known.home.keep_last(&[close.to_bytes()]) {
            self.apps[app].parting.insert(connection, known);
        } else {
            self.send_to_node(app, *known.home.node(), close);
        }
    }

    pub(super) fn lose_link(&mut self, app: usize, node: NodeNumber) -> Check {
        self.apps[app].links.remove(&node);
        for connection in self.apps[app].connections.keys().copied().collect::<Vec<_>>() {
            let Some(known) = self.apps[app].connections.get_mut(&connection) else { continue };
            match known.home.end_link(node) {
                HomeLoss::Elsewhere => {}
                HomeLoss::Over => self.end_at_app(app, connection)?,
                HomeLoss::Moving if self.is(MoveMutant::WaitsForEver) => {}
                HomeLoss::Moving => {
                    let event = Event::GiveUp { app, node, connection };
                    self.after(STATEFUL_RECONNECT_TIMEOUT_S * 1_000, event);
                }
            }
        }
        Ok(())
    }

    pub(super) fn give_up(&mut self, app: usize, node: NodeNumber, connection: ConnectionNumber) -> Check {
        let Some(known) = self.apps[app].connections.get_mut(&connection) else { return Ok(()) };
        if known.home.give_up(node) { self.end_at_app(app, connection) } else { Ok(()) }
    }

    pub(super) fn give_up_pause(&mut self, app: usize, connection: ConnectionNumber, pause: u32) -> Check {
        let waits = self.is(MoveMutant::WaitsForEver);
        let Some(known) = self.apps[app].connections.get_mut(&connection).filter(|_| !waits) else { return Ok(()) };
        if known.home.give_up_pause(pause) { self.end_at_app(app, connection) } else { Ok(()) }
    }

    pub(super) fn step_sender(&mut self, app: usize, sender: usize) -> Check {
        match self.apps[app].senders[sender].step.clone() {
            SenderStep::Idle if self.is_calm => {}
            SenderStep::Idle => self.begin_send(app, sender),
            SenderStep::Many { epoch, frame, mut left } => {
                let stamp = if self.is(MoveMutant::SendsWithoutEpoch) { 0 } else { epoch };
                if let Some(node) = left.pop() {
                    self.send_to_node(app, node, ToNode::Many { epoch: stamp, frame: frame.clone() });
                }
                self.apps[app].senders[sender].step = if left.is_empty() {
                    self.apps[app].epoch.leave(epoch);
                    self.answer_moves(app);
                    SenderStep::Idle
                } else {
                    SenderStep::Many { epoch, frame, left }
                };
            }
            SenderStep::InLine { connection, permit } => self.step_line(app, sender, (connection, permit)),
            SenderStep::Waits { connection } => self.try_way(app, sender, connection),
            SenderStep::Passes { connection, node, frame } => {
                self.send_to_node(app, node, ToNode::Data { connection, frame });
                self.apps[app].senders[sender].step = SenderStep::Idle;
                self.note_queued(app, connection);
                self.check_window(app, connection)?;
                let known = self.apps[app].connections.get_mut(&connection);
                let answer = known.and_then(|known| Some((*known.home.node(), known.home.passed()?)));
                if let Some((node, answer)) = answer {
                    self.send_home(app, node, [answer]);
                }
            }
        }
        let is_full = !self.is_calm && self.random.percent(3);
        let wait_ms = if is_full { self.random.below(600) } else { self.random.below(60) };
        if !self.is_calm || self.apps[app].senders[sender].step != SenderStep::Idle {
            self.after(1 + wait_ms, Event::Send { app, sender });
        }
        Ok(())
    }

    fn begin_send(&mut self, app: usize, sender: usize) {
        if self.random.percent(1) && self.random.percent(10) {
            return self.close_any(app);
        }
        let state = &mut self.apps[app];
        let open: Vec<_> = state.connections.keys().copied().collect();
        if self.random.percent(50) && !open.is_empty() {
            let connection = open[self.random.index(open.len())];
            let waits = self.random.percent(80);
            return if waits { self.enter_window(app, sender, connection) } else { self.control(app, connection) };
        }
        let epoch = state.epoch.current();
        state.epoch.enter(epoch);
        let many = &mut state.senders[sender].many;
        *many += 1;
        let frame = Numbered { app, sender, many: *many, alone: None }.to_frame();
        let mut left: Vec<_> = state.links.iter().copied().collect();
        if !left.is_empty() {
            let first = self.random.index(left.len());
            left.rotate_left(first);
        }
        self.apps[app].senders[sender].step = SenderStep::Many { epoch, frame, left };
    }

    /// Sends a client a frame that never waits and is unordered relative to the app's sends.
    fn control(&mut self, app: usize, connection: ConnectionNumber) {
        let Some(known) = self.apps[app].connections.get_mut(&connection) else { return };
        known.alone[SENDERS] += 1;
        let frame = Numbered { app, sender: SENDERS, many: 0, alone: Some(known.alone[SENDERS]) }.to_frame();
        let (node, leaves) = (*known.home.node(), known.home.control(ToNode::Data { connection, frame }.to_bytes()));
        self.send_home(app, node, leaves);
    }

    /// Sends to a client alone, with room in the client's window.
    pub(super) fn try_way(&mut self, app: usize, sender: usize, connection: ConnectionNumber) {
        let is_deaf = self.is(MoveMutant::IgnoresThePause);
        let state = &mut self.apps[app];
        let way = match state.connections.get_mut(&connection) {
            None => Route::Nowhere,
            Some(known) if is_deaf && known.home.is_paused() => Route::To(*known.home.node()),
            Some(known) => known.home.pass(),
        };
        match way {
            // A closed client has no window.
            Route::Nowhere => state.senders[sender].step = SenderStep::Idle,
            Route::Paused => state.senders[sender].step = SenderStep::Waits { connection },
            Route::To(node) => self.pass(app, sender, connection, node),
        }
    }
}
