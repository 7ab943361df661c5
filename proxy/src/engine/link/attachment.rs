//! Attachment of a socket to a link's session, and the consumer of its frames.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::{debug, warn};
use trunkline_link::{FrameSink, LinkClock, LinkSocket, LinkWriter, SocketStop, WrittenPiece};
use trunkline_process::{LinePermit, LogLimit};
use trunkline_protocol::service::{Attachment, ECHO_KEY, FrameHead, Offer, Ping, Role, ServiceMessage, SessionEvent};

use super::route::{CommandPieces, FrameSource, RoutedBatch, route};
use super::session_over::SessionOver;
use super::socket_carrier::{SocketCarrier, SocketMeter};
use super::{SlotSession, give_to_all, mirror_frame, record_request};
use crate::engine::shard::{ConnectionCommand, SendOrigin, Shard, ShardCommand};
use crate::engine::upstream::{Dialled, LinkHandle, Pool, ReplyTo, ServerGroup, UpstreamWebSocket};
use crate::ground::auth::Signer;
use crate::ground::bounded::{Turn, TurnLine, TurnSource};
use crate::ground::limits::{AppRate, RateTurn};
use crate::ground::metrics::{Direction, FrameKind};

/// Interval between round-trip measurements of a link.
const ECHO_INTERVAL_MS: u64 = 5_000;

/// Frames of a batch without messages, such as pings, that count as work of the app.
const BUSY_FRAMES: usize = 64;

/// Minimum interval between warnings about skipped frames.
const SKIPPED_INTERVAL: Duration = Duration::from_secs(60);

impl SlotSession<'_> {
    /// Carries frames over a new socket until the socket is lost or the session ends.
    pub(super) async fn carry_frames(&mut self, dialled: Dialled, offer: &Offer) -> ControlFlow<SessionOver> {
        let Dialled { socket: LinkSocket { reader, mut writer }, answer } = dialled;
        let attachment = match self.link.attach(offer, &answer, self.clock.now_ms()) {
            Ok(Some((attachment, replayed))) => {
                self.opened(offer, replayed);
                give_to_all(self.shard, &ShardCommand::LinkOpened(self.link.clone())).await;
                attachment
            }
            Ok(None) => return self.lost("the session ended before the link was open"),
            Err(error) => return over_with(SessionOver::from_end(&error.into()), writer),
        };
        let group = self.pool.app.group.clone();
        let mut sink =
            ShardSink::new(self.shard, self.pool, self.link.clone()).in_group(group).in_turns(&Signer::Fleet);
        let carrier = link_carrier(self.shard, &self.link, self.clock, attachment);
        let given_up = self.pool.retired.cancelled();
        let end = carrier.run(&mut self.incoming, reader, &mut writer, &mut sink, given_up).await;
        // Before the link shows as down, so that observers see that it may resume.
        self.pool.socket_ended();
        let detached = self.link.outbox().detach(attachment, self.clock.now_ms());
        if end.is_resumable() {
            self.shard.counters().sessions.interrupted.increment();
        }
        match detached {
            _ if !end.is_resumable() => over_with(SessionOver::from_end(&end), writer),
            Some(SessionEvent::End(cause)) => {
                let reason = end.reason(Role::Proxy);
                over_with(SessionOver { reason, ..SessionOver::decided(cause) }, writer)
            }
            _ => self.lost(&end.reason(Role::Proxy)),
        }
    }

    fn opened(&mut self, offer: &Offer, replayed: u64) {
        self.incoming.attach(offer.received.unwrap_or_default());
        let (hub, app, slot) = (self.pool.hub.name(), &self.pool.app.name, self.slot);
        if std::mem::replace(&mut self.was_open, true) {
            let counters = &self.shard.counters().sessions;
            counters.resumed.increment();
            counters.replayed.add(replayed);
            debug!(hub, %app, slot, replayed, "link resumed");
        } else {
            debug!(hub, %app, slot, "link open");
        }
        self.pool.opened(self.slot, self.link.clone());
    }
}

pub(crate) struct LinkMeter<'a> {
    shard: &'a Shard,
    link: &'a LinkHandle,
    measured_at_ms: Cell<Option<u64>>,
}

pub(crate) fn link_carrier<'a>(
    shard: &'a Shard,
    link: &'a LinkHandle,
    clock: LinkClock,
    attachment: Attachment,
) -> SocketCarrier<'a, LinkMeter<'a>> {
    let meter = LinkMeter { shard, link, measured_at_ms: Cell::new(None) };
    let stop = SocketStop::default();
    SocketCarrier { outbox: link.outbox(), clock, attachment, piece_timeout: None, stop, meter }
}

impl SocketMeter for LinkMeter<'_> {
    fn count_written(&self, piece: WrittenPiece) {
        let (kind, count) = match piece.frames {
            0 => (FrameKind::Ping, 1),
            count => (FrameKind::Message, count),
        };
        self.shard.counters().traffic(Direction::Up, kind).count(count, piece.bytes);
        self.link.answers().into_iter().for_each(|answers| answers.trim(self.link.ring_bytes()));
    }

    /// Measures the round trip at the echo interval.
    fn tick(&self, now_ms: u64) {
        if self.measured_at_ms.get().is_none_or(|measured_at_ms| now_ms >= measured_at_ms + ECHO_INTERVAL_MS) {
            self.measured_at_ms.set(Some(now_ms));
            let sent_us = self.shard.now_us().to_string();
            self.link.outbox().echo(&Ping { pairs: vec![(ECHO_KEY.into(), sent_us.into())] });
        }
    }
}

fn over_with(over: SessionOver, writer: LinkWriter<UpstreamWebSocket>) -> ControlFlow<SessionOver> {
    ControlFlow::Break(SessionOver { socket: Some(writer), ..over })
}

/// Routes the frames of a link to the shards concerned, batch by batch.
pub(crate) struct ShardSink<'a> {
    shard: &'a Rc<Shard>,
    pool: &'a Pool,
    reply_to: Arc<dyn ReplyTo>,
    /// Group of a dialled app server.
    group: Option<Arc<ServerGroup>>,
    batch: RoutedBatch,
    /// Frames of the batch, of all kinds.
    frames: usize,
    /// Turns of the app's links at this shard; `None` for a frame outside of a link's batches.
    line: Option<Arc<TurnLine>>,
    rate: Option<Arc<AppRate>>,
    rate_turn: Option<RateTurn>,
    /// Messages of the batch, without pings.
    messages: usize,
    /// Turn of this batch with its start, while several apps are busy.
    turn: Option<(Turn, Instant)>,
    /// Turn that ends after other tasks have run.
    ending: Option<Arc<Turn>>,
    skipped: LogLimit,
}

impl<'a> ShardSink<'a> {
    pub(crate) fn new(shard: &'a Rc<Shard>, pool: &'a Pool, reply_to: Arc<dyn ReplyTo>) -> Self {
        let (batch, skipped) = (RoutedBatch::for_shards(shard.shared()), LogLimit::new(1, SKIPPED_INTERVAL));
        Self {
            shard,
            pool,
            reply_to,
            group: None,
            batch,
            frames: 0,
            line: None,
            rate: None,
            rate_turn: None,
            messages: 0,
            turn: None,
            ending: None,
            skipped,
        }
    }

    /// Lets the link's batches take turns with other apps, within the app's rate.
    pub(crate) fn in_turns(self, signer: &Signer) -> Self {
        let (shared, hub) = (self.shard.shared(), Some(&*self.pool.hub));
        let line = Some(shared.turn_line(signer, hub, TurnSource::Links(self.shard.index())));
        Self { line, rate: shared.app_rate(signer, hub), ..self }
    }

    /// Sets the group of the app server, which may be a mirror group.
    pub(crate) fn in_group(self, group: Arc<ServerGroup>) -> Self {
        Self { group: Some(group), ..self }
    }

    /// Routes a message with this origin. Replies go to the given target, or to the link if `None`. Fails if app
    /// servers must not send such a message.
    pub(crate) fn route(
        &mut self,
        origin: SendOrigin,
        reply_to: Option<&Arc<dyn ReplyTo>>,
        message: ServiceMessage,
    ) -> Result<(), String> {
        self.batch.begin_batch(self.shard);
        route(FrameSource::from_link(self.shard, reply_to.unwrap_or(&self.reply_to), origin), message, &mut self.batch)
    }
}

impl ShardSink<'_> {
    /// Notes work of the app other than frames of a batch.
    pub(crate) fn note_work(&self) {
        self.line.iter().for_each(|line| line.note_work());
    }
}

/// Whether the group is a mirror, which receives copies and sends nothing to clients.
fn is_mirror(group: Option<&ServerGroup>) -> bool {
    group.is_some_and(ServerGroup::is_mirror)
}

impl FrameSink for ShardSink<'_> {
    fn count(&mut self, message: Option<&ServiceMessage>, bytes: usize) {
        let is_ping = matches!(message, Some(ServiceMessage::Ping(_)));
        self.messages += usize::from(!is_ping);
        let kind = if is_ping { FrameKind::Ping } else { FrameKind::Message };
        self.shard.counters().traffic(Direction::Down, kind).count(1, bytes);
    }

    /// Measures the round trip from the send time in our returned ping.
    fn handle_ping(&mut self, ping: &Ping) {
        let sent_us = ping.get(ECHO_KEY).and_then(|sent| sent.parse::<u64>().ok());
        if let Some(took_us) = sent_us.and_then(|sent_us| self.shard.now_us().checked_sub(sent_us)) {
            self.shard.counters().round_trips.observe_duration(Duration::from_micros(took_us));
        }
    }

    fn handle_frame(&mut self, _body: &Bytes, message: Option<ServiceMessage>) -> Result<(), String> {
        let Some(message) = message else { return Ok(()) };
        let Self { shard, reply_to, group, batch, pool, .. } = self;
        let is_mirror = is_mirror(group.as_deref());
        if let ServiceMessage::RecordRequest(request) = message {
            return match is_mirror {
                true => record_request::pretend(reply_to, &request),
                false => record_request::request_record(shard.shared(), pool, reply_to, request),
            };
        }
        batch.begin_batch(shard);
        let source = FrameSource::from_link(shard, reply_to, SendOrigin::Sender(reply_to.app(), 0));
        match is_mirror {
            true => mirror_frame::take_mirrored(source, message, batch),
            false => route(source, message, batch),
        }
    }

    /// Closes the addressed clients, except for a mirror.
    fn handle_skipped(&mut self, head: &FrameHead, problem: &str) {
        self.shard.counters().dial_in.malformed.increment();
        if let Some(LinePermit { left_out }) = self.skipped.take_line() {
            let (hub, app, kind) = (self.pool.hub.name(), &self.pool.app.name, head.name());
            warn!(
                hub,
                %app,
                kind,
                problem,
                left_out,
                clients = head.connections.len(),
                "skipped a frame of an app server"
            );
        }
        if is_mirror(self.group.as_deref()) {
            return;
        }
        self.batch.begin_batch(self.shard);
        let source = FrameSource::from_link(self.shard, &self.reply_to, SendOrigin::Sender(self.reply_to.app(), 0));
        for id in &head.connections {
            let command = ConnectionCommand::Skipped { problem: problem.to_owned() };
            self.batch.for_owner(source, id.clone(), command);
        }
    }

    async fn begin_batch(&mut self) {
        let turn = match &self.line {
            Some(line) => line.begin().await,
            None => None,
        };
        // Last, so that links of other shards don't wait for this one.
        if let Some(rate) = &self.rate {
            let turn = rate.begin().await;
            if turn.has_waited {
                self.shard.shared().limits.refusals.count("rate", rate.label());
            }
            self.rate_turn = Some(turn);
        }
        self.turn = turn.map(|turn| (turn, Instant::now()));
    }

    fn is_batch_full(&mut self, frames: usize) -> bool {
        self.frames = frames + self.batch.names();
        if self.rate.as_ref().is_some_and(|rate| self.messages >= rate.messages_max) {
            return true;
        }
        self.turn.as_ref().is_some_and(|(turn, begun_at)| turn.is_full(self.frames, *begun_at))
    }

    /// Applies the batch here and sends the other shards their parts. The turn ends when all have applied them.
    async fn end_batch(&mut self, bytes: usize) {
        let messages = std::mem::take(&mut self.messages);
        if let Some(rate) = &self.rate {
            rate.charge(messages, bytes);
            self.rate_turn = None;
        }
        if let Some(line) = &self.line
            && (self.batch.has_begun() || self.frames >= BUSY_FRAMES)
        {
            line.note_work();
        }
        let turn = self.turn.take().map(|(turn, begun_at)| turn.read(self.frames, begun_at.elapsed()));
        let mut batch = std::mem::replace(&mut self.batch, RoutedBatch::for_shards(self.shard.shared()));
        batch.compress_large(self.shard.shared()).await;
        for (index, mut pieces) in batch.into_commands().enumerate() {
            if index == usize::from(self.shard.index()) {
                let mut time = Duration::ZERO;
                while let Some(mut commands) = pieces.next() {
                    if let Some(own) = self.shard.shared().shards().get(index) {
                        commands = own.take_steps(self.shard.shared(), commands).await;
                    }
                    let begun_at = turn.as_ref().map(|_| Instant::now());
                    self.shard.apply(commands);
                    if let Some((turn, begun_at)) = turn.as_ref().zip(begun_at) {
                        time += begun_at.elapsed();
                        turn.note_work(time);
                    }
                    // The shard serves its clients between two pieces of a long frame.
                    if matches!(pieces, CommandPieces::Cut(_)) {
                        tokio::task::yield_now().await;
                    }
                }
            } else if let Some(other) = self.shard.shared().shards().get(index) {
                for (commands, bytes) in pieces.with_bytes(bytes) {
                    let commands = other.take_steps(self.shard.shared(), commands).await;
                    other.give_in_turn(commands, bytes, turn.clone()).await;
                }
            }
        }
        self.ending = turn;
    }

    /// Lets the shard serve its clients before the app's next turn.
    async fn yield_after_batch(&mut self) {
        tokio::task::yield_now().await;
        self.ending = None;
    }
}
