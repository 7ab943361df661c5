//! One end of a session: what makes a link that is cut lose nothing, repeat nothing and keep its order.
//!
//! One machine serves both ends. No socket, no clock: frames and milliseconds come in; bytes, deadlines and verdicts
//! come out. A session outlives its sockets; each slot of a pool has one at a time.
//!
//! ```text
//!            push ──► Ring ──poll_transmit──► socket ──► FrameBuffer ──► Incoming::next ──► consumer
//!                      ▲ trims                                            (drops duplicates)     │
//!                      └── handle_ping ◄── ping with an acknowledgement ◄── poll_transmit ◄── handle_taken
//!
//!  New ──attach──► Attached ──detach──► Detached ──attach──► Attached …
//!                     │ silent for dead_after: PeerSilent       │ window passed (proxy): Over
//!                     └ the peer can't resume: Over             │ ring full and silent for the window, or
//!                                                               └ silent for two (app server): Over
//! ```
//!
//! The driver writes what [`poll_transmit`](Session::poll_transmit) gives until it gives nothing, arms one timer for
//! [`poll_timeout`](Session::poll_timeout), calls [`handle_timeout`](Session::handle_timeout) when it fires, and does what
//! the [`Verdict`] says. What was in the ring of a session that is over comes back from [`end`](Session::end).

mod backoff;
mod counters;
mod error;
mod incoming;
mod offer;
mod ring;
mod settings;
mod silence;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{Ping, ServiceMessage};
use crate::limits::LINK_ECHOES_MAX;

pub use backoff::Backoff;
pub use counters::{ACKNOWLEDGE_KEY, Counters};
pub use error::SessionError;
pub use incoming::Incoming;
pub use offer::{Answer, Capabilities, HeaderError, Judgement, Offer, Refusal, SessionId, judge, parse_received};
use ring::Ring;
pub use ring::{Class, Frames, Full, Load};
pub use settings::{Role, SessionSettings};
use silence::Silence;

/// An acknowledgement is due at once when this share of the peer's ring waits for it.
const PROMPT_SHARE: usize = 4;

/// One end of a session.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    role: Role,
    settings: SessionSettings,
    ring: Ring,
    counters: Counters,
    silence: Silence,
    link: Link,
    /// Attachments so far.
    attachments: u64,
    /// The peer's ring; `None` while it is not known to resume.
    peer_ring_bytes: Option<usize>,
    last_sent_ms: u64,
    /// Pings that the peer wants back, each behind the frame that was the last when it came.
    echoes: VecDeque<(u64, Bytes)>,
}

/// A socket of a session. What an older one has to say is not listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    New,
    Attached,
    Detached { since_ms: u64 },
}

/// A piece for the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Whole frames.
    pub bytes: Bytes,
    /// How many of them count; 0 for a ping.
    pub frames: u64,
}

/// What the passing of time came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The socket is dead: close it and detach.
    PeerSilent,
    /// The session is to be ended.
    Over(Cause),
}

/// Why a session is over, as far as an end decides it alone. The driver has reasons of its own: the instance is gone,
/// a newer session took the slot, the peer does not know it, the peer made no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The proxy could not resume it in time.
    #[error("it could not be resumed within the window")]
    WindowPassed,
    /// The app server's ring was full and nothing was heard.
    #[error("its ring was full, and the proxy was silent for the window")]
    GivenUp,
    /// The app server heard nothing for so long that the proxy must have ended it.
    #[error("the proxy was silent for twice the window")]
    Forgotten,
    /// The peer can't resume: the session ends with its socket.
    #[error("its socket ended, and the peer does not resume")]
    NotResumable,
}

/// What was in the ring of a session that is over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftover {
    /// Sent and not acknowledged: the peer may have them or not.
    pub uncertain: Frames,
    /// Never given to a socket: another session may carry them.
    pub unsent: Frames,
}

impl Session {
    /// A session that has no socket yet.
    #[must_use]
    pub fn new(id: SessionId, role: Role, settings: SessionSettings, now_ms: u64) -> Self {
        Self {
            id,
            role,
            settings,
            ring: Ring::new(settings.ring_max_bytes),
            counters: Counters::new(),
            silence: Silence::new(settings.tick_ms(), now_ms),
            link: Link::New,
            attachments: 0,
            peer_ring_bytes: None,
            last_sent_ms: now_ms,
            echoes: VecDeque::new(),
        }
    }

    /// What the proxy says when it dials. Behind it the old socket must bring nothing more to the counters of the peer:
    /// close it first.
    #[must_use]
    pub fn offer(&self) -> Offer {
        let received = (self.link != Link::New).then_some(self.counters.received());
        Offer { session: self.id, received, capabilities: self.capabilities() }
    }

    /// What the app server says when it takes an upgrade; it attaches with the same `received`.
    #[must_use]
    pub fn answer(&self) -> Answer {
        Answer { received: self.counters.received(), capabilities: self.capabilities() }
    }

    /// The proxy's dial has succeeded. `None`: the offer was made by a session that is over, close the socket.
    ///
    /// # Errors
    /// When the answer makes no sense; the session is to be ended.
    pub fn handle_answer(
        &mut self,
        offer: &Offer,
        answer: &Answer,
        now_ms: u64,
    ) -> Result<Option<Attachment>, SessionError> {
        if offer.session != self.id {
            return Ok(None);
        }
        let told = offer.received.unwrap_or_default();
        self.attach(told, answer.received, answer.capabilities, now_ms).map(Some)
    }

    /// The app server takes an upgrade that was judged to begin or resume this session.
    ///
    /// # Errors
    /// When the offer makes no sense; the session is to be ended.
    pub fn handle_offer(&mut self, offer: &Offer, now_ms: u64) -> Result<(Attachment, Answer), SessionError> {
        let answer = self.answer();
        let received = offer.received.unwrap_or_default();
        let attachment = self.attach(answer.received, received, offer.capabilities, now_ms)?;
        Ok((attachment, answer))
    }

    fn attach(&mut self, told: u64, received: u64, can: Capabilities, now_ms: u64) -> Result<Attachment, SessionError> {
        if self.link != Link::New && can.resume_ring_bytes.is_none() {
            return Err(SessionError::CapabilityLost);
        }
        self.counters.acknowledge(received)?;
        self.counters.told(told);
        self.ring.rewind(received);
        self.peer_ring_bytes = can.resume_ring_bytes;
        self.silence.heard(now_ms);
        self.last_sent_ms = now_ms;
        self.echoes.clear();
        self.link = Link::Attached;
        self.attachments += 1;
        Ok(Attachment(self.attachments))
    }

    /// A socket has ended; nothing happens if it is not the present one.
    pub fn detach(&mut self, attachment: Attachment, now_ms: u64) -> Option<Verdict> {
        if !self.is_present(attachment) {
            return None;
        }
        self.link = Link::Detached { since_ms: now_ms };
        self.echoes.clear();
        self.peer_ring_bytes.is_none().then_some(Verdict::Over(Cause::NotResumable))
    }

    /// Queues a frame, place or no place, and returns its number.
    pub fn push(&mut self, class: Class, encode: impl FnOnce(&mut BytesMut)) -> u64 {
        self.ring.push(class, encode)
    }

    /// Queues a frame if there is place.
    ///
    /// # Errors
    /// When there is none.
    pub fn try_push(&mut self, class: Class, encode: impl FnOnce(&mut BytesMut)) -> Result<u64, Full> {
        if self.ring.has_place(class) { Ok(self.ring.push(class, encode)) } else { Err(Full) }
    }

    /// Queues what another session never sent.
    pub fn inherit(&mut self, unsent: Frames) {
        self.ring.inherit(unsent);
    }

    /// Queues a ping that the peer wants back, behind what is queued.
    pub fn push_echo(&mut self, ping: &Ping) {
        if self.is_attached() && self.echoes.len() < LINK_ECHOES_MAX {
            self.echoes.push_back((self.ring.last(), ServiceMessage::Ping(ping.clone()).to_frame()));
        }
    }

    /// The next piece for this socket.
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

    /// Something came from the peer, whatever it was.
    pub fn handle_heard(&mut self, now_ms: u64) {
        self.silence.heard(now_ms);
    }

    /// A ping came: takes the acknowledgement that may ride on it, and says what that made free.
    ///
    /// # Errors
    /// When the acknowledgement makes no sense; the session is to be ended.
    pub fn handle_ping(&mut self, ping: &Ping) -> Result<Load, SessionError> {
        self.counters.handle_ping(ping)?;
        Ok(self.ring.trim(self.counters.acknowledged()))
    }

    /// The consumer has taken all frames up to `number`, of which `bytes` bytes are new.
    pub fn handle_taken(&mut self, number: u64, bytes: usize, now_ms: u64) {
        let prompt_bytes = self.peer_ring_bytes.unwrap_or(usize::MAX) / PROMPT_SHARE;
        self.counters.received_up_to(number, bytes, prompt_bytes, now_ms);
    }

    /// When [`handle_timeout`](Self::handle_timeout) and [`poll_transmit`](Self::poll_transmit) are to be called again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        match (self.link, self.role) {
            (Link::New, _) => None,
            (Link::Detached { since_ms }, Role::Proxy) => Some(since_ms.saturating_add(self.settings.window_ms)),
            (Link::Detached { .. }, Role::AppServer) => Some(self.silence.poll_timeout()),
            (Link::Attached, _) => {
                let ping_ms = self.last_sent_ms.saturating_add(self.settings.ping_interval_ms);
                let due_ms = self.counters.poll_timeout().unwrap_or(ping_ms).min(ping_ms);
                Some(due_ms.min(self.silence.poll_timeout()))
            }
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now_ms: u64) -> Option<Verdict> {
        self.silence.handle_timeout(now_ms);
        let (silent_ms, window_ms) = (self.silence.lasted_ms(), self.settings.window_ms);
        let cause = match (self.link, self.role) {
            (Link::Detached { since_ms }, Role::Proxy) if now_ms.saturating_sub(since_ms) >= window_ms => {
                Some(Cause::WindowPassed)
            }
            (Link::Attached | Link::Detached { .. }, Role::AppServer) => self.surrender(silent_ms, window_ms),
            _ => None,
        };
        let is_dead = self.is_attached() && silent_ms >= self.settings.dead_after_ms;
        cause.map(Verdict::Over).or(is_dead.then_some(Verdict::PeerSilent))
    }

    /// Ends the session: what was in its ring.
    pub fn end(mut self) -> Leftover {
        self.ring.rewind(self.counters.acknowledged());
        let (uncertain, unsent) = self.ring.drain(self.counters.sent());
        Leftover { uncertain, unsent }
    }

    fn surrender(&self, silent_ms: u64, window_ms: u64) -> Option<Cause> {
        if silent_ms >= window_ms.saturating_mul(2) {
            Some(Cause::Forgotten)
        } else if silent_ms >= window_ms && !self.has_place(Class::Ordinary) {
            Some(Cause::GivenUp)
        } else {
            None
        }
    }

    fn due_ping(&mut self, now_ms: u64) -> Option<Transmit> {
        let is_quiet = now_ms >= self.last_sent_ms.saturating_add(self.settings.ping_interval_ms);
        let ping = if is_quiet { Some(self.counters.keep_alive()) } else { self.counters.poll_ping(now_ms) };
        ping.map(|ping| Transmit { bytes: ServiceMessage::Ping(ping).to_frame(), frames: 0 })
    }

    fn due_echo(&mut self) -> Option<Transmit> {
        let sent = self.counters.sent();
        let (_, bytes) = self.echoes.pop_front_if(|(behind, _)| *behind <= sent)?;
        Some(Transmit { bytes, frames: 0 })
    }

    fn next_chunk(&mut self) -> Option<Transmit> {
        let sent = self.ring.next()?;
        self.counters.sent_up_to(sent.last);
        // Whoever can't resume never acknowledges.
        let kept_behind = if self.peer_ring_bytes.is_some() { self.counters.acknowledged() } else { sent.last };
        self.ring.trim(kept_behind);
        Some(Transmit { bytes: sent.bytes, frames: sent.frames })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { resume_ring_bytes: Some(self.settings.ring_max_bytes) }
    }

    fn is_present(&self, attachment: Attachment) -> bool {
        self.is_attached() && attachment.0 == self.attachments
    }

    /// Which session this is.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whether it has a socket.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.link == Link::Attached
    }

    /// Whether there is place for a frame.
    #[must_use]
    pub fn has_place(&self, class: Class) -> bool {
        self.ring.has_place(class)
    }

    /// What waits to be sent or acknowledged.
    #[must_use]
    pub fn load(&self) -> Load {
        self.ring.load()
    }

    /// What there is place for.
    #[must_use]
    pub fn limit(&self) -> Load {
        self.ring.limit()
    }

    /// The number of the last frame that was queued.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.ring.last()
    }

    /// Frames sent, taken in, and acknowledged.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether a peer that has everything up to `received` can go on; a new one must not have carried anything.
    fn can_resume_behind(&self, received: Option<u64>) -> bool {
        match received {
            Some(received) => (self.counters.acknowledged()..=self.counters.sent()).contains(&received),
            None => self.counters.acknowledged() == 0 && self.counters.received() == 0,
        }
    }
}
