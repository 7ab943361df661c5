//! Sockets that were cut under their tasks, which have to end before they are dropped.

use crate::net::socket::Socket;

/// Sockets that were left by their clients. Tasks wait for them, which only a socket that is still there wakes.
#[derive(Debug, Default)]
pub(super) struct SeveredSockets(Vec<(u32, Socket)>);

/// Ticks for which a severed socket is kept.
const SEVERED_KEPT_TICKS: u32 = 2;

impl SeveredSockets {
    pub(super) fn add(&mut self, socket: Socket, now: u32) {
        socket.cut();
        self.0.push((now.saturating_add(SEVERED_KEPT_TICKS), socket));
    }

    /// Sockets whose tasks have ended by now.
    pub(super) fn take_old(&mut self, now: u32) -> Vec<Socket> {
        self.0.extract_if(.., |(until, _)| *until <= now).map(|(_, socket)| socket).collect()
    }
}
