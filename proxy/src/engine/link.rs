//! Task of each link: keeps the session of one slot alive across sockets, and routes incoming frames to the shards.
//!
//! ```text
//!  session ─► dial ─► carry ─── socket lost ──► dial again, with backoff, within the resume window
//!    ▲                  │                                  │
//!    │                  └─ broken, goodbye, retired ─┐     └─ window passed, session unknown there ─┐
//!    └───── next session ◄── notify its client connections ◄───────────────────────────────── over ◄─┘
//! ```
//!
//! Reading never waits for a client or a handler, only for another shard's inbox, which always empties, and up to a
//! second for the answers to many queries.

mod attachment;
mod mirror_frame;
mod record_request;
mod route;
mod session_over;
mod socket_carrier;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};
use trunkline_link::{LinkClock, window_passed};
use trunkline_protocol::id::random_bytes;
use trunkline_protocol::limits::LINK_HANDSHAKE_TIMEOUT_MS;
use trunkline_protocol::service::{
    Backoff, Capabilities, FrameBuffer, Incoming, Offer, Role, ServiceMessage, Session, SessionId, UndeliveredFrames,
};

use crate::engine::shard::{LinkLoss, Shard, ShardCommand};
use crate::engine::upstream::{AppTarget, DialError, Dialled, LinkHandle, Pool, dial};
use crate::ground::limits::LinkPermit;
use crate::ground::metrics::SessionCloseReason;
use session_over::CarryEnd;

pub(crate) use attachment::{ShardSink, link_carrier};
pub(crate) use route::{FrameSource, NAMES_PER_COMMAND_MAX, RoutedBatch, read_filtered, route, route_counted};
pub(crate) use session_over::SessionOver;
pub(crate) use socket_carrier::{SocketCarrier, SocketMeter};

/// Number of dials of a lost link per resume window: a stuck dial times out, because another may get through.
const DIALS_PER_WINDOW: u64 = 4;

/// Minimum timeout of a dial, even with a short window: a distant app server may need it.
const DIAL_TIMEOUT_MIN_MS: u64 = 500;

/// Pause before a slot without a permit tries again.
const PERMIT_RETRY: Duration = Duration::from_secs(5);

pub(crate) async fn keep_link(shard: Rc<Shard>, pool: Arc<Pool>, slot: usize) {
    let Ok(_permit) = take_permit(&shard, &pool, slot).await else { return };
    let mut id = pool.first_session();
    let mut backoff = Backoff::default();
    while !pool.retired.is_cancelled() {
        let mut keeper = SlotKeeper::new(&shard, &pool, slot, id);
        let over = keeper.run(&mut backoff).await;
        keeper.end_session(over).await;
        id = id.next();
    }
}

/// Waits for a permit, which only links over a network need.
async fn take_permit(shard: &Shard, pool: &Pool, slot: usize) -> Result<Option<LinkPermit>, PoolRetired> {
    let AppTarget::Network(address) = &pool.app.target else { return Ok(None) };
    let (limits, mut is_first) = (&shard.shared().limits, true);
    loop {
        let refusal = match limits.links.take_dialled(address.authority()) {
            Ok(permit) => return Ok(Some(permit)),
            Err(refusal) => refusal,
        };
        limits.refusals.count("links", refusal.label());
        if is_first && let Some(others) = pool.may_warn() {
            let (hub, app) = (pool.hub.name(), &pool.app.name);
            warn!(hub, %app, slot, reason = %refusal, others, "link not opened");
        }
        is_first = false;
        tokio::select! {
            () = pool.retired.cancelled() => return Err(PoolRetired),
            () = sleep(PERMIT_RETRY) => {}
        }
    }
}

/// Error: the pool of a slot was retired.
struct PoolRetired;

struct SlotKeeper<'a> {
    shard: &'a Rc<Shard>,
    pool: &'a Arc<Pool>,
    slot: usize,
    link: Arc<LinkHandle>,
    clock: LinkClock,
    incoming: Incoming,
    /// Changes when the app server has left gracefully.
    left: watch::Receiver<()>,
    was_open: bool,
}

impl<'a> SlotKeeper<'a> {
    fn new(shard: &'a Rc<Shard>, pool: &'a Arc<Pool>, slot: usize, id: SessionId) -> Self {
        let links = shard.shared().settings.links;
        let session = Session::new(id, Role::Proxy, links.session(), shard.shared().now_ms());
        let link = LinkHandle::new(pool.hub.clone(), pool.app.id, links.outbox_max_bytes, session);
        let clock = LinkClock::since(shard.shared().instant(0));
        let (incoming, left) = (Incoming::default(), pool.left());
        Self { shard, pool, slot, link: Arc::new(link), clock, incoming, left, was_open: false }
    }

    async fn run(&mut self, backoff: &mut Backoff) -> SessionOver {
        loop {
            let (dialled, offer) = match self.dial(backoff).await {
                Ok(dialled) => dialled,
                Err(over) => return over,
            };
            backoff.reset();
            match self.carry(dialled, &offer).await {
                CarryEnd::Over(over) => return over,
                CarryEnd::Lost(reason) => self.lost(&reason),
            }
            if let Some(over) = self.wait(backoff).await {
                return over;
            }
        }
    }

    async fn dial(&mut self, backoff: &mut Backoff) -> Result<(Dialled, Offer), SessionOver> {
        loop {
            let Some(offer) = self.offer() else { return Err(SessionOver::retired()) };
            let begun = Instant::now();
            let shared = self.shard.shared();
            let terms = self.pool.app.group.terms();
            let caller = terms.caller(&shared.settings.node);
            let dialling = dial(self.pool, self.slot, &offer, &shared.boot, caller);
            let dialled = tokio::select! {
                biased;
                over = self.give_up() => return Err(over),
                dialled = timeout(self.dial_timeout(), dialling) => dialled.unwrap_or(Err(DialError::Timeout)),
            };
            match dialled {
                Ok(dialled) => {
                    self.shard.counters().dials.observe_duration(begun.elapsed());
                    return Ok((dialled, offer));
                }
                // Start the next session immediately, unless this one was never open: then the app server has a
                // problem.
                Err(DialError::UnknownSession) if self.was_open => return Err(SessionOver::unknown()),
                Err(DialError::UnknownSession) => {
                    let over = self.wait(backoff).await;
                    return Err(over.unwrap_or_else(SessionOver::unknown));
                }
                // The watcher of the upstream reads the manifest again and retires the pool.
                Err(DialError::OtherInstance) => self.pool.met_another_instance(),
                Err(error) => {
                    // The upstream watcher logs the problem once; at a higher level, this would be a line per link and
                    // attempt.
                    let (hub, slot) = (self.pool.hub.name(), self.slot);
                    debug!(hub, app = %self.pool.app.target, slot, %error, "cannot open a link yet");
                }
            }
            if let Some(over) = self.wait(backoff).await {
                return Err(over);
            }
        }
    }

    fn offer(&self) -> Option<Offer> {
        let mut offer = self.link.outbox().offer()?;
        if !self.shard.shared().settings.links.can_resume() {
            offer.capabilities = Capabilities::plain();
        }
        Some(offer)
    }

    fn dial_timeout(&self) -> Duration {
        let window_ms = self.shard.shared().settings.links.resume_window_ms;
        let resuming_ms = (window_ms / DIALS_PER_WINDOW).clamp(DIAL_TIMEOUT_MIN_MS, LINK_HANDSHAKE_TIMEOUT_MS);
        // The first dial has its own timeouts.
        Duration::from_millis(if self.was_open { resuming_ms } else { 2 * LINK_HANDSHAKE_TIMEOUT_MS })
    }

    /// Waits before the next dial. Returns early if the session ends.
    async fn wait(&self, backoff: &mut Backoff) -> Option<SessionOver> {
        let wait = Duration::from_millis(backoff.next_wait_ms(u16::from_ne_bytes(random_bytes())));
        tokio::select! {
            over = self.give_up() => Some(over),
            () = sleep(wait) => None,
        }
    }

    async fn give_up(&self) -> SessionOver {
        let mut left = self.left.clone();
        tokio::select! {
            Ok(()) = left.changed(), if self.was_open => SessionOver::left(),
            () = self.pool.retired.cancelled() => SessionOver::retired(),
            cause = window_passed(self.link.outbox(), self.clock) => SessionOver::decided(cause),
        }
    }

    fn lost(&self, reason: &str) {
        self.pool.interrupted();
        let (hub, app, slot) = (self.pool.hub.name(), &self.pool.app.name, self.slot);
        debug!(hub, %app, slot, reason, "link lost: waiting for it to resume");
    }

    /// Logs the end of the session. Warns only about protocol violations; the upstream watcher warns about lost links.
    fn log_end(&self, over: &SessionOver) {
        let (hub, app, slot, reason) = (self.pool.hub.name(), &self.pool.app.name, self.slot, &over.reason);
        let is_broken = self.was_open && over.cause == SessionCloseReason::Broken;
        match is_broken.then(|| self.pool.may_warn()).flatten() {
            Some(suppressed) => warn!(hub, %app, reason, suppressed, "link closed: protocol error"),
            None => debug!(hub, %app, slot, was_open = self.was_open, reason, "link closed"),
        }
    }

    /// Ends the session, and notifies its client connections exactly once.
    async fn end_session(self, over: SessionOver) {
        let (leftover, cause) = (self.link.outbox().close_outbox(), over.of_connections());
        let is_goodbye = matches!(over.cause, SessionCloseReason::Farewell);
        // A goodbye means that the app server has ended its connections.
        let pending_closes = if is_goodbye { Vec::new() } else { pending_closes(&leftover) };
        self.pool.lost(self.slot);
        if is_goodbye {
            self.pool.said_goodbye();
        }
        let counters = &self.shard.counters().sessions;
        counters.ended.of(over.cause).increment();
        if !is_goodbye {
            counters.frames_lost.add(leftover.uncertain.count + leftover.unsent.count);
        }
        self.log_end(&over);
        if self.was_open {
            let loss = LinkLoss {
                link: self.link.id,
                cause,
                noticed_within_s: 0,
                may_be_unnoticed: false,
                is_goodbye,
                pending_closes,
            };
            give_to_all(self.shard, &ShardCommand::LinkLost(Arc::new(loss))).await;
        }
        over.send_goodbye().await;
    }
}

/// Ids of the connections closed by these frames, in frame order.
fn pending_closes(frames: &UndeliveredFrames) -> Vec<ByteString> {
    let mut buffer = FrameBuffer::default();
    frames.uncertain.chunks.iter().chain(&frames.unsent.chunks).for_each(|chunk| buffer.push(chunk.clone()));
    let mut ids = Vec::new();
    while let Ok(Some(body)) = buffer.next_body() {
        match ServiceMessage::decode(&body) {
            Ok(Some(ServiceMessage::CloseConnection(close))) if !close.is_reassignment() => {
                ids.push(close.connection_id)
            }
            Ok(Some(ServiceMessage::OpenConnection(open))) if open.origin().ended.is_some() => {
                ids.push(open.connection_id);
            }
            _ => {}
        }
    }
    ids.sort_unstable();
    ids
}

pub(crate) async fn give_to_all(shard: &Rc<Shard>, command: &ShardCommand) {
    for (index, other) in shard.shared().shards().iter().enumerate() {
        if index == usize::from(shard.index()) {
            shard.apply(vec![command.clone()]);
        } else {
            other.give(vec![command.clone()], 0).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::manifest::{ENDED_HEADER, MIGRATE_TO_HEADER};
    use trunkline_protocol::service::{CloseConnection, Frames, OpenConnection};

    use super::*;

    fn frames(messages: &[ServiceMessage]) -> Frames {
        Frames { chunks: messages.iter().map(ServiceMessage::to_frame).collect(), count: messages.len() as u64 }
    }

    fn close(id: &'static str, header: Option<&'static str>) -> ServiceMessage {
        let headers = header.into_iter().map(|name| (name.into(), vec!["x".into()])).collect();
        ServiceMessage::CloseConnection(CloseConnection { connection_id: id.into(), error: None, headers })
    }

    fn open(id: &'static str, header: &'static str) -> ServiceMessage {
        let headers = vec![(header.into(), vec!["x".into()])];
        ServiceMessage::OpenConnection(OpenConnection {
            connection_id: id.into(),
            headers,
            ..OpenConnection::default()
        })
    }

    #[test]
    fn ends_that_a_lost_session_has_not_delivered_are_found_in_its_frames() {
        let uncertain = frames(&[close("c3", None), close("c4", Some(MIGRATE_TO_HEADER)), open("c5", "x-app")]);
        let unsent = frames(&[open("c2", ENDED_HEADER), close("c1", None)]);
        assert_eq!(pending_closes(&UndeliveredFrames { uncertain, unsent }), ["c1", "c2", "c3"]);
        assert!(pending_closes(&UndeliveredFrames::default()).is_empty());
    }
}
