//! Ownership of a client connection with stateful reconnect at one node, and the handling of frames for it.
//!
//! ```text
//!             depart                        all have answered
//!  Owned ─────────────────► Departing ────────────────────────► Given ── new owner has it ──► gone; timed out ──► closed
//!    ▲ ◄─ fails, or late ────────┘                                │
//!    │                                                         its state
//!    └──────────── settle ────────── Arriving ◄───────────────────┘ at the other node; without state ──► gone
//! ```
//!
//! Both nodes receive the app servers' sends to many clients, each with its epoch. Each app server names the first
//! epoch for the new owner. So exactly one of the two delivers a send.
//!
//! Pure: time is given in ticks of one second. `A` identifies app servers.

use bytes::Bytes;

use super::{CountedFrame, MovedState};
use crate::cause::Cause;
use crate::hub::{ReceivedSequence, ReplayQueue};

/// Ticks until a move fails without the answers of app servers or the new owner's confirmation.
const MOVE_TICKS: u32 = 4;

/// Ticks to wait for answers to a failed move. After that, their link is lost.
const OWED_TICKS: u32 = 120;

/// Ticks until a connection has to arrive.
const ARRIVAL_TICKS: u32 = 8;

/// Origin of a send to many clients. Determines which of two nodes with a copy delivers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOrigin<A> {
    /// Sender that numbers its sends by epoch: an app server or, for dial-in, a node. With its epoch.
    Sender(A, i64),
    /// Relayed by another node to both nodes; the old owner delivers it.
    OtherNode,
}

/// Absence of a client after the end of its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    /// Tick at which its connection is given up.
    pub until: u32,
    /// Reason why its socket ended.
    pub cause: Cause,
}

/// Where a frame for the client was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Numbered and kept, and sent now if there is a socket.
    Kept,
    /// Waiting for acknowledgements, or for the end of the move.
    Waits,
    /// Another owner delivers it.
    Elsewhere,
    /// There is not enough room.
    TooMuch,
}

/// State of a connection with stateful reconnect at one node.
#[derive(Debug, Clone)]
pub struct Ownership<A> {
    queue: ReplayQueue<Bytes>,
    /// Messages received from the client.
    pub received: ReceivedSequence,
    /// `None` while the client has a socket.
    absence: Option<Absence>,
    phase: Phase<A>,
    /// First epoch of each app server that this node delivers.
    epochs: Vec<(A, i64)>,
    owed: Option<Box<OwedAnswers<A>>>,
    /// Frames of this origin, queued after the late frames of the old owner.
    behind: Option<(A, TransitFrames<A>)>,
}

/// Outstanding answers to a failed move. As answers to another move they would release the connection too early.
#[derive(Debug, Clone)]
struct OwedAnswers<A> {
    has_pause: bool,
    apps: Vec<A>,
    /// Tick at which waiting for them ends.
    until: u32,
}

#[derive(Debug, Clone)]
enum Phase<A> {
    Owned,
    /// This node still owns it, and another node waits for it.
    Departing(Box<Departure<A>>),
    /// The state has left: another node owns the connection, or it is gone.
    Given,
    /// Another node is about to hand the connection over.
    Arriving(TransitFrames<A>),
}

/// Outgoing move of a connection, with the outstanding answers.
#[derive(Debug, Clone)]
struct Departure<A> {
    frames: TransitFrames<A>,
    /// Its own app server has not acknowledged the pause.
    waits_for_pause: bool,
    waits_for: Vec<A>,
    /// Epochs of the app servers that have answered.
    epochs: Vec<(A, i64)>,
    until: u32,
}

/// Frames sent to a connection during its move, in order.
#[derive(Debug, Clone)]
struct TransitFrames<A> {
    /// Frames with their origin; `None` for frames to this connection alone.
    frames: Vec<(Option<SendOrigin<A>>, CountedFrame)>,
    bytes: usize,
}

impl<A> Default for TransitFrames<A> {
    fn default() -> Self {
        Self { frames: Vec::new(), bytes: 0 }
    }
}

impl<A: Copy> TransitFrames<A> {
    fn push(&mut self, origin: Option<SendOrigin<A>>, frame: CountedFrame) {
        self.bytes += frame.0.len();
        self.frames.push((origin, frame));
    }

    /// Frames for this connection alone, and those from matching origins.
    fn wanted_of(self, is_wanted: impl Fn(SendOrigin<A>) -> bool) -> Vec<CountedFrame> {
        let frames = self.frames.into_iter();
        frames.filter(|(origin, _)| origin.is_none_or(&is_wanted)).map(|(_, frame)| frame).collect()
    }
}

impl<A: Copy + PartialEq> SendOrigin<A> {
    fn is_for_old_owner(self, epochs: &[(A, i64)]) -> bool {
        match self {
            Self::Sender(app, epoch) => epoch_of(epochs, app).is_none_or(|begins| epoch < begins),
            Self::OtherNode => true,
        }
    }

    /// App servers unknown to the old owner send only to the new one.
    fn is_for_new_owner(self, epochs: &[(A, i64)]) -> bool {
        match self {
            Self::Sender(app, epoch) => epoch_of(epochs, app).is_none_or(|begins| epoch >= begins),
            Self::OtherNode => false,
        }
    }
}

fn epoch_of<A: PartialEq>(epochs: &[(A, i64)], app: A) -> Option<i64> {
    epochs.iter().find(|(known, _)| *known == app).map(|(_, epoch)| *epoch)
}

impl<A: Copy + PartialEq> Ownership<A> {
    /// Creates a new connection with this limit of unacknowledged bytes.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            queue: ReplayQueue::new(limit_bytes),
            received: ReceivedSequence::default(),
            absence: None,
            phase: Phase::Owned,
            epochs: Vec::new(),
            owed: None,
            behind: None,
        }
    }

    /// Creates a connection that is arriving from another node. Returns also the tick at which the arrival fails.
    #[must_use]
    pub fn arriving(limit_bytes: usize, now: u32) -> (Self, u32) {
        let until = now.saturating_add(ARRIVAL_TICKS);
        let absence = Some(Absence { until, cause: Cause::SocketEnded });
        (Self { absence, phase: Phase::Arriving(TransitFrames::default()), ..Self::new(limit_bytes) }, until)
    }

    /// Whether this node owns the connection and no other node waits for it.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        matches!(self.phase, Phase::Owned)
    }

    /// Whether the state has left: another node owns the connection, or it is gone.
    #[must_use]
    pub fn is_given(&self) -> bool {
        matches!(self.phase, Phase::Given)
    }

    /// Whether the state has not arrived yet.
    #[must_use]
    pub fn is_arriving(&self) -> bool {
        matches!(self.phase, Phase::Arriving(_))
    }

    /// Absence of the client; `None` while it has a socket.
    #[must_use]
    pub fn absence(&self) -> Option<Absence> {
        self.absence
    }

    /// Records the end of the client's socket; the client may reconnect until then. Returns whether it had a socket.
    pub fn leave(&mut self, until: u32, cause: Cause) -> bool {
        self.absence.replace(Absence { until, cause }).is_none()
    }

    /// Records that the client has a socket again. Returns `false` if it already has one, or if another node has begun
    /// to take the connection over since this one was claimed.
    #[must_use]
    pub fn come_back(&mut self) -> bool {
        // A reconnecting client always reports its received count.
        self.queue.end_hold();
        self.add_behind();
        self.is_owned() && self.absence.take().is_some()
    }

    /// Holds frames from now on: the client was just accepted and may not count messages yet.
    pub fn hold(&mut self) {
        self.queue.hold();
    }

    /// Whether frames are held until the client counts them.
    #[must_use]
    pub fn is_on_hold(&self) -> bool {
        self.queue.is_on_hold()
    }

    /// Whether the frame placed last is the first held one.
    #[must_use]
    pub fn has_begun_to_wait(&self) -> bool {
        self.queue.is_on_hold() && self.queue.held().len() == 1
    }

    /// Ends the hold. Returns whether there was one; frames may then be [released](Self::release).
    pub fn end_hold(&mut self) -> bool {
        self.queue.end_hold()
    }

    /// Places a frame of `messages` messages. `fits` decides whether it may wait behind that number of bytes; `origin`
    /// is `None` for frames to this connection alone.
    pub fn place(
        &mut self,
        frame: Bytes,
        messages: u32,
        origin: Option<SendOrigin<A>>,
        fits: impl FnOnce(usize) -> bool,
    ) -> Placement {
        if self.is_given() || origin.is_some_and(|origin| self.is_of_old_owner(origin)) {
            return Placement::Elsewhere;
        }
        let is_behind = self.behind.as_ref().is_some_and(|(own, _)| match origin {
            Some(SendOrigin::Sender(from, _)) => from == *own,
            Some(SendOrigin::OtherNode) => false,
            None => true,
        });
        let is_written = self.is_owned() && !is_behind && self.queue.has_room();
        if !is_written && !fits(self.waiting_bytes()) {
            return Placement::TooMuch;
        }
        match (&mut self.phase, &mut self.behind) {
            (Phase::Owned, Some((_, frames))) if is_behind => frames.push(origin, (frame, messages)),
            (Phase::Owned | Phase::Given, _) => self.queue.add_frame(frame, messages),
            (Phase::Departing(departure), _) => departure.frames.push(origin, (frame, messages)),
            (Phase::Arriving(frames), _) => frames.push(origin, (frame, messages)),
        }
        if is_written { Placement::Kept } else { Placement::Waits }
    }

    /// Whether the previous owner delivers a send.
    #[must_use]
    pub fn is_of_old_owner(&self, origin: SendOrigin<A>) -> bool {
        matches!(origin, SendOrigin::Sender(app, epoch) if epoch_of(&self.epochs, app).is_some_and(|begins| epoch < begins))
    }

    /// Whether a send that waited for the arrival is delivered here.
    #[must_use]
    pub fn is_of_new_owner(&self, origin: SendOrigin<A>) -> bool {
        origin.is_for_new_owner(&self.epochs)
    }

    /// Next frame that waited for acknowledgements, if there is room and a socket.
    pub fn release(&mut self) -> Option<Bytes> {
        if self.absence.is_some() { None } else { self.queue.release() }
    }

    /// Next frame that waited for acknowledgements, regardless of the room, if there is a socket: a close follows.
    pub fn release_last(&mut self) -> Option<Bytes> {
        if self.absence.is_some() { None } else { self.queue.release_last() }
    }

    /// Removes frames acknowledged by the client.
    pub fn acknowledge(&mut self, sequence_id: u64) {
        self.queue.acknowledge(sequence_id);
    }

    /// Sequence number of the first message for a new socket, and the frames to replay.
    pub fn replay(&self) -> (u64, impl ExactSizeIterator<Item = &Bytes>) {
        (self.queue.sequence(), self.queue.unacknowledged().map(|(frame, _)| frame))
    }

    /// Bytes kept for the client.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.queue.sent_bytes() + self.waiting_bytes()
    }

    /// Bytes that count as an outbox's.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        let in_transit = match &self.phase {
            Phase::Owned | Phase::Given => 0,
            Phase::Departing(departure) => departure.frames.bytes,
            Phase::Arriving(frames) => frames.bytes,
        };
        self.queue.held_bytes() + in_transit + self.behind.as_ref().map_or(0, |(_, frames)| frames.bytes)
    }
}

/// Steps of the old owner.
impl<A: Copy + PartialEq> Ownership<A> {
    /// Starts moving the connection to another node: its app server has to pause. Returns the tick at which the move
    /// fails, or `None` while the client has a socket, another node already waits, or answers to an earlier move are
    /// outstanding.
    pub fn depart(&mut self, now: u32) -> Option<u32> {
        self.owed.take_if(|owed| owed.until <= now || (!owed.has_pause && owed.apps.is_empty()));
        if self.owed.is_some() {
            return None;
        }
        let absence = self.absence.as_mut().filter(|_| matches!(self.phase, Phase::Owned))?;
        let until = now.saturating_add(MOVE_TICKS);
        absence.until = absence.until.max(until.saturating_add(1));
        self.add_behind();
        self.phase = Phase::Departing(Box::new(Departure {
            frames: TransitFrames::default(),
            waits_for_pause: true,
            waits_for: Vec::new(),
            epochs: Vec::new(),
            until,
        }));
        Some(until)
    }

    /// Handles the app server's acknowledgement that it sends no further client-only frames here. Returns whether to
    /// request the epoch switch from all app servers now. Requested earlier, a send to many could overtake an earlier
    /// one to the client alone.
    pub fn pause_acknowledged(&mut self) -> bool {
        if let Some(owed) = &mut self.owed {
            owed.has_pause = false;
        }
        matches!(&self.phase, Phase::Departing(departure) if departure.waits_for_pause)
    }

    /// Records the app servers that were asked.
    pub fn asked(&mut self, asked: Vec<A>) {
        if let Phase::Departing(departure) = &mut self.phase {
            (departure.waits_for_pause, departure.waits_for) = (false, asked);
        }
    }

    /// Records an app server's answer: the new owner delivers its sends from this epoch on.
    pub fn answered(&mut self, app: A, epoch: i64) {
        if let Some(owed) = &mut self.owed {
            owed.apps.retain(|owing| *owing != app);
        }
        if let Phase::Departing(departure) = &mut self.phase
            && let Some(place) = departure.waits_for.iter().position(|waiting| *waiting == app)
        {
            departure.waits_for.swap_remove(place);
            departure.epochs.push((app, epoch));
        }
    }

    /// Releases the state and the app servers' epochs once all have answered. From then on the other node owns the
    /// connection.
    pub fn let_go(&mut self, now: u32) -> Option<(MovedState, Vec<(A, i64)>)> {
        let Phase::Departing(departure) = &mut self.phase else { return None };
        if departure.waits_for_pause || !departure.waits_for.is_empty() {
            return None;
        }
        let (frames, epochs) = (std::mem::take(&mut departure.frames), std::mem::take(&mut departure.epochs));
        self.phase = Phase::Given;
        let counted = |(frame, messages): (&Bytes, u32)| (frame.clone(), messages);
        let behind = frames.wanted_of(|origin| origin.is_for_old_owner(&epochs));
        let state = MovedState {
            sequence: self.queue.sequence(),
            sent: self.queue.unacknowledged().map(counted).collect(),
            held: self.queue.held().cloned().chain(behind).collect(),
            received: self.received.latest(),
            ..MovedState::default()
        };
        if let Some(absence) = &mut self.absence {
            absence.until = now.saturating_add(MOVE_TICKS);
        }
        Some((state, epochs))
    }

    /// Whether app servers have not answered in time.
    #[must_use]
    pub fn is_late(&self, now: u32) -> bool {
        matches!(&self.phase, Phase::Departing(departure) if departure.until <= now)
    }

    /// Cancels a move before its state has left: the connection stays here. Returns whether there was a move, so that
    /// its app server has to be resumed.
    pub fn stay(&mut self) -> bool {
        let Phase::Departing(departure) = &mut self.phase else { return false };
        let (frames, apps) = (std::mem::take(&mut departure.frames), std::mem::take(&mut departure.waits_for));
        let until = departure.until.saturating_add(OWED_TICKS);
        self.owed = Some(Box::new(OwedAnswers { has_pause: departure.waits_for_pause, apps, until }));
        self.phase = Phase::Owned;
        for (frame, messages) in frames.wanted_of(|_| true) {
            self.queue.add_frame(frame, messages);
        }
        true
    }
}

/// Steps of the new owner.
impl<A: Copy + PartialEq> Ownership<A> {
    /// Takes the state released by the old owner, with the app servers' epochs. This node now owns the connection, and
    /// its client may reconnect until `until`. Returns whether the state was expected.
    pub fn settle(&mut self, state: MovedState, epochs: Vec<(A, i64)>, until: u32) -> bool {
        let Phase::Arriving(frames) = &mut self.phase else { return false };
        let frames = std::mem::take(frames);
        self.phase = Phase::Owned;
        self.queue.restore(state.sequence, state.sent, state.held);
        self.received = ReceivedSequence::after(state.received);
        for (frame, messages) in frames.wanted_of(|origin| origin.is_for_new_owner(&epochs)) {
            self.queue.add_frame(frame, messages);
        }
        self.epochs = epochs;
        if let Some(absence) = &mut self.absence {
            absence.until = until;
        }
        true
    }

    /// Queues frames that this node itself sends after the late frames of the old owner, until the client reconnects or
    /// the connection departs.
    pub fn keep_behind(&mut self, own: A) {
        self.behind = Some((own, TransitFrames::default()));
    }

    fn add_behind(&mut self) {
        for (frame, messages) in self.behind.take().into_iter().flat_map(|(_, frames)| frames.wanted_of(|_| true)) {
            self.queue.add_frame(frame, messages);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    type Send = (Option<SendOrigin<u8>>, &'static str);

    fn from(app: u8, epoch: i64) -> Option<SendOrigin<u8>> {
        Some(SendOrigin::Sender(app, epoch))
    }

    fn place(ownership: &mut Ownership<u8>, sends: &[Send]) {
        for (origin, text) in sends {
            ownership.place(Bytes::from_static(text.as_bytes()), 1, *origin, |_| true);
        }
    }

    fn away() -> Ownership<u8> {
        let mut ownership = Ownership::new(1_000);
        ownership.leave(15, Cause::SocketEnded);
        ownership
    }

    fn text(frames: &[CountedFrame]) -> String {
        frames.iter().map(|(frame, _)| String::from_utf8(frame.to_vec()).unwrap()).collect()
    }

    fn kept(ownership: &Ownership<u8>) -> String {
        ownership.replay().1.map(|frame| String::from_utf8(frame.to_vec()).unwrap()).collect()
    }

    #[test]
    fn each_send_is_delivered_by_one_of_the_two_owners_in_order() {
        let (mut old, (mut new, _)) = (away(), Ownership::arriving(1_000, 1));
        place(&mut old, &[(None, "-")]);
        assert_eq!(old.depart(1), Some(5));
        let sends = [
            (from(1, 1), "a"),
            (from(1, 2), "b"),
            (from(2, 4), "c"),
            (from(1, 1), "d"),
            (from(2, 6), "e"),
            (from(1, 3), "f"),
            (Some(SendOrigin::OtherNode), "g"),
        ];
        place(&mut old, &sends);
        place(&mut new, &sends);
        assert!(old.pause_acknowledged() && old.let_go(2).is_none());
        old.asked(vec![1, 2]);
        old.answered(1, 2);
        old.answered(1, 9);
        assert!(old.let_go(2).is_none());
        old.answered(2, 5);
        let (state, epochs) = old.let_go(2).unwrap();
        assert_eq!((text(&state.sent), text(&state.held)), ("-".into(), "acdg".into()));
        place(&mut old, &[(None, "late")]);
        assert!(old.is_given() && !old.stay() && old.let_go(2).is_none());
        assert!(new.settle(state, epochs, 20) && new.is_owned());
        place(&mut new, &[(from(2, 4), "late"), (from(2, 5), "h"), (None, "i")]);
        assert_eq!(kept(&new), "-acdgbefhi");
        assert_eq!(new.absence().map(|absence| absence.until), Some(20));
    }

    #[test]
    fn sends_of_unknown_app_servers_are_delivered_by_the_receiving_node() {
        let (mut old, (mut new, _)) = (away(), Ownership::arriving(1_000, 1));
        old.depart(1);
        place(&mut old, &[(None, "a"), (from(3, 0), "b")]);
        place(&mut new, &[(from(4, 0), "c")]);
        old.asked(Vec::new());
        let (state, epochs) = old.let_go(1).unwrap();
        new.settle(state, epochs, 20);
        assert_eq!(kept(&new), "abc");
    }

    #[test]
    fn frames_of_the_new_owner_follow_those_that_the_old_one_still_passes_on() {
        for departs in [false, true] {
            let (mut new, _) = Ownership::arriving(1_000, 1);
            assert!(new.settle(MovedState::default(), vec![(1, 7)], 20));
            new.keep_behind(2);
            place(&mut new, &[(from(2, 0), "c"), (from(1, 7), "a"), (None, "d"), (from(3, 0), "b"), (from(1, 6), "-")]);
            assert_eq!((kept(&new).as_str(), new.bytes()), ("ab", 4));
            assert!(if departs { new.depart(2).is_some() } else { new.come_back() });
            assert_eq!((kept(&new).as_str(), new.bytes()), ("abcd", 4));
        }
    }

    #[test]
    fn a_move_that_fails_leaves_everything_where_it_was() {
        let mut ownership = away();
        assert_eq!(ownership.depart(13), Some(17));
        assert_eq!(ownership.depart(13), None, "one at a time");
        place(&mut ownership, &[(None, "a"), (from(1, 7), "b")]);
        assert!(!ownership.is_late(16) && ownership.is_late(17));
        assert!(ownership.absence().is_some_and(|absence| absence.until == 18), "it does not end before the move");
        assert!(ownership.stay() && !ownership.stay());
        assert_eq!(kept(&ownership), "ab");
    }

    #[test]
    fn answers_to_a_move_that_has_failed_are_not_taken_for_those_to_the_next_one() {
        let mut ownership = away();
        ownership.depart(1);
        ownership.stay();
        assert_eq!(ownership.depart(6), None);
        assert!(!ownership.pause_acknowledged(), "it is late");
        assert_eq!(ownership.depart(6), Some(10));
        assert!(ownership.pause_acknowledged());
        ownership.asked(vec![1, 2]);
        ownership.answered(1, 4);
        ownership.stay();
        assert_eq!(ownership.depart(11), None, "the second one has not answered");
        ownership.answered(2, 5);
        assert!(ownership.depart(11).is_some());
        ownership.stay();
        assert!(ownership.depart(15 + OWED_TICKS).is_some(), "it never answers");
    }

    #[test]
    fn a_client_can_not_return_to_a_departing_connection() {
        let mut ownership = away();
        ownership.depart(1);
        assert!(!ownership.come_back());
        ownership.stay();
        assert!(ownership.come_back() && !ownership.come_back());
    }

    #[test]
    fn a_client_with_a_socket_does_not_move() {
        let mut ownership = Ownership::<u8>::new(1_000);
        assert_eq!(ownership.depart(1), None);
    }

    #[test]
    fn a_frame_without_room_is_refused_unless_another_node_delivers_it() {
        let mut ownership = Ownership::<u8>::new(10);
        let place = |ownership: &mut Ownership<u8>, length: usize| {
            ownership.place(Bytes::from(vec![b'x'; length]), 1, None, |waiting| waiting + length <= 20)
        };
        assert_eq!(place(&mut ownership, 100), Placement::Kept);
        assert_eq!(place(&mut ownership, 15), Placement::Waits);
        assert_eq!(place(&mut ownership, 15), Placement::TooMuch);
        ownership.leave(15, Cause::SocketEnded);
        ownership.depart(1);
        assert_eq!((place(&mut ownership, 5), place(&mut ownership, 1)), (Placement::Waits, Placement::TooMuch));
        ownership.asked(Vec::new());
        ownership.let_go(1).unwrap();
        assert_eq!(place(&mut ownership, 100), Placement::Elsewhere);
    }
    /// Frame of an app server in flight to a node.
    #[derive(Debug, Clone, Copy)]
    enum OnItsWay {
        Send { epoch: i64, number: u8 },
        Answer(i64),
    }

    /// Two app servers that send to both nodes, which read at their own pace.
    #[derive(Debug, Default)]
    struct TwoNodes {
        lanes: [[VecDeque<OnItsWay>; 2]; 2],
        epochs: [i64; 2],
        made: [u8; 2],
        is_asked: bool,
    }

    impl TwoNodes {
        fn send(&mut self, app: usize) {
            self.made[app] = self.made[app].wrapping_add(1);
            let send = OnItsWay::Send { epoch: self.epochs[app], number: self.made[app] };
            self.lanes[app].iter_mut().for_each(|lane| lane.push_back(send));
        }

        /// App servers answer after everything they have sent.
        fn ask(&mut self, old: &mut Ownership<u8>) {
            if !std::mem::replace(&mut self.is_asked, true) && old.pause_acknowledged() {
                old.asked(vec![0, 1]);
                for (lanes, epoch) in self.lanes.iter_mut().zip(&mut self.epochs) {
                    *epoch += 1;
                    lanes[0].push_back(OnItsWay::Answer(*epoch));
                }
            }
        }

        fn read(&mut self, app: usize, node: usize, ownership: &mut Ownership<u8>) {
            let tag = u8::try_from(app).unwrap();
            match self.lanes[app][node].pop_front() {
                Some(OnItsWay::Send { epoch, number }) => {
                    ownership.place(Bytes::from(vec![tag, number]), 1, Some(SendOrigin::Sender(tag, epoch)), |_| true);
                }
                Some(OnItsWay::Answer(epoch)) => ownership.answered(tag, epoch),
                None => {}
            }
        }
    }

    proptest! {
        /// For any interleaving of nodes and app servers, one node ends up with all frames in order.
        #[test]
        fn each_send_is_delivered_once_and_in_order_whether_or_not_the_move_succeeds(
            acts in prop::collection::vec(0u8..13, 1..200),
            fails in any::<bool>(),
        ) {
            let (mut old, (mut new, _), mut world) = (away(), Ownership::arriving(1_000_000, 1), TwoNodes::default());
            old.depart(1);
            let rest = [12].into_iter().chain((4..12).cycle().take(2_000));
            for act in acts.into_iter().chain(rest) {
                let (app, node) = (usize::from(act % 2), usize::from(act / 2 % 2));
                match act {
                    0..4 => world.send(app),
                    12.. => world.ask(&mut old),
                    _ if node == 0 => world.read(app, node, &mut old),
                    _ => world.read(app, node, &mut new),
                }
                if !fails && let Some((state, epochs)) = old.let_go(2) {
                    prop_assert!(new.settle(state, epochs, 20));
                }
            }
            prop_assert_eq!(old.stay(), fails);
            let owner = if fails { &old } else { &new };
            for (app, made) in (0..).zip(world.made) {
                let got: Vec<u8> = owner.sent_by(app);
                prop_assert_eq!(got, (1..=made).collect::<Vec<u8>>());
            }
        }
    }

    impl Ownership<u8> {
        /// Numbers of an app server's frames that are kept or waiting for room.
        fn sent_by(&self, app: u8) -> Vec<u8> {
            let kept = self.queue.unacknowledged().map(|(frame, _)| frame);
            let all = kept.chain(self.queue.held().map(|(frame, _)| frame));
            all.filter(|frame| frame[0] == app).map(|frame| frame[1]).collect()
        }
    }
}
