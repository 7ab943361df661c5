//! The writing half of a link: the outbox's chunks become pieces on the wire, with pings in between.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;
use trunkline_protocol::limits::{LINK_PING_INTERVAL_MS, LINK_TIMEOUT_MS};
use trunkline_protocol::service::{Ping, ServiceMessage};

use super::socket::LinkWriter;
use super::{LinkEnd, Shared};
use crate::node::Chunk;
use crate::sync::lock;

const PING_INTERVAL: Duration = Duration::from_millis(LINK_PING_INTERVAL_MS);

/// Writes until the link is to stop, and then what still waits. Gives the socket's half back for a last word.
pub(super) async fn write(shared: Arc<Shared>, mut socket: LinkWriter) -> (LinkWriter, Result<(), LinkEnd>) {
    let written = write_all(&shared, &mut socket).await;
    // The reader is to know of a failed socket at once.
    shared.stop.cancel();
    (socket, written)
}

async fn write_all(shared: &Shared, socket: &mut LinkWriter) -> Result<(), LinkEnd> {
    let mut last_sent = Instant::now();
    loop {
        while let Some(chunk) = shared.outbox.take() {
            write_piece(socket, gathered(shared, chunk)).await?;
            last_sent = Instant::now();
        }
        if shared.stop.is_cancelled() {
            return Ok(());
        }
        let wake_at = next_ping(shared, last_sent);
        tokio::select! {
            biased;
            () = shared.outbox.filled() => continue,
            () = shared.stop.cancelled() => continue,
            () = tokio::time::sleep_until(wake_at) => {}
        }
        if let Some(ping) = ping(shared, last_sent) {
            write_piece(socket, frame(ping)).await?;
            last_sent = Instant::now();
        }
    }
}

fn next_ping(shared: &Shared, last_sent: Instant) -> Instant {
    let keep_alive = last_sent + PING_INTERVAL;
    let acknowledgement = lock(&shared.counters).poll_timeout().map(|ms| shared.started + Duration::from_millis(ms));
    acknowledgement.map_or(keep_alive, |due| due.min(keep_alive))
}

/// The bytes of a chunk, counted, with the acknowledgement that is due by now.
fn gathered(shared: &Shared, mut chunk: Chunk) -> BytesMut {
    let mut counters = lock(&shared.counters);
    for _ in 0..chunk.frames {
        counters.handle_sent();
    }
    if let Some(ping) = counters.poll_ping(shared.now_ms()) {
        ServiceMessage::Ping(ping).encode(&mut chunk.bytes);
    }
    chunk.bytes
}

/// The ping that is due: an acknowledgement, or a keep-alive after too long a silence.
fn ping(shared: &Shared, last_sent: Instant) -> Option<Ping> {
    let mut counters = lock(&shared.counters);
    if last_sent.elapsed() >= PING_INTERVAL { Some(counters.keep_alive()) } else { counters.poll_ping(shared.now_ms()) }
}

fn frame(ping: Ping) -> BytesMut {
    let mut out = BytesMut::new();
    ServiceMessage::Ping(ping).encode(&mut out);
    out
}

async fn write_piece(socket: &mut LinkWriter, bytes: BytesMut) -> Result<(), LinkEnd> {
    let writing = socket.send(bytes.freeze());
    match tokio::time::timeout(Duration::from_millis(LINK_TIMEOUT_MS), writing).await {
        Ok(written) => written,
        Err(_) => Err(LinkEnd::Stuck),
    }
}
