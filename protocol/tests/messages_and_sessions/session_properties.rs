//! Properties of a session: the peer gets every frame once and in order, for any sequence of queueing, writing,
//! acknowledging and cutting.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]

use bytes::{BufMut, Bytes};
use proptest::collection::vec;
use proptest::prelude::*;
use trunkline_protocol::service::{
    ACKNOWLEDGE_KEY, Answer, Attachment, Capabilities, Class, FrameBuffer, Incoming, Ping, Role, Session, SessionId,
    SessionSettings,
};

const RING_BYTES: usize = 2_000;

#[derive(Debug, Clone)]
enum Step {
    /// A frame of this size is queued, if there is room.
    Push(usize),
    /// A chunk is written.
    Write,
    /// The peer reads this many bytes.
    Read(usize),
    /// The peer takes and acknowledges what it read.
    Acknowledge,
    /// The socket is lost with everything in flight and replaced.
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..400_usize).prop_map(Step::Push),
        3 => Just(Step::Write),
        4 => (0..500_usize).prop_map(Step::Read),
        2 => Just(Step::Acknowledge),
        1 => Just(Step::Cut),
    ]
}

/// A session, its socket, and a peer that records numbers.
struct Link {
    session: Session,
    attachment: Attachment,
    wire: Vec<u8>,
    incoming: Incoming,
    frames: FrameBuffer,
    got: Vec<u64>,
    taken: u64,
    queued: u64,
}

fn attach(session: &mut Session, received: u64) -> Attachment {
    let capabilities = Capabilities { resume_ring_bytes: Some(RING_BYTES), ..Capabilities::default() };
    session.handle_answer(&session.offer(), &Answer { received, capabilities }, 0).unwrap().unwrap()
}

impl Link {
    fn new() -> Self {
        let settings = SessionSettings::new(RING_BYTES, 1_000);
        let mut session = Session::new(SessionId::FIRST, Role::Proxy, settings, 0);
        let attachment = attach(&mut session, 0);
        let (incoming, frames) = (Incoming::default(), FrameBuffer::default());
        Self { session, attachment, wire: Vec::new(), incoming, frames, got: Vec::new(), taken: 0, queued: 0 }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Push(padding) => self.push(padding),
            Step::Write => {
                if let Some(piece) = self.session.poll_transmit(self.attachment, 0) {
                    self.wire.extend_from_slice(&piece.bytes);
                }
            }
            Step::Read(bytes) => self.read(bytes),
            Step::Acknowledge => {
                self.taken = self.incoming.handed_out();
                let ping = Ping { pairs: vec![(ACKNOWLEDGE_KEY.into(), self.taken.to_string().into())] };
                prop_assert!(self.session.handle_ping(&ping).is_ok());
            }
            Step::Cut => {
                self.session.detach(self.attachment, 0);
                self.attachment = attach(&mut self.session, self.taken);
                self.incoming.attach(self.taken);
                (self.wire, self.frames) = (Vec::new(), FrameBuffer::default());
            }
        }
        prop_assert!(self.session.load().bytes() <= RING_BYTES + 410);
        prop_assert!(self.got.iter().copied().eq(1..=self.got.len() as u64), "{:?}", self.got);
        Ok(())
    }

    fn push(&mut self, padding: usize) {
        let number = self.queued + 1;
        let pushed = self.session.try_push(Class::Ordinary, |out| {
            let length = 8 + padding;
            // A fixed length prefix of two bytes.
            out.put_slice(&[u8::try_from(length & 0x7f).unwrap() | 0x80, u8::try_from(length >> 7).unwrap()]);
            out.put_u64(number);
            out.put_bytes(b'x', padding);
        });
        if let Ok(numbered) = pushed {
            assert_eq!(numbered, number);
            self.queued = number;
        }
    }

    fn read(&mut self, bytes: usize) {
        let bytes = bytes.min(self.wire.len());
        self.frames.push(Bytes::from(self.wire.drain(..bytes).collect::<Vec<_>>()));
        while let Some(body) = self.frames.next_body().unwrap() {
            if self.incoming.next().is_some() {
                self.got.push(u64::from_be_bytes(body[..8].try_into().unwrap()));
            }
        }
    }
}

proptest! {
    #[test]
    fn cuts_lose_repeat_and_mix_up_nothing(steps in vec(step(), 0..200)) {
        let mut link = Link::new();
        for step in &steps {
            link.step(step)?;
        }
        for _ in 0..=link.queued {
            link.step(&Step::Write)?;
        }
        link.step(&Step::Read(usize::MAX))?;
        link.step(&Step::Acknowledge)?;
        prop_assert_eq!(link.got.len() as u64, link.queued);
        prop_assert_eq!(link.session.load().bytes(), 0);
    }

    #[test]
    fn undelivered_frames_are_the_unacknowledged_ones(steps in vec(step(), 0..100)) {
        let mut link = Link::new();
        for step in &steps {
            link.step(step)?;
        }
        let (sent, queued) = (link.session.counters().sent(), link.queued);
        let acknowledged = link.session.counters().acknowledged();
        let leftover = link.session.end();
        prop_assert_eq!((leftover.uncertain.count, leftover.unsent.count), (sent - acknowledged, queued - sent));
        let mut frames = FrameBuffer::default();
        leftover.uncertain.chunks.into_iter().chain(leftover.unsent.chunks).for_each(|chunk| frames.push(chunk));
        for number in acknowledged + 1..=queued {
            let body = frames.next_body().unwrap().unwrap();
            prop_assert_eq!(u64::from_be_bytes(body[..8].try_into().unwrap()), number);
        }
    }
}
