//! Resumption of a client connection whose socket has ended: what it needs beside its [`Ownership`] to go on over
//! another one.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use trunkline_protocol::fleet::{MovedState, Ownership, RefreshedLogIn};
use trunkline_protocol::service::ClientInvocation;

use crate::limits::AddressPermit;
use crate::metrics::MoveCause;
use crate::shard::command::audience::MembershipChange;
use crate::shard::command::audience::SendOrigin;
use crate::upstream::{AppServerId, Asker};

/// State with which a client connection goes on over another socket, here or at another node.
#[derive(Debug)]
pub(crate) struct Resumption {
    /// Whether this node has the connection, and the frames kept for its client.
    ownership: Ownership<AppServerId>,
    /// An acknowledgement for the client is due at the next tick.
    owes_acknowledgement: bool,
    /// Permit of its address, with a socket and without.
    permit: Option<Box<AddressPermit>>,
    /// Cause for which it moves to another node, if it does.
    move_cause: MoveCause,
    /// App server that was reported to the last node which asked about the connection.
    reported_app: Option<AppServerId>,
    /// Log-in that came after another node had asked about the connection, or while it arrives here.
    refreshed: Option<Box<RefreshedLogIn>>,
    /// Takes its state for the node that waits for it.
    taker: Option<oneshot::Sender<Option<Bytes>>>,
    /// Dropped when its old node has passed on the last frames for it.
    rest: Option<oneshot::Sender<()>>,
    /// Work that waits until it has arrived.
    arrival: Option<Box<Arrival>>,
}

/// Work for a connection that waits until its state has come from another node.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    /// Changes of its groups that the other node may have missed.
    pub group_changes: Vec<MembershipChange>,
    /// Requests for client results that the other node may not have made.
    pub requests: Vec<(Arc<dyn Asker>, ClientInvocation, SendOrigin)>,
}

/// State of a connection that departs, for the node that takes it.
#[derive(Debug)]
pub(crate) struct DepartingState {
    pub state: MovedState,
    pub epochs: Vec<(AppServerId, i64)>,
    pub taker: Option<oneshot::Sender<Option<Bytes>>>,
}

impl Resumption {
    #[must_use]
    pub(crate) fn new(ownership: Ownership<AppServerId>) -> Self {
        let arrival = ownership.is_arriving().then(Box::default);
        let (permit, move_cause, reported_app, refreshed) = (None, MoveCause::default(), None, None);
        let (owes_acknowledgement, taker, rest) = (false, None, None);
        Self { ownership, owes_acknowledgement, permit, move_cause, reported_app, refreshed, taker, rest, arrival }
    }

    /// Whether this node has the connection, and the frames kept for its client.
    #[must_use]
    pub(crate) fn ownership(&self) -> &Ownership<AppServerId> {
        &self.ownership
    }

    pub(crate) fn ownership_mut(&mut self) -> &mut Ownership<AppServerId> {
        &mut self.ownership
    }

    /// Whether the client has no socket, and may come back.
    #[must_use]
    pub(crate) fn is_away(&self) -> bool {
        self.ownership.absence().is_some()
    }

    /// Notes that the client is to be acknowledged; `false` if that was noted before.
    pub(crate) fn owe_acknowledgement(&mut self) -> bool {
        !mem::replace(&mut self.owes_acknowledgement, true)
    }

    /// Takes the acknowledgement that is due, if the client has a socket for it.
    pub(crate) fn take_acknowledgement(&mut self) -> Option<u64> {
        self.owes_acknowledgement = false;
        if self.is_away() { None } else { self.ownership.received.acknowledgement() }
    }

    /// Replaces the permit of the client's address.
    pub(crate) fn set_permit(&mut self, permit: Option<Box<AddressPermit>>) {
        self.permit = permit;
    }

    /// Cause for which it moves to another node, if it does.
    #[must_use]
    pub(crate) fn move_cause(&self) -> MoveCause {
        self.move_cause
    }

    /// Notes why the client is sent to another node.
    pub(crate) fn send_elsewhere(&mut self, cause: MoveCause) {
        self.move_cause = cause;
    }

    /// Notes that the client has a socket again, so a later move has another cause; `false` if it can't come back.
    #[must_use]
    pub(crate) fn come_back(&mut self) -> bool {
        let is_back = self.ownership.come_back();
        if is_back {
            self.move_cause = MoveCause::default();
        }
        is_back
    }

    /// Notes that another node was told which app server has the connection.
    pub(crate) fn report_to_node(&mut self, app: AppServerId) {
        (self.reported_app, self.refreshed) = (Some(app), None);
    }

    /// Begins the move to another node, which gets the state by `taker`. Returns the tick at which that has failed;
    /// `None` where it can't begin, or that node believes in another app server.
    pub(crate) fn depart(&mut self, app: AppServerId, now: u32, taker: oneshot::Sender<Option<Bytes>>) -> Option<u32> {
        if self.reported_app != Some(app) {
            return None;
        }
        let until = self.ownership.depart(now)?;
        self.taker = Some(taker);
        Some(until)
    }

    /// Takes the answer of an app server to the move.
    pub(crate) fn move_answered(&mut self, from: AppServerId, epoch: i64) {
        self.ownership.answered(from, epoch);
        self.rest = None;
    }

    /// Drops `rest` with the next answer to the move.
    pub(crate) fn await_rest(&mut self, rest: oneshot::Sender<()>) {
        self.rest = Some(rest);
    }

    /// Takes the state for the next node, once all have answered.
    pub(crate) fn let_go(&mut self, now: u32) -> Option<DepartingState> {
        let (state, epochs) = self.ownership.let_go(now)?;
        let refreshed = self.refreshed.take().map(|log_in| *log_in);
        Some(DepartingState { state: MovedState { refreshed, ..state }, epochs, taker: self.taker.take() })
    }

    /// Ends a move whose state has not left; `false` if there is none.
    #[must_use]
    pub(crate) fn stay(&mut self) -> bool {
        let stays = self.ownership.stay();
        if stays {
            self.taker = None;
        }
        stays
    }

    /// Gives an arriving connection its state. Returns the work that has waited for it, with the log-in to keep; `None`
    /// if the connection does not arrive.
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

    /// Work that waits until the connection has arrived; `None` for one that is here.
    pub(crate) fn arrival_mut(&mut self) -> Option<&mut Arrival> {
        self.arrival.as_deref_mut()
    }

    /// Notes a newer log-in for the other node, if the connection is about to move.
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
