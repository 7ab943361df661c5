//! End of a slot: a session driver like the ones in proxy and SDK, with a slow consumer.

mod reading;

use std::collections::VecDeque;

use bytes::Bytes;
use bytestring::ByteString;
use trunkline_protocol::limits::ACKNOWLEDGE_DELAY_MS;
use trunkline_protocol::service::{
    ACKNOWLEDGE_KEY, Attachment, Class, FrameBuffer, Incoming, Ping, ServiceMessage, Session,
};

use crate::ledger::{Check, Content, Ledger, broken};
use crate::mutant::Mutant;
use crate::wire::Socket;

/// Maximum frame size in the simulation, including the envelope.
pub(crate) const FRAME_MAX_BYTES: usize = 128;

/// Session of an end, with the simulation's knowledge about it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) session: Session,
    pub(crate) ledger: usize,
    pub(crate) link: Option<Link>,
    incoming: Incoming,
    /// Delivered but not yet taken frames: numbers and bytes.
    handed: VecDeque<(u64, usize)>,
    /// Last number taken by the consumer.
    pub(crate) taken: u64,
    /// Last number acknowledged to the peer.
    told: u64,
    /// Time since which an acknowledgement is owed.
    owing_ms: Option<u64>,
    /// Time of the last bytes from the peer.
    pub(crate) heard_ms: u64,
    /// Total frozen time of this end until then.
    pub(crate) heard_frozen: Frozen,
    /// Time at which the last socket was lost; `None` with a socket or before the first.
    pub(crate) lost_ms: Option<u64>,
    /// Time since which there is no room.
    pub(crate) full_ms: Option<u64>,
    /// Socket that should have been dropped.
    leaked: Option<(usize, FrameBuffer)>,
    /// Previous attachment. Its writer may notice the change late.
    previous: Option<Attachment>,
}

/// Attached socket of a session.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) attachment: Attachment,
    pub(crate) socket: usize,
    frames: FrameBuffer,
}

/// Freezes of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Frozen {
    pub(crate) ms: u64,
    pub(crate) times: u64,
}

/// Environment of an end's actions.
pub(crate) struct Around<'a> {
    pub(crate) end: usize,
    pub(crate) now_ms: u64,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) frozen: Frozen,
    pub(crate) ledgers: &'a mut Vec<Ledger>,
}

impl Around<'_> {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

impl Held {
    pub(crate) fn new(session: Session, ledger: usize, now_ms: u64, frozen: Frozen) -> Self {
        Self {
            session,
            ledger,
            link: None,
            incoming: Incoming::default(),
            handed: VecDeque::new(),
            taken: 0,
            told: 0,
            owing_ms: None,
            heard_ms: now_ms,
            heard_frozen: frozen,
            lost_ms: None,
            full_ms: None,
            leaked: None,
            previous: None,
        }
    }

    pub(crate) fn attached(&mut self, attachment: Attachment, socket: usize, told: u64, around: &Around<'_>) -> Check {
        let mut frames = FrameBuffer::default();
        if let (true, Some(old)) = (around.is(Mutant::KeepsHalfFrames), self.link.take()) {
            frames = old.frames;
        }
        if told > self.taken {
            return broken(format!("{told} frames were told to be taken, {} are", self.taken));
        }
        self.told = told;
        self.owing_ms = (told < self.taken).then_some(around.now_ms);
        self.incoming.attach(if around.is(Mutant::NumbersFromOneAgain) { 0 } else { told });
        self.link = Some(Link { attachment, socket, frames });
        (self.heard_ms, self.heard_frozen) = (around.now_ms, around.frozen);
        self.lost_ms = None;
        Ok(())
    }

    pub(crate) fn detached(&mut self, mutant: Option<Mutant>, now_ms: u64) {
        self.lost_ms = Some(now_ms);
        let kept = if mutant == Some(Mutant::KeepsHalfFrames) { None } else { self.link.take() };
        if let (Some(Mutant::ReadsTwoSockets), Some(link)) = (mutant, kept) {
            self.leaked = Some((link.socket, link.frames));
        }
    }

    /// Queues a frame. Returns `false` if there is no room.
    pub(crate) fn push(&mut self, class: Class, padding: usize, around: &mut Around<'_>) -> Check<bool> {
        let flow = &mut around.ledgers[self.ledger].flows[around.end];
        let content = Content { ledger: self.ledger, sender: around.end, number: flow.queued + 1 };
        let pushed = if around.mutant == Some(Mutant::OverfillsTheRing) {
            Ok(self.session.push(class, |out| content.encode(padding, out)))
        } else {
            self.session.try_push(class, |out| content.encode(padding, out))
        };
        match pushed {
            Ok(number) if number == content.number => flow.queued = number,
            Ok(number) => return broken(format!("frame {} was numbered {number}", content.number)),
            Err(_) => return Ok(false),
        }
        self.check_bounds().map(|()| true)
    }

    fn check_bounds(&self) -> Check {
        let (load, limit) = (self.session.load(), self.session.limit());
        if load.room > limit.room + FRAME_MAX_BYTES || load.reserve > limit.reserve + FRAME_MAX_BYTES {
            return broken(format!("the ring holds {load:?}, its limit is {limit:?}"));
        }
        Ok(())
    }

    pub(crate) fn transmit(&mut self, sockets: &mut [Socket], around: &Around<'_>) -> Check {
        let Some(&Link { attachment, socket, .. }) = self.link.as_ref() else { return Ok(()) };
        if self.previous.replace(attachment).is_some_and(|previous| {
            previous != attachment
                && (self.session.detach(previous, around.now_ms).is_some()
                    || self.session.poll_transmit(previous, around.now_ms).is_some())
        }) {
            return broken("an old socket is given something");
        }
        while sockets[socket].can_write(around.end) {
            let Some(piece) = self.session.poll_transmit(attachment, around.now_ms) else {
                // Everything is written, so overdue acknowledgements must have been sent.
                let is_late = self.owing_ms.is_some_and(|since_ms| since_ms + ACKNOWLEDGE_DELAY_MS < around.now_ms);
                return if is_late && self.told < self.taken { broken("an acknowledgement is late") } else { Ok(()) };
            };
            if piece.frames == 0 {
                let bytes = self.ping(&piece.bytes, around)?;
                sockets[socket].write(around.end, &bytes);
                continue;
            }
            sockets[socket].write(around.end, &piece.bytes);
            if around.is(Mutant::TrimsWhatIsSent) {
                let _ = self.session.handle_ping(&acknowledgement(self.session.counters().sent()));
            }
        }
        Ok(())
    }

    /// Inspects an outgoing ping. Mutants change it here.
    fn ping(&mut self, frame: &Bytes, around: &Around<'_>) -> Check<Bytes> {
        let mut value = acknowledged_by(frame);
        if around.is(Mutant::NeverAcknowledges) {
            return Ok(ServiceMessage::Ping(Ping::default()).to_frame());
        }
        if around.is(Mutant::AcknowledgesOneTooMany) {
            value = value.map(|value| value + 1);
        }
        if around.is(Mutant::AcknowledgesWhenIdle) {
            value = value.or(Some(self.told));
        }
        let Some(value) = value else { return Ok(frame.clone()) };
        if value > self.taken {
            return broken(format!("frame {value} is acknowledged, {} are taken", self.taken));
        }
        if value <= self.told {
            return broken(format!("frame {value} is acknowledged again"));
        }
        self.told = value;
        self.owing_ms = None;
        Ok(ServiceMessage::Ping(acknowledgement(value)).to_frame())
    }

    /// Tracks independently when the ring was full.
    pub(crate) fn check_ring(&mut self, now_ms: u64) {
        self.full_ms = if self.session.has_place(Class::Ordinary) { None } else { self.full_ms.or(Some(now_ms)) };
    }

    pub(crate) fn is_settled(&self, ledger: &Ledger, end: usize) -> bool {
        let flow = &ledger.flows[end];
        self.session.is_attached()
            && self.handed.is_empty()
            && flow.delivered == flow.queued
            && self.session.counters().acknowledged() == flow.queued
            && self.session.load().bytes() == 0
    }
}

fn acknowledgement(number: u64) -> Ping {
    Ping { pairs: vec![(ByteString::from_static(ACKNOWLEDGE_KEY), number.to_string().into())] }
}

fn acknowledged_by(frame: &Bytes) -> Option<u64> {
    let mut frames = FrameBuffer::default();
    frames.push(frame.clone());
    match ServiceMessage::decode(&frames.next_body().ok()??) {
        Ok(Some(ServiceMessage::Ping(ping))) => ping.get(ACKNOWLEDGE_KEY)?.parse().ok(),
        _ => None,
    }
}
