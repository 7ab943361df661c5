//! Liveness of a client connection: times of the last sent and received data, in ticks.

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Liveness {
    /// Tick of the last hub message to the client; transport frames don't count.
    last_sent: u32,
    /// Tick of the last hub message, or part of one, from the client; for a raw endpoint, of any byte.
    last_received: u32,
    /// Set by the client's first ping, which starts the timeout.
    has_pinged: bool,
    /// The transport detects a lost client, without pings or a timeout.
    pub(crate) is_inherent: bool,
}

impl Liveness {
    /// Liveness of a new connection; `is_inherent` as in the field.
    pub(crate) fn new(now: u32, is_inherent: bool) -> Self {
        Self { last_sent: now, last_received: now, has_pinged: false, is_inherent }
    }

    pub(crate) fn last_sent(&self) -> u32 {
        self.last_sent
    }

    pub(crate) fn last_received(&self) -> u32 {
        self.last_received
    }

    pub(crate) fn has_pinged(&self) -> bool {
        self.has_pinged
    }

    #[inline]
    pub(crate) fn sent(&mut self, now: u32) {
        self.last_sent = now;
    }

    /// Records data from the client. Returns the tick of the previous data.
    #[inline]
    pub(crate) fn note_received(&mut self, now: u32) -> u32 {
        std::mem::replace(&mut self.last_received, now)
    }

    pub(crate) fn pinged(&mut self) {
        self.has_pinged = true;
    }

    /// Records the loss of the socket. The next one may be without pings.
    pub(crate) fn lose_socket(&mut self) {
        self.has_pinged = false;
    }

    /// Records that the client resumed over another socket.
    pub(crate) fn come_back(&mut self, now: u32) {
        (self.last_sent, self.last_received) = (now, now);
    }
}
