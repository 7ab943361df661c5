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

use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};
use trunkline_link::{Keeper, LinkClock, SessionDriver, window_passed};
use trunkline_process::LinePermit;
use trunkline_protocol::limits::LINK_HANDSHAKE_TIMEOUT_MS;
use trunkline_protocol::service::{
    Capabilities, FrameBuffer, Incoming, Offer, Role, ServiceMessage, Session, SessionId, UndeliveredFrames,
};

use crate::engine::shard::{LinkLoss, Shard, ShardCommand};
use crate::engine::upstream::{AppTarget, DialError, Dialled, LinkHandle, LinkUpgradeError, Pool, dial};
use crate::ground::limits::LinkPermit;
use crate::ground::metrics::SessionCloseReason;
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
    let mut keeper = Keeper::default();
    while !pool.retired.is_cancelled() {
        let mut session = SlotSession::new(&shard, &pool, slot, id);
        let over = keeper.keep(&mut session).await;
        session.end_session(over).await;
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
        if is_first && let Some(LinePermit { left_out }) = pool.may_warn() {
            let (hub, app) = (pool.hub.name(), &pool.app.name);
            warn!(hub, %app, slot, reason = %refusal, left_out, "link not opened");
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

/// Session of one slot, for the keeper.
struct SlotSession<'a> {
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

impl<'a> SlotSession<'a> {
    fn new(shard: &'a Rc<Shard>, pool: &'a Arc<Pool>, slot: usize, id: SessionId) -> Self {
        let links = shard.shared().settings.links;
        let session = Session::new(id, Role::Proxy, links.session(), shard.shared().now_ms());
        let link = LinkHandle::new(pool.hub.clone(), pool.app.id, links.outbox_max_bytes, session);
        let clock = LinkClock::since(shard.shared().instant(0));
        let (incoming, left) = (Incoming::default(), pool.left());
        Self { shard, pool, slot, link: Arc::new(link), clock, incoming, left, was_open: false }
    }

    fn dial_timeout(&self) -> Duration {
        let window_ms = self.shard.shared().settings.links.resume_window_ms;
        let resuming_ms = (window_ms / DIALS_PER_WINDOW).clamp(DIAL_TIMEOUT_MIN_MS, LINK_HANDSHAKE_TIMEOUT_MS);
        // The first dial has its own timeouts.
        Duration::from_millis(if self.was_open { resuming_ms } else { 2 * LINK_HANDSHAKE_TIMEOUT_MS })
    }

    fn lost(&self, reason: &str) -> ControlFlow<SessionOver> {
        self.pool.interrupted();
        let (hub, app, slot) = (self.pool.hub.name(), &self.pool.app.name, self.slot);
        debug!(hub, %app, slot, reason, "link lost: waiting for it to resume");
        ControlFlow::Continue(())
    }

    /// Logs the end of the session. Warns only about protocol violations; the upstream watcher warns about lost links.
    fn log_end(&self, over: &SessionOver) {
        let (hub, app, slot, reason) = (self.pool.hub.name(), &self.pool.app.name, self.slot, &over.reason);
        let is_broken = self.was_open && over.cause == SessionCloseReason::Broken;
        match is_broken.then(|| self.pool.may_warn()).flatten() {
            Some(LinePermit { left_out }) => warn!(hub, %app, reason, left_out, "link closed: protocol error"),
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

impl SessionDriver for SlotSession<'_> {
    type Socket = Dialled;
    type Error = DialError;
    type Over = SessionOver;

    fn offer(&self) -> Result<Offer, SessionOver> {
        let mut offer = self.link.outbox().offer().ok_or_else(SessionOver::retired)?;
        if !self.shard.shared().settings.links.can_resume() {
            offer.capabilities = Capabilities::plain();
        }
        Ok(offer)
    }

    async fn dial(&self, offer: &Offer) -> Result<Dialled, DialError> {
        let (begun, shared) = (Instant::now(), self.shard.shared());
        let terms = self.pool.app.group.terms();
        let dialling = dial(self.pool, self.slot, offer, &shared.boot, terms.caller(&shared.settings.node));
        let dialled = timeout(self.dial_timeout(), dialling).await.unwrap_or(Err(DialError::Timeout))?;
        self.shard.counters().dials.observe_duration(begun.elapsed());
        Ok(dialled)
    }

    fn handle_failure(&mut self, error: DialError) -> ControlFlow<SessionOver> {
        match error {
            DialError::Upgrade(LinkUpgradeError::UnknownSession) => return ControlFlow::Break(SessionOver::unknown()),
            // The watcher of the upstream reads the manifest again and retires the pool.
            DialError::Upgrade(LinkUpgradeError::OtherInstance) => self.pool.met_another_instance(),
            error => {
                // The upstream watcher logs the problem once; at a higher level, this would be a line per link and
                // attempt.
                let (hub, slot) = (self.pool.hub.name(), self.slot);
                debug!(hub, app = %self.pool.app.target, slot, %error, "cannot open a link yet");
            }
        }
        ControlFlow::Continue(())
    }

    async fn carry(&mut self, dialled: Dialled, offer: Offer) -> ControlFlow<SessionOver> {
        self.carry_frames(dialled, &offer).await
    }

    async fn over(&self) -> SessionOver {
        let mut left = self.left.clone();
        tokio::select! {
            Ok(()) = left.changed(), if self.was_open => SessionOver::left(),
            () = self.pool.retired.cancelled() => SessionOver::retired(),
            cause = window_passed(self.link.outbox(), self.clock) => SessionOver::decided(cause),
        }
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
