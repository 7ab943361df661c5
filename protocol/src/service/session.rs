//! Link session: a link that is cut loses nothing, repeats nothing and keeps its order.
//!
//! One machine serves both ends. No socket, no clock: frames and milliseconds come in; bytes, deadlines and events
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
//! [`poll_timeout`](Session::poll_timeout), calls [`handle_timeout`](Session::handle_timeout) when it fires, and does
//! what the [`SessionEvent`] says. What was in the ring of a session that is over comes back from
//! [`end`](Session::end).

mod backoff;
mod counters;
mod decision;
mod event;
mod incoming;
mod offer;
mod ring;
mod settings;
mod silence;
#[cfg(test)]
mod tests;
mod time;
mod traffic;

use std::collections::VecDeque;

use bytes::Bytes;

pub use backoff::Backoff;
pub use counters::{ACKNOWLEDGE_KEY, CRASHED_NODE_KEY, Counters, ECHO_KEY};
pub use decision::{UpgradeDecision, UpgradeRefusal, decide_upgrade};
pub use event::{SessionEndReason, SessionError, SessionEvent, Transmit, UndeliveredFrames};
pub use incoming::Incoming;
pub use offer::{Answer, Capabilities, HeaderError, Offer, SessionId, parse_received};
use ring::Ring;
pub use ring::{Class, Frames, Load, RingFull};
pub use settings::{Role, SessionSettings};
use silence::Silence;

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
    /// Number of attachments so far.
    attachments: u64,
    /// The peer's ring; `None` while it is not known to resume.
    peer_ring_bytes: Option<usize>,
    last_sent_ms: u64,
    /// Pings that the peer wants back, each behind the frame that was the last when it came.
    echoes: VecDeque<(u64, Bytes)>,
}

/// Socket of a session. Calls for an older one than the present are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    New,
    Attached,
    Detached { since_ms: u64 },
}

impl Session {
    /// Creates a session that has no socket yet.
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

    /// Returns the offer of the proxy when it dials. Behind it the old socket must bring nothing more to the counters
    /// of the peer: close it first.
    #[must_use]
    pub fn offer(&self) -> Offer {
        let received = (self.link != Link::New).then_some(self.counters.received());
        Offer { session: self.id, received, capabilities: self.capabilities() }
    }

    /// Returns the answer of the app server when it takes an upgrade; it attaches with an equal `received`.
    #[must_use]
    pub fn answer(&self) -> Answer {
        Answer { received: self.counters.received(), capabilities: self.capabilities() }
    }

    /// Attaches the socket of a proxy's dial that succeeded. `None`: the session of the offer has ended, close the
    /// socket.
    ///
    /// # Errors
    /// When the answer makes no sense; the driver has to end the session.
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

    /// Attaches the socket of an upgrade that begins or resumes this session at the app server.
    ///
    /// # Errors
    /// When the offer makes no sense; the driver has to end the session.
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
        if can.resume_ring_bytes.is_none() {
            self.settings = self.settings.without_resuming();
        }
        self.silence = Silence::new(self.settings.tick_ms(), now_ms);
        self.last_sent_ms = now_ms;
        self.echoes.clear();
        self.link = Link::Attached;
        self.attachments += 1;
        Ok(Attachment(self.attachments))
    }

    /// Detaches a socket that has ended; nothing happens if it is not the present one.
    pub fn detach(&mut self, attachment: Attachment, now_ms: u64) -> Option<SessionEvent> {
        if !self.is_present(attachment) {
            return None;
        }
        self.link = Link::Detached { since_ms: now_ms };
        self.echoes.clear();
        self.peer_ring_bytes.is_none().then_some(SessionEvent::End(SessionEndReason::NotResumable))
    }

    /// Ends the session, and returns the frames of its ring.
    pub fn end(mut self) -> UndeliveredFrames {
        self.ring.rewind(self.counters.acknowledged());
        let (uncertain, unsent) = self.ring.drain(self.counters.sent());
        UndeliveredFrames { uncertain, unsent }
    }

    fn capabilities(&self) -> Capabilities {
        let is_proxy = self.role == Role::Proxy;
        let window_ms = is_proxy.then_some(self.settings.window_ms);
        let resume_ring_bytes = Some(self.settings.ring_max_bytes);
        let (lists_members, tells_presence) = (is_proxy, is_proxy);
        let client_message_max_bytes = self.settings.client_message_max_bytes;
        let by_role = Capabilities { lists_members, tells_presence, ..Capabilities::plain() };
        Capabilities { resume_ring_bytes, window_ms, client_message_max_bytes, ..by_role }
    }

    fn is_present(&self, attachment: Attachment) -> bool {
        self.is_attached() && attachment.0 == self.attachments
    }

    /// Returns the id of this session.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whether it has a socket.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.link == Link::Attached
    }

    /// Whether the ring has room for a frame.
    #[must_use]
    pub fn has_place(&self, class: Class) -> bool {
        self.ring.has_place(class)
    }

    /// Returns the bytes that wait to be sent or acknowledged.
    #[must_use]
    pub fn load(&self) -> Load {
        self.ring.load()
    }

    /// Returns the part of the load that the present socket has not got yet.
    #[must_use]
    pub fn unsent(&self) -> Load {
        self.ring.unsent()
    }

    /// Returns the limit of the load.
    #[must_use]
    pub fn limit(&self) -> Load {
        self.ring.limit()
    }

    /// Returns the number of the last frame that was queued.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.ring.last()
    }

    /// Returns the number of the last frame that the peer has, as far as can be known: of one that can't resume, and so
    /// acknowledges nothing, the last frame that the socket has got.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        if self.peer_ring_bytes.is_some() { self.counters.acknowledged() } else { self.counters.sent() }
    }

    /// Returns the counters of frames sent, taken in, and acknowledged.
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
