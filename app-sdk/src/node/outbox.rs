//! The queue of one link: the ring of its session, and who waits for a place in it.
//!
//! ```text
//!  try_send, send ── wait for room, in turn ─┐
//!  complete ──────── room, else reserve ─────┼──► Session's ring ──poll_transmit──► one WebSocket message each
//!  control ───────── never waits ────────────┘      ▲ kept until the proxy acknowledges it
//! ```
//!
//! Completions have a reserve of their own, because a connection whose sends are stuck must still answer; control
//! frames (closes, flow control, handshakes) are a few small ones per connection and never wait.

use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::Notify;
use trunkline_protocol::service::{
    Attachment, Class, Frames, Ping, Session, SessionError, Transmit, UndeliveredFrames,
};

use crate::sync::lock;

/// The session is over; whoever has a frame for its proxy asks for the next lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// Why a frame was not taken at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrySendError {
    Full,
    Closed,
}

/// What the writer of a socket does next.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Piece(Transmit),
    /// Nothing until then, unless something is queued.
    Idle(u64),
    /// Nothing more for this socket.
    Over,
}

/// The queue of one link. It lives as long as the session, over all its sockets.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// `None` once it is over.
    session: Mutex<Option<Session>>,
    sends: Line,
    completions: Line,
    filled: Notify,
}

/// Those who wait for a place, first come, first served: the first one waits to be told, the others for their turn.
#[derive(Debug, Default)]
struct Line {
    turn: tokio::sync::Mutex<()>,
    freed: Notify,
}

impl Outbox {
    pub(crate) fn new(session: Session) -> Self {
        Self {
            session: Mutex::new(Some(session)),
            sends: Line::default(),
            completions: Line::default(),
            filled: Notify::new(),
        }
    }

    /// Queues a send if there is room and nobody waits for it.
    pub(crate) fn try_send(&self, frame: &Bytes) -> Result<(), TrySendError> {
        let Ok(_turn) = self.sends.turn.try_lock() else { return Err(TrySendError::Full) };
        self.try_push(Class::Ordinary, frame)
    }

    /// Queues a send; waits for room.
    pub(crate) async fn send(&self, frame: &Bytes) -> Result<(), Closed> {
        self.push_in_line(&self.sends, Class::Ordinary, frame).await
    }

    /// Queues a completion; waits only when the reserve is used up too.
    pub(crate) async fn complete(&self, frame: &Bytes) -> Result<(), Closed> {
        match self.try_send(frame) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed) => Err(Closed),
            Err(TrySendError::Full) => self.push_in_line(&self.completions, Class::Reserved, frame).await,
        }
    }

    /// Queues a small frame that must not wait.
    pub(crate) fn control(&self, frame: &[u8]) -> Result<(), Closed> {
        let queued = self.with_session(|session| session.push(Class::Reserved, |out| out.extend_from_slice(frame)));
        queued.ok_or(Closed)?;
        self.filled.notify_one();
        Ok(())
    }

    /// Queues a ping that the proxy wants back.
    pub(crate) fn echo(&self, ping: &Ping) {
        self.with_session(|session| session.push_echo(ping));
        self.filled.notify_one();
    }

    /// What the writer of this socket does next.
    pub(crate) fn poll(&self, attachment: Attachment, now_ms: u64) -> Outgoing {
        let next = self.with_session(|session| match session.poll_transmit(attachment, now_ms) {
            Some(piece) => Outgoing::Piece(piece),
            None => session.poll_ping_timeout().map_or(Outgoing::Over, Outgoing::Idle),
        });
        if let Some(Outgoing::Piece(_)) = next {
            // Of what goes to a proxy that doesn't resume nothing is kept.
            self.tell_freed();
        }
        next.unwrap_or(Outgoing::Over)
    }

    /// Takes the acknowledgement that may ride on a ping.
    pub(crate) fn handle_ping(&self, ping: &Ping) -> Result<(), SessionError> {
        self.with_session(|session| session.handle_ping(ping).map(drop)).unwrap_or(Ok(()))?;
        self.tell_freed();
        Ok(())
    }

    /// Waits until something was queued, or [`wake`](Self::wake) was called, since the last wait.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Ends a wait of the writer, who has to look at something else.
    pub(crate) fn wake(&self) {
        self.filled.notify_one();
    }

    /// Ends the session: takes no more, and whoever waits is sent away. Returns what was in its ring.
    pub(crate) fn close(&self) -> UndeliveredFrames {
        let session = lock(&self.session).take();
        self.filled.notify_one();
        self.sends.freed.notify_one();
        self.completions.freed.notify_one();
        session.map(Session::end).unwrap_or_default()
    }

    /// Takes over what another link never wrote. It is let in without room: it had been paid for there.
    pub(crate) fn inherit(&self, unsent: Frames) {
        self.with_session(|session| session.inherit(unsent));
        self.filled.notify_one();
    }

    /// Whether the link has a socket at the moment.
    pub(crate) fn is_open(&self) -> bool {
        self.with_session(|session| session.is_attached()) == Some(true)
    }

    /// Does something with the session; `None` when it is over.
    pub(crate) fn with_session<T>(&self, act: impl FnOnce(&mut Session) -> T) -> Option<T> {
        lock(&self.session).as_mut().map(act)
    }

    fn try_push(&self, class: Class, frame: &Bytes) -> Result<(), TrySendError> {
        let pushed = self.with_session(|session| session.try_push(class, |out| out.extend_from_slice(frame)));
        pushed.ok_or(TrySendError::Closed)?.map_err(|_| TrySendError::Full)?;
        self.filled.notify_one();
        Ok(())
    }

    async fn push_in_line(&self, line: &Line, class: Class, frame: &Bytes) -> Result<(), Closed> {
        let _turn = line.turn.lock().await;
        loop {
            match self.try_push(class, frame) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed) => return Err(Closed),
                Err(TrySendError::Full) => line.freed.notified().await,
            }
        }
    }

    fn tell_freed(&self) {
        let has_place = |class| self.with_session(|session| session.has_place(class)) == Some(true);
        if has_place(Class::Ordinary) {
            self.sends.freed.notify_one();
        }
        if has_place(Class::Reserved) {
            self.completions.freed.notify_one();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use trunkline_protocol::service::{Capabilities, Offer, Role, SessionId, SessionSettings};

    use super::*;

    /// An outbox with a ring of so many bytes, and its socket to a proxy that does not resume.
    pub(crate) fn outbox(ring_max_bytes: usize) -> (Outbox, Attachment) {
        let settings = SessionSettings::new(ring_max_bytes, 1_000);
        let mut session = Session::new(SessionId::FIRST, Role::AppServer, settings, 0);
        let offer = Offer { session: SessionId::FIRST, received: None, capabilities: Capabilities::default() };
        let (attachment, _) = session.handle_offer(&offer, 0).unwrap();
        (Outbox::new(session), attachment)
    }

    /// The next piece that is written.
    pub(crate) fn take(outbox: &Outbox, attachment: Attachment) -> Option<Transmit> {
        match outbox.poll(attachment, 0) {
            Outgoing::Piece(piece) => Some(piece),
            Outgoing::Idle(_) | Outgoing::Over => None,
        }
    }

    /// A frame whose body has so many bytes.
    fn frame(length: u8, fill: u8) -> Bytes {
        let mut frame = vec![fill; usize::from(length) + 1];
        frame[0] = length;
        frame.into()
    }

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn frames_leave_in_one_order_and_many_at_once() {
        let (outbox, socket) = outbox(1024);
        outbox.try_send(&frame(1, 7)).unwrap();
        outbox.control(&frame(1, 8)).unwrap();
        let piece = take(&outbox, socket).unwrap();
        assert_eq!((&piece.bytes[..], piece.frames), (&[1, 7, 1, 8][..], 2));
        assert!(take(&outbox, socket).is_none());
    }

    #[test]
    fn a_send_waits_for_room_while_completions_and_control_go_on() {
        let (outbox, socket) = outbox(100);
        outbox.try_send(&frame(99, 0)).unwrap();
        let next = frame(20, 1);
        assert_eq!(outbox.try_send(&next), Err(TrySendError::Full));
        let mut waiting = pin!(outbox.send(&next));
        assert!(poll(waiting.as_mut()).is_pending());
        let completion = frame(24, 2);
        assert!(poll(pin!(outbox.complete(&completion))).is_ready());
        assert!(poll(pin!(outbox.complete(&completion))).is_pending(), "the reserve has an end too");
        outbox.control(&frame(1, 3)).unwrap();
        while take(&outbox, socket).is_some() {}
        assert_eq!(poll(waiting.as_mut()), Poll::Ready(Ok(())));
    }

    #[test]
    fn whoever_waits_first_is_served_first_and_nobody_overtakes() {
        let (outbox, socket) = outbox(10);
        let filling = frame(9, 0);
        outbox.try_send(&filling).unwrap();
        let mut first = pin!(outbox.send(&filling));
        let mut second = pin!(outbox.send(&filling));
        assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
        take(&outbox, socket).unwrap();
        assert_eq!(outbox.try_send(&filling), Err(TrySendError::Full), "others wait");
        assert!(poll(second.as_mut()).is_pending());
        assert!(poll(first.as_mut()).is_ready());
        assert!(poll(second.as_mut()).is_pending());
        take(&outbox, socket).unwrap();
        assert!(poll(second.as_mut()).is_ready());
    }

    #[test]
    fn a_frame_larger_than_the_limit_passes_alone() {
        let (outbox, socket) = outbox(10);
        outbox.try_send(&frame(100, 0)).unwrap();
        assert_eq!(outbox.try_send(&frame(1, 0)), Err(TrySendError::Full));
        take(&outbox, socket).unwrap();
        outbox.try_send(&frame(1, 0)).unwrap();
    }

    #[test]
    fn the_end_sends_all_who_wait_away_and_hands_over_the_rest() {
        let ((old, _), (new, socket)) = (outbox(10), outbox(10));
        old.try_send(&frame(9, 7)).unwrap();
        let next = frame(9, 8);
        let mut first = pin!(old.send(&next));
        let mut second = pin!(old.send(&next));
        assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
        new.inherit(old.close().unsent);
        assert_eq!(poll(first.as_mut()), Poll::Ready(Err(Closed)));
        assert_eq!(poll(second.as_mut()), Poll::Ready(Err(Closed)));
        assert_eq!(old.control(&next), Err(Closed));
        assert_eq!(new.try_send(&next), Err(TrySendError::Full));
        new.control(&next).unwrap();
        let written: Vec<_> = std::iter::from_fn(|| take(&new, socket)).map(|piece| piece.bytes[1]).collect();
        assert_eq!(written, [7, 8]);
    }
}
