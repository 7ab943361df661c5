//! Traffic and timers of a session: frames in and out, pings with acknowledgements, dead sockets and session ends.

use bytes::BytesMut;

use super::{
    Attachment, Class, Frames, Link, Load, RingFull, Role, Session, SessionEndReason, SessionError, SessionEvent,
    Transmit,
};
use crate::limits::LINK_ECHOES_MAX;
use crate::service::{Ping, ServiceMessage};

/// An acknowledgement is due immediately when this fraction of the peer's ring waits for it.
const PROMPT_SHARE: usize = 4;

impl Session {
    /// Queues a frame even if the ring is full, and returns its number.
    pub fn push(&mut self, class: Class, encode: impl FnOnce(&mut BytesMut)) -> u64 {
        self.ring.push(class, encode)
    }

    /// Queues a frame if there is room. Fails if there is no room.
    pub fn try_push(&mut self, class: Class, encode: impl FnOnce(&mut BytesMut)) -> Result<u64, RingFull> {
        if self.ring.has_place(class) { Ok(self.ring.push(class, encode)) } else { Err(RingFull) }
    }

    /// Queues the unsent frames of another session.
    pub fn inherit(&mut self, unsent: Frames) {
        self.ring.inherit(unsent);
    }

    /// Queues the reply to a peer's ping after all queued frames.
    pub fn push_echo(&mut self, ping: &Ping) {
        if self.is_attached() && self.echoes.len() < LINK_ECHOES_MAX {
            self.echoes.push_back((self.ring.last(), ServiceMessage::Ping(ping.clone()).to_frame()));
        }
    }

    /// Returns the next data for this socket.
    pub fn poll_transmit(&mut self, attachment: Attachment, now_ms: u64) -> Option<Transmit> {
        if !self.is_present(attachment) {
            return None;
        }
        let piece = self.due_ping(now_ms).or_else(|| self.due_echo()).or_else(|| self.next_chunk());
        if piece.is_some() {
            self.last_sent_ms = now_ms;
        }
        piece
    }

    /// Records that bytes came from the peer.
    pub fn handle_received(&mut self, now_ms: u64) {
        self.silence.note_received(now_ms);
    }

    /// Handles an acknowledgement in a ping, if any, and returns the freed room. Fails if the acknowledgement is
    /// inconsistent; the driver has to end the session.
    pub fn handle_ping(&mut self, ping: &Ping) -> Result<Load, SessionError> {
        self.counters.handle_ping(ping)?;
        Ok(self.ring.trim(self.counters.acknowledged()))
    }

    /// Records that the consumer has taken all frames up to `number`, with `bytes` new bytes.
    pub fn handle_taken(&mut self, number: u64, bytes: usize, now_ms: u64) {
        // A peer that can't resume keeps nothing, so it needs no acknowledgement.
        if let Some(ring_bytes) = self.peer_ring_bytes {
            self.counters.received_up_to(number, bytes, ring_bytes / PROMPT_SHARE, now_ms);
        }
    }

    fn due_ping(&mut self, now_ms: u64) -> Option<Transmit> {
        let is_quiet = now_ms >= self.last_sent_ms.saturating_add(self.settings.ping_interval_ms);
        let ping = if is_quiet { Some(self.counters.keep_alive()) } else { self.counters.poll_ping(now_ms) };
        ping.map(|ping| Transmit { bytes: ServiceMessage::Ping(ping).to_frame(), frames: 0 })
    }

    fn due_echo(&mut self) -> Option<Transmit> {
        // Frames sent over an older socket may be sent again.
        let (_, bytes) = self.echoes.pop_front_if(|(behind, _)| *behind <= self.ring.given())?;
        Some(Transmit { bytes, frames: 0 })
    }

    fn next_chunk(&mut self) -> Option<Transmit> {
        let sent = self.ring.next()?;
        self.counters.sent_up_to(sent.last);
        // A peer that can't resume never acknowledges.
        let kept_behind = if self.peer_ring_bytes.is_some() { self.counters.acknowledged() } else { sent.last };
        self.ring.trim(kept_behind);
        Some(Transmit { bytes: sent.bytes, frames: sent.frames })
    }
}

impl Session {
    /// Time to call [`handle_timeout`](Self::handle_timeout) and [`poll_transmit`](Self::poll_transmit) again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        match (self.link, self.role) {
            (Link::New, _) => None,
            (Link::Detached { since_ms }, Role::Proxy) => Some(since_ms.saturating_add(self.settings.window_ms)),
            (Link::Detached { .. }, Role::AppServer) => Some(self.silence.poll_timeout()),
            (Link::Attached, _) => self.poll_ping_timeout().map(|ping_ms| ping_ms.min(self.silence.poll_timeout())),
        }
    }

    /// Time at which [`poll_transmit`](Self::poll_transmit) will return a ping; `None` without a socket. For a writer
    /// that does not call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_ping_timeout(&self) -> Option<u64> {
        let ping_ms = self.last_sent_ms.saturating_add(self.settings.ping_interval_ms);
        let due_ms = self.counters.poll_timeout().unwrap_or(ping_ms).min(ping_ms);
        self.is_attached().then_some(due_ms)
    }

    /// Interval at which [`handle_timeout`](Self::handle_timeout) has work.
    #[must_use]
    pub fn tick_ms(&self) -> u64 {
        self.settings.tick_ms()
    }

    /// Minimum duration of the peer's silence.
    #[must_use]
    pub fn silent_ms(&self) -> u64 {
        self.silence.lasted_ms()
    }

    /// Advances the clock and returns the driver's next action.
    pub fn handle_timeout(&mut self, now_ms: u64) -> Option<SessionEvent> {
        self.silence.handle_timeout(now_ms);
        let (silent_ms, window_ms) = (self.silence.lasted_ms(), self.settings.window_ms);
        let cause = match (self.link, self.role) {
            (Link::Detached { since_ms }, Role::Proxy) if now_ms.saturating_sub(since_ms) >= window_ms => {
                Some(SessionEndReason::WindowPassed)
            }
            (Link::Attached | Link::Detached { .. }, Role::AppServer) => self.surrender(silent_ms, window_ms),
            _ => None,
        };
        let is_dead = self.is_attached() && silent_ms >= self.settings.dead_after_ms;
        cause.map(SessionEvent::End).or(is_dead.then_some(SessionEvent::PeerSilent))
    }

    fn surrender(&self, silent_ms: u64, window_ms: u64) -> Option<SessionEndReason> {
        if silent_ms >= window_ms.saturating_mul(2) {
            Some(SessionEndReason::Forgotten)
        } else if silent_ms >= window_ms && !self.has_place(Class::Ordinary) {
            Some(SessionEndReason::GivenUp)
        } else {
            None
        }
    }
}
