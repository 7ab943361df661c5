//! Traffic of a session: frames in and out, and pings with acknowledgements.

use bytes::BytesMut;

use super::{Attachment, Class, Frames, Load, RingFull, Session, SessionError, Transmit};
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
