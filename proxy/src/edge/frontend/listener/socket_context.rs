//! Context of an accepted socket, and the service that it is for.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpStream;
use tokio::sync::mpsc::Sender;

use super::listener_gate::{AdmittedSocket, ListenerGate};
use crate::edge::frontend::endpoint::Endpoint;
use crate::engine::shard::AppSocket;
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

/// Service behind a listener: the router, and shortcuts around it.
#[derive(Debug, Clone)]
pub(crate) struct ListenerService {
    pub router: Router,
    /// Endpoint that handles WebSocket connects without the router, if any.
    pub connects: Option<Arc<Endpoint>>,
    /// App that gets all other sockets; `None` if the router serves them.
    pub app: Option<Sender<AppSocket>>,
}
