//! Carry frames over one socket of a session: read in turns, write as its ring fills, count the silence.
//!
//! A turn is all frames that are there at once, up to a bound: their writes leave together. A turn that has begun is
//! finished whatever happens to the socket: a frame that was handed out is counted as taken, or it would come twice.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;
use trunkline_protocol::service::{
    Attachment, ECHO_KEY, FrameBuffer, Incoming, Offer, Ping, ServiceMessage, SessionEvent, bytes_of_frame,
};

use super::over::{End, LastSocket, Over};
use super::sort::{self, TurnOrders};
use super::{Keeper, give_to_all};
use crate::metrics::{Direction, FrameKind, SessionCloseReason};
use crate::shard::Shard;
use crate::shard::ShardCommand;
use crate::upstream::{Dialled, LinkHandle, LinkReader, LinkSocket, LinkWriter, Outgoing};

/// A turn ends when it has read this much: other sockets of the shard are to be served too.
const TURN_MAX_BYTES: usize = 256 * 1024;

/// A link that carried so many frames in its last write waits, before the next one, until the sockets were looked at
/// once more: calls of a crowd come close together, and each write wakes the app server. A lone caller's frame leaves
/// at once.
const CROWD_FRAMES: u64 = 2;

/// How often the round trip of a link is measured.
const ECHO_INTERVAL_MS: u64 = 5_000;

/// What was queued before a pool was retired gets this long to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

impl Keeper<'_> {
    /// Carries frames over a fresh socket until that is lost, or the session over.
    pub(super) async fn carry(&mut self, dialled: Dialled, offer: &Offer) -> End {
        let Dialled { socket: LinkSocket { reader, mut writer }, frames, answer } = dialled;
        let shared = self.shard.shared();
        let attachment = match self.link.attach(offer, &answer, shared.now_ms()) {
            Ok(Some((attachment, replayed))) => {
                self.opened(offer, replayed);
                give_to_all(self.shard, &ShardCommand::LinkOpened(self.link.clone())).await;
                attachment
            }
            Ok(None) => return End::Lost("its session was over before it was open".into()),
            Err(error) => return End::Over(Over { socket: Some(LastSocket(writer)), ..Over::broken(error) }),
        };
        let stop = CancellationToken::new();
        let mut wire = Wire { shard: self.shard, link: &self.link, incoming: &mut self.incoming, frames, reader };
        let end = {
            let mut reading = pin!(wire.read(&stop));
            let stopped = tokio::select! {
                end = &mut reading => end,
                end = write(self.shard, &self.link, attachment, &mut writer) => finish(end, &stop, reading).await,
                end = silence(self.shard, &self.link) => finish(end, &stop, reading).await,
                () = self.pool.retired().cancelled() => finish(End::Over(Over::retired()), &stop, reading).await,
            };
            stopped
        };
        // The old socket brings nothing more before the counters are told to another one.
        drop(wire);
        if let End::Over(over) = &end
            && over.cause == SessionCloseReason::Retired
        {
            // Farewells of a node that stops.
            let flushing = flush(self.shard, &self.link, attachment, &mut writer);
            drop(timeout(FLUSH_TIMEOUT, flushing).await);
        }
        let detached = self.link.detach(attachment, self.shard.shared().now_ms());
        if let End::Lost(_) = end {
            self.shard.counters().sessions.interrupted.increment();
        }
        let over = match (detached, end) {
            (Some(SessionEvent::End(cause)), End::Lost(reason)) => Over { reason, ..Over::decided(cause) },
            (_, End::Over(over)) => over,
            (_, lost) => return lost,
        };
        End::Over(Over { socket: Some(LastSocket(writer)), ..over })
    }

    fn opened(&mut self, offer: &Offer, replayed: u64) {
        self.incoming.attach(offer.received.unwrap_or_default());
        let (hub, app, slot) = (self.pool.hub().name(), &self.pool.app().name, self.slot);
        if std::mem::replace(&mut self.was_open, true) {
            let counters = &self.shard.counters().sessions;
            counters.resumed.increment();
            counters.replayed.add(replayed);
            info!(hub, %app, slot, replayed, "link resumed");
        } else {
            info!(hub, %app, slot, "link open");
        }
        self.pool.opened(self.slot, self.link.clone());
    }
}

/// Lets the turn that is being read come to its end.
async fn finish(end: End, stop: &CancellationToken, reading: impl Future<Output = End>) -> End {
    stop.cancel();
    match reading.await {
        // What it found out itself weighs more than that we stop.
        End::Over(over) if !matches!(end, End::Over(_)) => End::Over(over),
        _ => end,
    }
}

/// Measures the link, and says when the peer was silent for too long.
async fn silence(shard: &Shard, link: &LinkHandle) -> End {
    let mut asked_at_ms = None;
    loop {
        let now_ms = shard.shared().now_ms();
        if asked_at_ms.is_none_or(|asked_at_ms| now_ms >= asked_at_ms + ECHO_INTERVAL_MS) {
            asked_at_ms = Some(now_ms);
            link.ask_echo(shard.now_us().to_string());
        }
        sleep(Duration::from_millis(link.tick_ms())).await;
        match link.handle_timeout(shard.shared().now_ms()) {
            None => {}
            Some(SessionEvent::PeerSilent) => return End::Lost("the app server is silent".into()),
            Some(SessionEvent::End(cause)) => return End::Over(Over::decided(cause)),
        }
    }
}

/// Writes what is queued, pings and acknowledgements; says why it ends.
async fn write(shard: &Shard, link: &LinkHandle, attachment: Attachment, writer: &mut LinkWriter) -> End {
    loop {
        let flushed = match flush(shard, link, attachment, writer).await {
            Err(end) => return end,
            Ok(None) => return End::Lost("it was closed".into()),
            Ok(Some(flushed)) => flushed,
        };
        tokio::select! {
            () = link.filled() => {}
            () = sleep_until(shard.shared().instant(flushed.look_again_ms)) => {}
        }
        if flushed.frames >= CROWD_FRAMES {
            tokio::task::yield_now().await;
        }
    }
}

/// What a flush came to.
struct Flushed {
    frames: u64,
    look_again_ms: u64,
}

/// Writes all there is.
async fn flush(
    shard: &Shard,
    link: &LinkHandle,
    attachment: Attachment,
    writer: &mut LinkWriter,
) -> Result<Option<Flushed>, End> {
    let mut frames = 0;
    loop {
        match link.poll(attachment, shard.shared().now_ms()) {
            Outgoing::Idle(look_again_ms) => return Ok(Some(Flushed { frames, look_again_ms })),
            Outgoing::Over => return Ok(None),
            Outgoing::Piece(piece) => {
                let (kind, count) = match piece.frames {
                    0 => (FrameKind::Ping, 1),
                    count => (FrameKind::Message, count),
                };
                shard.counters().traffic(Direction::Up, kind).count(count, piece.bytes.len());
                frames += piece.frames;
                writer.send(piece.bytes).await?;
            }
        }
    }
}

/// The reading side of a socket.
struct Wire<'a> {
    shard: &'a Rc<Shard>,
    link: &'a Arc<LinkHandle>,
    incoming: &'a mut Incoming,
    frames: FrameBuffer,
    reader: LinkReader,
}

impl Wire<'_> {
    /// Reads turn after turn; says why it ends. It stops only between two turns.
    async fn read(&mut self, stop: &CancellationToken) -> End {
        loop {
            let mut turn = TurnOrders::new(self.shard.shared().shards().len());
            let mut taken = self.take_frames(&mut turn);
            if taken.is_ok() && turn.is_empty() {
                let piece = tokio::select! {
                    biased;
                    () = stop.cancelled() => return End::Lost("it was stopped".into()),
                    piece = self.reader.next() => piece,
                };
                match piece {
                    Ok(piece) => self.frames.push(piece),
                    Err(error) => return error.into(),
                }
                taken = self.take_frames(&mut turn);
            }
            // More of the same turn, if it is there already.
            while taken.is_ok()
                && turn.bytes() < TURN_MAX_BYTES
                && let Some(next) = self.reader.next_now()
            {
                taken = next.map_err(End::from).and_then(|piece| {
                    self.frames.push(piece);
                    self.take_frames(&mut turn)
                });
            }
            // What came before the end still counts.
            self.finish(turn).await;
            if let Err(end) = taken {
                return end;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Sorts all whole frames into the turn.
    fn take_frames(&mut self, turn: &mut TurnOrders) -> Result<(), End> {
        while let Some(body) = self.frames.next_body().map_err(broken)? {
            let message = ServiceMessage::decode(&body).map_err(broken)?;
            let is_ping = matches!(message, Some(ServiceMessage::Ping(_)));
            let kind = if is_ping { FrameKind::Ping } else { FrameKind::Message };
            self.shard.counters().traffic(Direction::Down, kind).count(1, bytes_of_frame(body.len()));
            if let Some(ServiceMessage::Ping(ping)) = &message {
                self.link.handle_ping(ping).map_err(broken)?;
                self.note_round_trip(ping);
                continue;
            }
            // What was handed out before comes again where the peer could not know.
            let Some(number) = self.incoming.next() else { continue };
            turn.take(self.shard, number, body.len());
            // Newer than us, or not: it is counted, so that both ends agree.
            if let Some(message) = message {
                sort::sort(self.shard, self.link, message, turn).map_err(broken)?;
            }
        }
        Ok(())
    }

    /// A ping of ours that came back tells when it was sent.
    fn note_round_trip(&self, ping: &Ping) {
        let sent_us = ping.get(ECHO_KEY).and_then(|sent| sent.parse::<u64>().ok());
        if let Some(took_us) = sent_us.and_then(|sent_us| self.shard.now_us().checked_sub(sent_us)) {
            self.shard.counters().round_trips.observe_duration(Duration::from_micros(took_us));
        }
    }

    /// Carries the turn out here, gives the other shards their parts, and only then counts its frames as taken.
    async fn finish(&self, turn: TurnOrders) {
        let (taken, bytes) = (turn.taken(), turn.bytes());
        for (index, orders) in turn.into_orders().into_iter().enumerate().filter(|(_, orders)| !orders.is_empty()) {
            if index == usize::from(self.shard.index()) {
                self.shard.apply(orders);
            } else if let Some(other) = self.shard.shared().shards().get(index) {
                other.give(orders, bytes).await;
            }
        }
        self.link.handle_turn(taken, bytes, self.shard.shared().now_ms());
    }
}

/// The app server broke the protocol; replayed to another socket, it would be broken again.
fn broken(problem: impl ToString) -> End {
    End::Over(Over::broken(problem))
}
