//! Context of an accepted socket.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::listener_gate::{AdmittedSocket, ListenerGate};
use crate::net::socket::{CurrentStallLimit, StallGuard};

/// State that an accepted socket keeps while HTTP is served on it.
pub(super) struct SocketContext {
    pub(super) peer: SocketAddr,
    pub(super) gate: ListenerGate,
    pub(super) admitted: AdmittedSocket,
    /// How long the answer that leaves now may stand still.
    pub(super) patience: CurrentStallLimit,
    /// It comes from a trusted load balancer.
    pub(super) is_trusted: bool,
}

impl SocketContext {
    pub(super) fn new(peer: SocketAddr, gate: ListenerGate, admitted: AdmittedSocket) -> Self {
        let is_trusted = gate.trusts(peer);
        Self { peer, gate, admitted, patience: CurrentStallLimit::default(), is_trusted }
    }

    /// Wraps the socket, so that it closes when an answer stands still for too long.
    pub(super) fn patient(&self, stream: TcpStream) -> StallGuard {
        StallGuard::new(stream, self.patience.clone())
    }
}
