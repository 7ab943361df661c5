//! One end of a node link, which drives its session over successive sockets.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use trunkline_protocol::fleet::{BeatPing, Beats, NodeMessage};
use trunkline_protocol::service::{
    Attachment, Class, FrameBuffer, Incoming, Ping, Role, ServiceMessage, Session, SessionId, SessionSettings,
};

use super::fleet_mutant::FleetMutant;
use super::post::Post;
use crate::ledger::{Check, broken};
use crate::random::Random;
use crate::wire::Socket;

/// How long a node link outlives its socket: longer than interest stays fresh, so both limits are reached.
pub(crate) const LINK_WINDOW_MS: u64 = 12_000;

/// Ring size of a node link: small, so that a slow node fills it in seconds.
const LINK_RING_BYTES: usize = 3_000;

/// Maximum message size in the simulation: a node's interest in a hub.
const MESSAGE_MAX_BYTES: usize = 300;

/// Socket of a node link, and whether it was closed because the session has ended.
#[derive(Debug, Default)]
pub(crate) struct LinkSocket {
    pub(crate) pipe: Socket,
    pub(crate) is_over: bool,
}

/// Received message or event of a link.
#[derive(Debug)]
pub(crate) enum Arrival {
    Body(Bytes),
    /// The peer has answered the beat with this number, which was sent at this time.
    Answered {
        number: u64,
        asked_ms: u64,
    },
    /// This end has answered a beat of the peer.
    Echoed,
}

/// One end of a node link.
#[derive(Debug)]
pub(crate) struct NodeEnd {
    pub(crate) session: Session,
    /// Index of this end at its sockets: 0 is the dialler.
    side: usize,
    pub(crate) socket: Option<(usize, Attachment)>,
    frames: FrameBuffer,
    incoming: Incoming,
    /// Number and bytes of delivered frames that are not taken yet.
    handed: Option<(u64, usize)>,
    beats: Beats,
    /// Time since which it has no socket.
    pub(crate) lost_ms: u64,
    /// Queued messages not yet applied at the peer.
    pub(crate) owed: VecDeque<Post>,
    /// Whether there may be data to write.
    writes: bool,
    /// Answers to beats that a mutant sends before queued messages.
    hurried: Vec<Ping>,
}

impl NodeEnd {
    pub(crate) fn new(id: SessionId, role: Role, now_ms: u64) -> Self {
        let settings = SessionSettings::new(LINK_RING_BYTES, LINK_WINDOW_MS);
        Self {
            session: Session::new(id, role, settings, now_ms),
            side: if role == Role::Proxy { 0 } else { 1 },
            socket: None,
            frames: FrameBuffer::default(),
            incoming: Incoming::default(),
            handed: None,
            beats: Beats::default(),
            lost_ms: now_ms,
            owed: VecDeque::new(),
            writes: false,
            hurried: Vec::new(),
        }
    }

    pub(crate) fn attached(&mut self, socket: usize, attachment: Attachment, told: u64) {
        (self.socket, self.frames) = (Some((socket, attachment)), FrameBuffer::default());
        self.incoming.attach(told);
        self.writes = true;
        self.hurried.clear();
    }

    pub(crate) fn detach(&mut self, sockets: &mut [LinkSocket], now_ms: u64, random: &mut Random) -> Check {
        let Some((socket, attachment)) = self.socket.take() else { return Ok(()) };
        sockets[socket].pipe.close(self.side, now_ms, random);
        self.lost_ms = now_ms;
        match self.session.detach(attachment, now_ms) {
            Some(event) => broken(format!("{event:?} though both ends resume")),
            None => Ok(()),
        }
    }

    /// Queues an essential message if there is room. Returns `false` if the link has to be given up.
    pub(crate) fn notify(&mut self, message: &NodeMessage, mutant: Option<FleetMutant>) -> Check<bool> {
        let has_place = self.session.has_place(Class::Reserved) || mutant == Some(FleetMutant::TellsWithoutRoom);
        if has_place {
            self.session.push(Class::Reserved, |out| message.encode(out));
            self.writes = true;
            self.check_bounds()?;
        }
        Ok(has_place)
    }

    /// Queues a message even without room.
    pub(crate) fn push(&mut self, post: Post, encode: impl FnOnce(&mut BytesMut)) -> Check {
        self.session.push(Class::Ordinary, encode);
        self.writes = true;
        self.owed.push_back(post);
        self.check_bounds()
    }

    fn check_bounds(&self) -> Check {
        let (load, limit) = (self.session.load(), self.session.limit());
        if load.room > limit.room + MESSAGE_MAX_BYTES || load.reserve > limit.reserve + MESSAGE_MAX_BYTES {
            return broken(format!("the ring holds {load:?}, its limit is {limit:?}"));
        }
        Ok(())
    }

    pub(crate) fn beat(&mut self, now_ms: u64) {
        if self.session.is_attached() {
            let ping = self.beats.ask(now_ms);
            self.session.push_echo(&ping);
            self.writes = true;
        }
    }

    /// Number of a beat queued after all current messages; without a socket, of the next beat.
    pub(crate) fn beat_behind(&mut self, now_ms: u64) -> u64 {
        let next = self.beats.asked();
        self.beat(now_ms);
        next
    }

    /// Whether this end has work to do.
    pub(crate) fn is_due(&self, sockets: &[LinkSocket], now_ms: u64) -> bool {
        let is_ready = |socket: usize| sockets[socket].pipe.is_ready(self.side, now_ms) || self.writes;
        self.handed.is_some()
            || self.socket.is_some_and(|(socket, _)| is_ready(socket))
            || self.session.poll_timeout().is_some_and(|at_ms| at_ms <= now_ms)
    }

    pub(crate) fn lag_ms(&self, now_ms: u64) -> u64 {
        self.beats.lag_ms(now_ms)
    }

    /// Whether this end has noticed the end of its socket.
    pub(crate) fn is_at_end(&self, sockets: &[LinkSocket], now_ms: u64) -> bool {
        self.socket.is_some_and(|(socket, _)| sockets[socket].pipe.is_at_end(self.side, now_ms))
    }

    pub(crate) fn transmit(&mut self, sockets: &mut [LinkSocket], now_ms: u64) {
        let Some((socket, attachment)) = self.socket else { return };
        for ping in self.hurried.drain(..) {
            sockets[socket].pipe.write(self.side, &ServiceMessage::Ping(ping).to_frame());
        }
        while sockets[socket].pipe.can_write(self.side) {
            let Some(piece) = self.session.poll_transmit(attachment, now_ms) else {
                self.writes = false;
                break;
            };
            sockets[socket].pipe.write(self.side, &piece.bytes);
        }
    }

    /// Takes delivered frames. The socket may be lost before that.
    pub(crate) fn take(&mut self, now_ms: u64) {
        if let Some((number, bytes)) = self.handed.take() {
            self.session.handle_taken(number, bytes, now_ms);
        }
    }

    /// Reads and delivers some of the received data.
    pub(crate) fn read(
        &mut self,
        sockets: &mut [LinkSocket],
        now_ms: u64,
        random: &mut Random,
        mutant: Option<FleetMutant>,
    ) -> Check<Vec<Arrival>> {
        let mut arrivals = Vec::new();
        let Some((socket, _)) = self.socket else { return Ok(arrivals) };
        let bytes = sockets[socket].pipe.read(self.side, now_ms, random);
        if bytes.is_empty() {
            return Ok(arrivals);
        }
        self.session.handle_received(now_ms);
        self.frames.push(bytes.into());
        while let Some(body) = self.frames.next_body().or_else(|error| broken(format!("a frame: {error}")))? {
            match ServiceMessage::decode(&body).or_else(|error| broken(format!("a message: {error}")))? {
                Some(ServiceMessage::Ping(ping)) => arrivals.extend(self.handle_ping(&ping, now_ms, mutant)?),
                Some(other) => return broken(format!("{} came over a node link", other.name())),
                None => {
                    let is_new = self.incoming.next();
                    if let Some(number) = is_new {
                        let bytes = self.handed.map_or(0, |(_, bytes)| bytes) + body.len();
                        self.handed = Some((number, bytes));
                    }
                    if is_new.is_some() || mutant == Some(FleetMutant::AppliesReplays) {
                        arrivals.push(Arrival::Body(body));
                    }
                }
            }
        }
        Ok(arrivals)
    }

    fn handle_ping(&mut self, ping: &Ping, now_ms: u64, mutant: Option<FleetMutant>) -> Check<Option<Arrival>> {
        self.session.handle_ping(ping).or_else(|error| broken(format!("a ping: {error}")))?;
        self.writes = true;
        match BeatPing::from_ping(ping) {
            BeatPing::Asked(back) if mutant == Some(FleetMutant::AnswersBeatsAtOnce) => self.hurried.push(back),
            BeatPing::Asked(back) => self.session.push_echo(&back),
            BeatPing::Answered(number) => {
                let asked = self.beats.answered(number, now_ms);
                return Ok(asked.map(|asked_ms| Arrival::Answered { number, asked_ms }));
            }
            BeatPing::Other => return Ok(None),
        }
        Ok(Some(Arrival::Echoed))
    }
}
