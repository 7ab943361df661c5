//! Link session: survives broken sockets without losing, repeating or reordering frames.
//!
//! One state machine for both ends, without sockets or clocks: frames and milliseconds are inputs; bytes, deadlines and
//! events are outputs. A session outlives its sockets; each slot of a pool has one session at a time.
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
//! The driver writes the output of [`poll_transmit`](Session::poll_transmit) until there is none, arms one timer for
//! [`poll_timeout`](Session::poll_timeout), calls [`handle_timeout`](Session::handle_timeout) when it fires, and acts
//! on the [`SessionEvent`]. [`end`](Session::end) returns the frames left in the ring.

mod counters;
mod event;
mod offer;
mod ring;
mod settings;
#[cfg(test)]
mod tests;
mod traffic;

use std::collections::VecDeque;

use bytes::Bytes;

use ring::Ring;

pub use counters::{ACKNOWLEDGE_KEY, CRASHED_NODE_KEY, Counters, ECHO_KEY, Incoming};
pub use event::{SessionEndReason, SessionError, SessionEvent, Transmit, UndeliveredFrames};
pub use offer::{Answer, Capabilities, HeaderError, Offer, SessionId, parse_received};
pub use ring::{Class, Frames, Load, RingFull};
pub use settings::{Backoff, Role, SessionSettings};

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
    /// Size of the peer's ring; `None` while it is not known to resume.
    peer_ring_bytes: Option<usize>,
    last_sent_ms: u64,
    /// Replies to pings of the peer, each with the last frame queued before it.
    echoes: VecDeque<(u64, Bytes)>,
}

/// Socket of a session. Calls for an older socket are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    New,
    Attached,
    Detached { since_ms: u64 },
}

impl Session {
    /// Creates a session without a socket.
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

    /// Returns the proxy's offer for dialling. The old socket must be closed first, because it must not add to the
    /// peer's counters afterwards.
    #[must_use]
    pub fn offer(&self) -> Offer {
        let received = (self.link != Link::New).then_some(self.counters.received());
        Offer { session: self.id, received, capabilities: self.capabilities() }
    }

    /// Returns the app server's answer to an upgrade; the session attaches with an equal `received`.
    #[must_use]
    pub fn answer(&self) -> Answer {
        Answer { received: self.counters.received(), capabilities: self.capabilities() }
    }

    /// Attaches the socket of a proxy's successful dial. `None` means that the session of the offer has ended: close
    /// the socket. Fails if the answer is inconsistent; the driver has to end the session.
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

    /// Attaches the socket of an upgrade that starts or resumes this session at the app server. Fails if the offer is
    /// inconsistent; the driver has to end the session.
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
        self.counters.note_sent_in_upgrade(told);
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

    /// Detaches an ended socket, unless a newer one is attached.
    pub fn detach(&mut self, attachment: Attachment, now_ms: u64) -> Option<SessionEvent> {
        if !self.is_present(attachment) {
            return None;
        }
        self.link = Link::Detached { since_ms: now_ms };
        self.echoes.clear();
        self.peer_ring_bytes.is_none().then_some(SessionEvent::End(SessionEndReason::NotResumable))
    }

    /// Ends the session and returns the frames of its ring.
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

    /// Id of this session.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whether the session has a socket.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.link == Link::Attached
    }

    /// Whether the ring has room for a frame.
    #[must_use]
    pub fn has_place(&self, class: Class) -> bool {
        self.ring.has_place(class)
    }

    /// Bytes waiting to be sent or acknowledged.
    #[must_use]
    pub fn load(&self) -> Load {
        self.ring.load()
    }

    /// Part of the load not yet sent over the current socket.
    #[must_use]
    pub fn unsent(&self) -> Load {
        self.ring.unsent()
    }

    /// Limit of the load.
    #[must_use]
    pub fn limit(&self) -> Load {
        self.ring.limit()
    }

    /// Number of the last queued frame.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.ring.last()
    }

    /// Number of the last frame that the peer is known to have. A peer that can't resume acknowledges nothing, so for
    /// it this is the last frame written to the socket.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        if self.peer_ring_bytes.is_some() { self.counters.acknowledged() } else { self.counters.sent() }
    }

    /// Counters of frames sent, received and acknowledged.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether a peer that has everything up to `received` can resume. A new peer requires an unused session.
    fn can_resume_behind(&self, received: Option<u64>) -> bool {
        match received {
            Some(received) => (self.counters.acknowledged()..=self.counters.sent()).contains(&received),
            None => self.counters.acknowledged() == 0 && self.counters.received() == 0,
        }
    }
}

/// Decision of the app server about an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeDecision {
    /// The slot still has a socket, of this session or an older one: end and detach it, then decide again.
    EndSocketFirst,
    /// Starts this session and ends the slot's previous session.
    Begin,
    /// Resumes the session of the slot.
    Resume,
    /// Refuses the upgrade for this reason.
    Refuse(UpgradeRefusal),
}

/// Reason for refusing an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeRefusal {
    /// The session has ended or never started: the proxy also ends it and dials with the next one.
    #[error("the session is not known here")]
    Unknown,
    /// The upgrade is outdated: the proxy has given it up long ago.
    #[error("the upgrade comes too late")]
    Stale,
}

/// Decides about an upgrade, given the slot's live session and the newest id it ever had.
#[must_use]
pub fn decide_upgrade(offer: &Offer, live: Option<&Session>, newest: Option<SessionId>) -> UpgradeDecision {
    let known = live.filter(|session| session.id() == offer.session);
    let refusal = match known {
        Some(session) if session.can_resume_behind(offer.received) => None,
        Some(_) => Some(UpgradeRefusal::Stale),
        None if newest.is_some_and(|newest| newest >= offer.session) || offer.received.is_some() => {
            Some(UpgradeRefusal::Unknown)
        }
        None => None,
    };
    match refusal {
        Some(refusal) => UpgradeDecision::Refuse(refusal),
        None if live.is_some_and(Session::is_attached) => UpgradeDecision::EndSocketFirst,
        None if known.is_some() => UpgradeDecision::Resume,
        None => UpgradeDecision::Begin,
    }
}

/// Silence of the peer, counted in ticks.
///
/// A late tick counts as one: after a process was frozen for a minute, its clock shows a minute of silence, but its
/// sockets contain the peer's bytes. Those must be read before the peer is declared dead.
#[derive(Debug, Clone)]
struct Silence {
    tick_ms: u64,
    ticks: u64,
    next_ms: u64,
}

impl Silence {
    /// Starts counting when the peer has just sent bytes.
    fn new(tick_ms: u64, now_ms: u64) -> Self {
        Self { tick_ms, ticks: 0, next_ms: now_ms.saturating_add(tick_ms) }
    }

    /// Restarts after bytes from the peer.
    fn note_received(&mut self, now_ms: u64) {
        *self = Self::new(self.tick_ms, now_ms);
    }

    fn handle_timeout(&mut self, now_ms: u64) {
        if now_ms >= self.next_ms {
            self.ticks += 1;
            self.next_ms = now_ms.saturating_add(self.tick_ms);
        }
    }

    fn poll_timeout(&self) -> u64 {
        self.next_ms
    }

    fn lasted_ms(&self) -> u64 {
        self.ticks.saturating_mul(self.tick_ms)
    }
}
