//! Sockets that clients have left which may come back over others.

use crate::net::socket::Socket;

/// Sockets that clients have left. Their tasks still wait for them, and only a socket that is there wakes them.
#[derive(Debug, Default)]
pub(crate) struct DetachedSockets(Vec<(u32, Socket)>);

/// Ticks for which a detached socket is kept.
const DETACHED_TICKS: u32 = 2;

impl DetachedSockets {
    pub(crate) fn add(&mut self, socket: Socket, now: u32) {
        socket.cut();
        self.0.push((now.saturating_add(DETACHED_TICKS), socket));
    }

    /// Sockets whose tasks have ended by now.
    pub(crate) fn take_old(&mut self, now: u32) -> Vec<Socket> {
        self.0.extract_if(.., |(until, _)| *until <= now).map(|(_, socket)| socket).collect()
    }
}
