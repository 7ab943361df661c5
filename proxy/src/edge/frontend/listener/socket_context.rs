//! Context of an accepted socket.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::listener_gate::{AdmittedSocket, ListenerGate};
use crate::ground::net::socket::{CurrentStallLimit, StallGuard};

pub(super) struct SocketContext {
    pub(super) peer: SocketAddr,
    pub(super) gate: ListenerGate,
    pub(super) admitted: AdmittedSocket,
    pub(super) patience: CurrentStallLimit,
    /// The socket belongs to a trusted load balancer.
    pub(super) is_trusted: bool,
}

impl SocketContext {
    pub(super) fn new(peer: SocketAddr, gate: ListenerGate, admitted: AdmittedSocket) -> Self {
        let is_trusted = gate.trusts(peer);
        Self { peer, gate, admitted, patience: CurrentStallLimit::default(), is_trusted }
    }

    /// Wraps the socket, so that it closes when a response stalls for too long.
    pub(super) fn patient(&self, stream: TcpStream) -> StallGuard {
        StallGuard::new(stream, self.patience.clone())
    }
}
