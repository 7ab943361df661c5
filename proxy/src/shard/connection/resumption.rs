//! Resumption of a client connection whose socket has ended: what it needs beside its [`Ownership`] to go on over
//! another one.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use trunkline_protocol::fleet::{Ownership, RefreshedLogIn};
use trunkline_protocol::service::ClientInvocation;

use crate::limits::AddressPermit;
use crate::metrics::MoveCause;
use crate::shard::command::audience::MembershipChange;
use crate::shard::command::audience::SendOrigin;
use crate::upstream::{AppServerId, Asker};

/// State with which a client connection goes on over another socket, here or at another node.
#[derive(Debug)]
pub(crate) struct Resumption {
    /// Whether this node has the connection, and what is kept for its client.
    pub ownership: Ownership<AppServerId>,
    /// An acknowledgement for the client is due at the next tick.
    pub owes_acknowledgement: bool,
    /// Permit of its address, with a socket and without.
    pub permit: Option<Box<AddressPermit>>,
    /// Cause for which it moves to another node, if it does.
    pub move_cause: MoveCause,
    /// App server of which the node was told that has last asked what the connection is.
    pub looked_app: Option<AppServerId>,
    /// Newer log-in that it has got since another node has asked what it is, or while it arrives here.
    pub refreshed: Option<Box<RefreshedLogIn>>,
    /// Takes its state for the node that waits for it.
    pub taker: Option<oneshot::Sender<Option<Bytes>>>,
    /// Dropped when its old node has passed on what still came for it there.
    pub rest: Option<oneshot::Sender<()>>,
    /// Work that waits until it has arrived.
    pub arrival: Option<Box<Arrival>>,
}

/// Work for a connection that waits until its state has come from another node.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    /// Changes of its groups, of which the other node may not have heard.
    pub group_changes: Vec<MembershipChange>,
    /// Requests for client results, which the other node may not have made.
    pub requests: Vec<(Arc<dyn Asker>, ClientInvocation, SendOrigin)>,
}

impl Resumption {
    #[must_use]
    pub(crate) fn new(ownership: Ownership<AppServerId>) -> Self {
        let arrival = ownership.is_arriving().then(Box::default);
        let (permit, move_cause, looked_app, refreshed) = (None, MoveCause::default(), None, None);
        let (owes_acknowledgement, taker, rest) = (false, None, None);
        Self { ownership, owes_acknowledgement, permit, move_cause, looked_app, refreshed, taker, rest, arrival }
    }
}
