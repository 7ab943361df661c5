//! Resumption of a client connection over another socket: state in addition to its [`Ownership`].

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use trunkline_protocol::fleet::{MovedState, Ownership, RefreshedLogIn};
use trunkline_protocol::service::ClientInvocation;

use crate::engine::shard::command::audience::{MembershipChange, SendOrigin};
use crate::engine::upstream::{AppServerId, ReplyTo};
use crate::ground::limits::ClientPermit;
use crate::ground::metrics::MoveCause;

#[derive(Debug)]
pub(crate) struct Resumption {
    /// Whether this node has the connection, with the frames kept for its client.
    ownership: Ownership<AppServerId>,
    /// An acknowledgement is due at the next tick.
    owes_acknowledgement: bool,
    /// Permit of the client, held with and without a socket.
    permit: Option<Box<ClientPermit>>,
    move_cause: MoveCause,
    /// App server reported to the last node that queried the connection.
    reported_app: Option<AppServerId>,
    /// Newer authentication, received after another node queried the connection or while it arrives here.
    refreshed: Option<Box<RefreshedLogIn>>,
    /// Receives the state for the node that takes over.
    taker: Option<oneshot::Sender<Option<Bytes>>>,
    /// Dropped when the old node has forwarded the last frames.
    rest: Option<oneshot::Sender<()>>,
    /// Work queued until the connection has arrived.
    arrival: Option<Box<Arrival>>,
}

/// Work for an arriving connection, queued until its state is received.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    /// Group changes that the other node may have missed.
    pub group_changes: Vec<MembershipChange>,
    /// Client invocations that the other node may not have made.
    pub requests: Vec<(Arc<dyn ReplyTo>, ClientInvocation, SendOrigin)>,
}

/// State of a departing connection for the node that takes over.
#[derive(Debug)]
pub(crate) struct DepartingState {
    pub state: MovedState,
    pub epochs: Vec<(AppServerId, i64)>,
    pub taker: Option<oneshot::Sender<Option<Bytes>>>,
}

impl Resumption {
    pub(crate) fn new(ownership: Ownership<AppServerId>) -> Self {
        let arrival = ownership.is_arriving().then(Box::default);
        let (permit, move_cause, reported_app, refreshed) = (None, MoveCause::default(), None, None);
        let (owes_acknowledgement, taker, rest) = (false, None, None);
        Self { ownership, owes_acknowledgement, permit, move_cause, reported_app, refreshed, taker, rest, arrival }
    }

    pub(crate) fn ownership(&self) -> &Ownership<AppServerId> {
        &self.ownership
    }

    pub(crate) fn ownership_mut(&mut self) -> &mut Ownership<AppServerId> {
        &mut self.ownership
    }

    pub(crate) fn is_away(&self) -> bool {
        self.ownership.absence().is_some()
    }

    /// Records a due acknowledgement. Returns `false` if one was already due.
    pub(crate) fn owe_acknowledgement(&mut self) -> bool {
        !mem::replace(&mut self.owes_acknowledgement, true)
    }

    /// Takes the due acknowledgement, if the client has a socket.
    pub(crate) fn take_acknowledgement(&mut self) -> Option<u64> {
        self.owes_acknowledgement = false;
        if self.is_away() { None } else { self.ownership.received.acknowledgement() }
    }

    pub(crate) fn set_permit(&mut self, permit: Option<Box<ClientPermit>>) {
        self.permit = permit;
    }

    pub(crate) fn move_cause(&self) -> MoveCause {
        self.move_cause
    }

    /// Sets the cause of a move to another node.
    pub(crate) fn send_elsewhere(&mut self, cause: MoveCause) {
        self.move_cause = cause;
    }

    /// Records that the client has a socket again, and resets the cause of later moves. Returns `false` if the
    /// client can't resume.
    #[must_use]
    pub(crate) fn come_back(&mut self) -> bool {
        let is_back = self.ownership.come_back();
        if is_back {
            self.move_cause = MoveCause::default();
        }
        is_back
    }

    pub(crate) fn report_to_node(&mut self, app: AppServerId) {
        (self.reported_app, self.refreshed) = (Some(app), None);
    }

    /// Starts the move to another node, which receives the state through `taker`. Returns the tick at which the move
    /// fails; `None` if it can't start or the other node has a different app server.
    pub(crate) fn depart(&mut self, app: AppServerId, now: u32, taker: oneshot::Sender<Option<Bytes>>) -> Option<u32> {
        if self.reported_app != Some(app) {
            return None;
        }
        let until = self.ownership.depart(now)?;
        self.taker = Some(taker);
        Some(until)
    }

    pub(crate) fn move_answered(&mut self, from: AppServerId, epoch: i64) {
        self.ownership.answered(from, epoch);
        self.rest = None;
    }

    /// Drops `rest` with the next reply to the move.
    pub(crate) fn await_rest(&mut self, rest: oneshot::Sender<()>) {
        self.rest = Some(rest);
    }

    /// Takes the state for the next node, after all replies.
    pub(crate) fn let_go(&mut self, now: u32) -> Option<DepartingState> {
        let (state, epochs) = self.ownership.let_go(now)?;
        let refreshed = self.refreshed.take().map(|log_in| *log_in);
        Some(DepartingState { state: MovedState { refreshed, ..state }, epochs, taker: self.taker.take() })
    }

    /// Cancels a move before its state is sent. Returns `false` without a move.
    #[must_use]
    pub(crate) fn stay(&mut self) -> bool {
        let stays = self.ownership.stay();
        if stays {
            self.taker = None;
        }
        stays
    }

    /// Applies the state of an arriving connection. Returns the queued work and the authentication to keep; `None` if
    /// not arriving.
    pub(crate) fn settle(
        &mut self,
        mut state: MovedState,
        epochs: Vec<(AppServerId, i64)>,
        until: u32,
    ) -> Option<(Arrival, Option<RefreshedLogIn>)> {
        let log_in = state.refreshed.take().filter(|_| self.refreshed.take().is_none());
        if !self.ownership.settle(state, epochs, until) {
            return None;
        }
        Some((self.arrival.take().map(|arrival| *arrival).unwrap_or_default(), log_in))
    }

    /// Work queued until arrival; `None` if the connection is already here.
    pub(crate) fn arrival_mut(&mut self) -> Option<&mut Arrival> {
        self.arrival.as_deref_mut()
    }

    /// Records a newer authentication for the other node, if the connection may be about to move.
    pub(crate) fn refresh(&mut self, log_in: &RefreshedLogIn) {
        if self.reported_app.is_some() || self.ownership.is_arriving() {
            self.refreshed = Some(Box::new(log_in.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> AppServerId {
        AppServerId::from(7)
    }

    #[test]
    fn a_move_begins_only_with_the_app_server_that_was_reported() {
        let mut resumption = Resumption::new(Ownership::new(1000));
        assert!(resumption.ownership_mut().leave(99, trunkline_protocol::cause::Cause::SocketEnded));
        resumption.report_to_node(AppServerId::from(8));
        assert!(resumption.depart(app(), 1, oneshot::channel().0).is_none());
        resumption.report_to_node(app());
        let (taker, mut taken) = oneshot::channel();
        assert!(resumption.depart(app(), 1, taker).is_some());
        assert!(resumption.stay() && taken.try_recv().is_err(), "the other node gets nothing");
        assert!(!resumption.stay(), "there is no move");
    }

    #[test]
    fn one_acknowledgement_is_owed_at_a_time() {
        let mut resumption = Resumption::new(Ownership::new(1000));
        assert!(resumption.owe_acknowledgement() && !resumption.owe_acknowledgement());
        assert_eq!(resumption.take_acknowledgement(), None, "no message has come");
        assert!(resumption.owe_acknowledgement());
    }

    #[test]
    fn a_client_that_comes_back_moves_for_another_cause_later() {
        let mut resumption = Resumption::new(Ownership::new(1000));
        resumption.send_elsewhere(MoveCause::Rebalance);
        assert!(!resumption.come_back() && resumption.move_cause() == MoveCause::Rebalance, "it has a socket");
        assert!(resumption.ownership_mut().leave(99, trunkline_protocol::cause::Cause::SocketEnded));
        assert!(resumption.come_back() && resumption.move_cause() == MoveCause::default());
    }
}
