//! Keep one link open, and give what it brings down to the shards.
//!
//! ```text
//!  dial ──► run: read in turns ─┬─ lost ──► those whose home it was are closed ──► dial again, with backoff
//!               write as it fills ┘
//! ```
//!
//! A turn is all frames that are there at once, up to a bound: their writes leave together. Reading waits for no
//! client and no handler, only for room in another shard's inbox, which that shard always makes.

mod sort;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};
use trunkline_protocol::id::random_bytes;
use trunkline_protocol::limits::{LINK_PING_INTERVAL_MS, LINK_TIMEOUT_MS};
use trunkline_protocol::service::{FrameBuffer, Ping, ServiceMessage};

use crate::counters::{Direction, FrameKind};
use crate::delivery::Order;
use crate::link::{DialError, LinkHandle, LinkReader, LinkSocket, LinkWriter, Pool, dial};
use crate::shard::Shard;
use sort::TurnOrders;

/// A turn ends when it has read this much: other sockets of the shard are to be served too.
const TURN_MAX_BYTES: usize = 256 * 1024;

/// A peer that is gone is not waited for when a link is closed.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// First and last wait between two attempts to dial.
const BACKOFF_MS: (u64, u64) = (50, 2_000);

/// Keeps the link of one slot open until its pool is retired.
pub async fn keep_link(shard: Rc<Shard>, pool: Arc<Pool>, slot: usize) {
    let mut backoff_ms = BACKOFF_MS.0;
    while !pool.retired().is_cancelled() {
        let shared = shard.shared();
        let dialled = pool.retired().run_until_cancelled(dial(&pool, slot, &shared.boot, shared.caller())).await;
        match dialled {
            None => return,
            Some(Ok((socket, frames))) => {
                backoff_ms = BACKOFF_MS.0;
                carry(&shard, &pool, slot, socket, frames).await;
            }
            Some(Err(DialError::OtherInstance)) => pool.met_another_instance(),
            Some(Err(error)) => {
                // The watcher of the upstream tells people, once; this would be a line for each link and try.
                debug!(hub = pool.hub().name(), app = %pool.app().reach, slot, %error, "a link can't be opened yet");
            }
        }
        pool.retired().run_until_cancelled(sleep(jittered(backoff_ms))).await;
        backoff_ms = (backoff_ms * 2).min(BACKOFF_MS.1);
    }
}

/// Half of the wait is certain, half is chance, so that links don't come back in step.
fn jittered(ms: u64) -> Duration {
    let chance = u64::from(u16::from_ne_bytes(random_bytes()));
    Duration::from_millis(ms / 2 + ms / 2 * chance / u64::from(u16::MAX))
}

/// Carries frames over an open link until it is lost.
async fn carry(shard: &Rc<Shard>, pool: &Arc<Pool>, slot: usize, socket: LinkSocket, frames: FrameBuffer) {
    let limit_bytes = shard.shared().settings.link_outbox_max_bytes;
    let link = Arc::new(LinkHandle::new(pool.hub().index(), pool.app().id, limit_bytes));
    let LinkSocket { mut reader, mut writer } = socket;
    pool.opened(slot, link.clone());
    let (hub, app) = (pool.hub().name(), &pool.app().name);
    info!(hub, %app, slot, "link open");
    tokio::select! {
        reason = read(shard, &link, &mut reader, frames) => lost(shard, hub, app, slot, &reason),
        reason = write(shard, &link, &mut writer) => lost(shard, hub, app, slot, &reason),
        () = pool.retired().cancelled() => {
            // What was queued before the pool was retired still goes: farewells of a node that stops.
            if let Some(Some(last)) = link.next_outgoing().now_or_never() {
                drop(timeout(LAST_WORDS_TIMEOUT, writer.send(last.bytes)).await);
            }
            info!(hub, %app, slot, "link closed");
        }
    }
    pool.lost(slot);
    link.close();
    give_to_all(shard, &Order::LinkLost(link.id())).await;
    // A peer that is still there learns it; one that isn't is not waited for.
    drop(timeout(LAST_WORDS_TIMEOUT, writer.close()).await);
}

fn lost(shard: &Shard, hub: &str, app: &str, slot: usize, reason: &str) {
    shard.counters().links_lost.increment();
    warn!(hub, app, slot, reason, "link lost: the clients whose home it was are closed and may reconnect");
}

/// Gives one order to every shard.
async fn give_to_all(shard: &Rc<Shard>, order: &Order) {
    for (index, other) in shard.shared().shards().iter().enumerate() {
        if index == usize::from(shard.index()) {
            shard.carry_out(vec![order.clone()]);
        } else {
            other.give(vec![order.clone()], 0).await;
        }
    }
}

/// Reads turn after turn; says why it ends.
async fn read(shard: &Rc<Shard>, link: &Arc<LinkHandle>, reader: &mut LinkReader, mut frames: FrameBuffer) -> String {
    let dead_after = Duration::from_millis(LINK_TIMEOUT_MS);
    loop {
        let mut turn = TurnOrders::new(shard.shared().shards().len());
        let mut taken = take_frames(shard, link, &mut frames, &mut turn);
        if taken.is_ok() && turn.is_empty() {
            match timeout(dead_after, reader.next()).await {
                Ok(Ok(piece)) => frames.push(piece),
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return format!("nothing came for {} s", dead_after.as_secs()),
            }
            taken = take_frames(shard, link, &mut frames, &mut turn);
        }
        // More of the same turn, if it is there already.
        while taken.is_ok()
            && turn.bytes < TURN_MAX_BYTES
            && let Some(next) = reader.next_now()
        {
            taken = next.map_err(|error| error.to_string()).and_then(|piece| {
                frames.push(piece);
                take_frames(shard, link, &mut frames, &mut turn)
            });
        }
        // What came before the end still counts.
        finish(shard, link, turn).await;
        if let Err(problem) = taken {
            return problem;
        }
        tokio::task::yield_now().await;
    }
}

/// Sorts all whole frames into the turn.
fn take_frames(
    shard: &Rc<Shard>,
    link: &Arc<LinkHandle>,
    frames: &mut FrameBuffer,
    turn: &mut TurnOrders,
) -> Result<(), String> {
    while let Some(body) = frames.next_body().map_err(|error| error.to_string())? {
        let message = ServiceMessage::decode(&body).map_err(|error| error.to_string())?;
        let kind = if matches!(message, Some(ServiceMessage::Ping(_))) { FrameKind::Ping } else { FrameKind::Message };
        shard.counters().traffic(Direction::Down, kind).count(1, prefixed(body.len()));
        match message {
            Some(ServiceMessage::Ping(ping)) => take_ping(link, &ping)?,
            Some(message) => {
                turn.frames += 1;
                turn.bytes += body.len();
                sort::sort(shard, link, message, turn)?;
            }
            // Newer than us: counted, so that both ends agree, and skipped.
            None => turn.frames += 1,
        }
    }
    Ok(())
}

fn take_ping(link: &Arc<LinkHandle>, ping: &Ping) -> Result<(), String> {
    link.handle_ping(ping).map_err(|error| error.to_string())
}

/// Carries the turn out here, gives the other shards their parts, and only then counts its frames as received.
async fn finish(shard: &Rc<Shard>, link: &LinkHandle, turn: TurnOrders) {
    let (count, bytes) = (turn.frames, turn.bytes);
    for (index, orders) in turn.into_orders().into_iter().enumerate().filter(|(_, orders)| !orders.is_empty()) {
        if index == usize::from(shard.index()) {
            shard.carry_out(orders);
        } else if let Some(other) = shard.shared().shards().get(index) {
            other.give(orders, bytes).await;
        }
    }
    if count > 0 {
        link.handle_received(count, shard.shared().now_ms());
        link.wake_writer();
    }
}

/// Bytes of a frame with its length prefix.
fn prefixed(body: usize) -> usize {
    body + (usize::BITS - body.leading_zeros()).div_ceil(7).max(1) as usize
}

/// Writes what is queued, pings and acknowledgements; says why it ends.
async fn write(shard: &Rc<Shard>, link: &LinkHandle, writer: &mut LinkWriter) -> String {
    let interval = Duration::from_millis(LINK_PING_INTERVAL_MS);
    let mut ping_at = Instant::now() + interval;
    loop {
        let acknowledge_at = link.acknowledge_at().map(|at_ms| shard.shared().instant(at_ms));
        let wake_at = acknowledge_at.map_or(ping_at, |at| at.min(ping_at));
        let (bytes, frames, kind) = tokio::select! {
            outgoing = link.next_outgoing() => match outgoing {
                Some(outgoing) => (outgoing.bytes, outgoing.frames, FrameKind::Message),
                None => return "it was closed".into(),
            },
            () = link.woken() => continue,
            () = sleep_until(wake_at) => {
                let due = link.acknowledgement(shard.shared().now_ms());
                let ping = match due {
                    Some(ping) => ping,
                    None if Instant::now() >= ping_at => link.keep_alive(),
                    None => continue,
                };
                (ServiceMessage::Ping(ping).to_frame(), 1, FrameKind::Ping)
            }
        };
        shard.counters().traffic(Direction::Up, kind).count(frames, bytes.len());
        if let Err(error) = writer.send(bytes).await {
            return error.to_string();
        }
        ping_at = Instant::now() + interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_prefix_takes_a_byte_for_every_seven_bits() {
        assert_eq!((prefixed(0), prefixed(127), prefixed(128), prefixed(16_384)), (1, 128, 130, 16_387));
    }
}
