//! Liveness of a client connection: when something was last sent and received, in ticks.

/// Signs of life of a client connection in both directions.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Liveness {
    /// Tick of the last hub message to the client; frames of the transport don't count.
    last_sent: u32,
    /// Tick of the last hub message, or part of one, from the client; at a raw endpoint of any byte.
    last_heard: u32,
    /// The time-out counts from the client's first ping on.
    has_pinged: bool,
    /// The transport itself shows that the client lives: no pings, no time-out.
    is_inherent: bool,
}

impl Liveness {
    /// Liveness of a connection that begins now, by a transport that shows itself whether the client lives.
    #[must_use]
    pub(crate) fn new(now: u32, is_inherent: bool) -> Self {
        Self { last_sent: now, last_heard: now, has_pinged: false, is_inherent }
    }

    #[must_use]
    pub(crate) fn last_sent(&self) -> u32 {
        self.last_sent
    }

    #[must_use]
    pub(crate) fn last_heard(&self) -> u32 {
        self.last_heard
    }

    /// Whether the client pings, so that its silence has an end.
    #[must_use]
    pub(crate) fn has_pinged(&self) -> bool {
        self.has_pinged
    }

    /// Whether the transport itself shows that the client lives.
    #[must_use]
    pub(crate) fn is_inherent(&self) -> bool {
        self.is_inherent
    }

    /// Notes a hub message to the client.
    #[inline]
    pub(crate) fn sent(&mut self, now: u32) {
        self.last_sent = now;
    }

    /// Notes something from the client; returns the tick of the last time before.
    #[inline]
    pub(crate) fn heard(&mut self, now: u32) -> u32 {
        std::mem::replace(&mut self.last_heard, now)
    }

    /// Notes a ping of the client.
    pub(crate) fn pinged(&mut self) {
        self.has_pinged = true;
    }

    /// Notes that the socket is gone: the next one may be of a client that does not ping.
    pub(crate) fn lose_socket(&mut self) {
        self.has_pinged = false;
    }

    /// Notes that the client is back, over another socket.
    pub(crate) fn come_back(&mut self, now: u32) {
        (self.last_sent, self.last_heard) = (now, now);
    }
}
