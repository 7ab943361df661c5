//! Windows of clients: sends to one client wait while much is unconfirmed, and nodes confirm marks.

use trunkline_protocol::fleet::{CLIENT_WINDOW_MAX_BYTES, Route};

use super::MoveWorld;
use crate::ledger::{Check, broken};
use crate::moves::letter::{ConnectionNumber, NodeNumber, Numbered, ToApp, ToNode};
use crate::moves::move_app::{SENDERS, SenderStep};
use crate::moves::move_mutant::MoveMutant;

/// Bytes kept for a client below which its node confirms marks, as in the proxy.
const CONFIRMED_BELOW_BYTES: u32 = CLIENT_WINDOW_MAX_BYTES / 2;

impl MoveWorld {
    /// Sends to a client alone, once its window has room.
    pub(super) fn enter_window(&mut self, app: usize, sender: usize, connection: ConnectionNumber) {
        let (message_bytes, holds_permit) = (self.message_bytes, self.is(MoveMutant::PassesBeforeTheWindow));
        let Some(known) = self.apps[app].connections.get_mut(&connection) else { return };
        if message_bytes == 0 || known.window.reserve(message_bytes) {
            return self.try_way(app, sender, connection);
        }
        let Some(line) = known.window.begin_wait(usize::MAX) else { return };
        if known.line.is_empty() {
            line.note_turn();
        }
        known.line.push_back((sender, line));
        let permit = match holds_permit.then(|| known.home.pass()) {
            Some(Route::To(node)) => Some(node),
            _ => None,
        };
        self.outcome.waited += 1;
        self.apps[app].senders[sender].step = SenderStep::InLine { connection, permit };
    }

    /// Lets a sender in line try again, if it is the first one and woken.
    pub(super) fn step_line(
        &mut self,
        app: usize,
        sender: usize,
        (connection, permit): (ConnectionNumber, Option<NodeNumber>),
    ) {
        let message_bytes = self.message_bytes;
        let Some(known) = self.apps[app].connections.get_mut(&connection) else {
            self.apps[app].senders[sender].step = SenderStep::Idle;
            return;
        };
        if !known.line.front().is_some_and(|(first, line)| *first == sender && line.take_wake()) {
            return;
        }
        if !known.window.reserve_first(message_bytes) {
            let rest = known.window.mark_rest();
            return self.send_mark(app, connection, rest);
        }
        known.window.end_wait();
        known.line.pop_front();
        if let Some((_, next)) = known.line.front() {
            next.note_turn();
        }
        match permit {
            Some(node) => self.pass(app, sender, connection, node),
            None => self.try_way(app, sender, connection),
        }
    }

    /// Starts to queue a message to a client alone.
    pub(super) fn pass(&mut self, app: usize, sender: usize, connection: ConnectionNumber, node: NodeNumber) {
        let state = &mut self.apps[app];
        let Some(known) = state.connections.get_mut(&connection) else { return };
        known.alone[sender] += 1;
        let many = state.senders[sender].many;
        let frame = Numbered { app, sender, many, alone: Some(known.alone[sender]) }.to_frame();
        state.senders[sender].step = SenderStep::Passes { connection, node, frame };
    }

    pub(super) fn note_queued(&mut self, app: usize, connection: ConnectionNumber) {
        let message_bytes = self.message_bytes;
        let known = self.apps[app].connections.get_mut(&connection).filter(|_| message_bytes > 0);
        let due = known.and_then(|known| known.window.note_queued(message_bytes));
        self.send_mark(app, connection, due);
    }

    /// Sends the last mark again: it may be lost, or the client has moved.
    pub(super) fn repeat_mark(&mut self, app: usize, connection: ConnectionNumber) {
        let known = self.apps[app].connections.get(&connection);
        let last = known.and_then(|known| known.window.last_mark());
        self.send_mark(app, connection, last.filter(|_| !self.is(MoveMutant::ForgetsMarks)));
    }

    /// During a pause the mark is skipped; the last one is repeated when the pause ends.
    fn send_mark(&mut self, app: usize, connection: ConnectionNumber, number: Option<i64>) {
        let known = self.apps[app].connections.get(&connection).filter(|known| !known.home.is_paused());
        if let (Some(known), Some(number)) = (known, number) {
            let (node, links) = (*known.home.node(), self.links);
            self.send_to_node(app, node, ToNode::Mark { connection, number, links });
        }
    }

    /// Replaces all links between nodes and app servers. Marks and confirmations in flight are lost.
    pub(crate) fn replace_links(&mut self) {
        self.links += 1;
        self.note(|| "all links are replaced".into());
        for app in 0..self.apps.len() {
            for connection in self.apps[app].connections.keys().copied().collect::<Vec<_>>() {
                self.repeat_mark(app, connection);
            }
        }
    }

    /// Confirms the last mark for a client if little is kept for it.
    pub(super) fn confirm_mark(&mut self, node: NodeNumber, connection: ConnectionNumber) {
        let (message_bytes, links) = (self.message_bytes, self.links);
        let confirms_all = self.is(MoveMutant::ConfirmsUnreadMarks);
        let Some(held) = self.nodes[node].held(connection) else { return };
        let kept = held.ownership.bytes() / Numbered::BYTES * usize::try_from(message_bytes).unwrap_or_default();
        let is_little = u32::try_from(kept).is_ok_and(|kept| kept < CONFIRMED_BELOW_BYTES);
        if let Some(number) = held.mark.take_if(|_| is_little || confirms_all) {
            let app = held.app;
            self.send_to_app(node, app, connection, ToApp::Done { number, links });
        }
    }

    /// Checks that a client has most of the messages that were sent to it alone.
    pub(super) fn check_window(&self, app: usize, connection: ConnectionNumber) -> Check {
        let known = self.apps[app].connections.get(&connection).filter(|_| self.message_bytes > 0);
        let visitor = self.visitors.iter().find(|visitor| visitor.connection == Some(connection));
        let (Some(known), Some(visitor)) = (known, visitor) else { return Ok(()) };
        let sent: u64 = known.alone.iter().take(SENDERS).sum();
        let seen = (0..SENDERS).filter_map(|sender| visitor.seen.get(&(app, sender)));
        let unseen = sent - seen.map(|seen| seen.alone).sum::<u64>();
        let most = (CLIENT_WINDOW_MAX_BYTES + CONFIRMED_BELOW_BYTES) / self.message_bytes;
        if unseen > u64::from(most) {
            return broken(format!("{unseen} messages to {connection} alone are under way, not {most}"));
        }
        Ok(())
    }
}
