//! Incoming node links: one session per process start of a node, with one socket at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_link::{LinkClock, SocketStop, StopReason};
use trunkline_protocol::service::{
    Answer, Attachment, Incoming, Offer, Role, SessionEvent, SessionId, UpgradeDecision, UpgradeRefusal, decide_upgrade,
};

use super::fleet_member::FleetMember;
use super::node_link::NodeLink;

/// Retention of an ended session id. No upgrade stays in flight for longer.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// Incoming sessions by the boot id of the dialling node.
#[derive(Debug, Default)]
pub(super) struct AcceptedLinks(Mutex<HashMap<String, AcceptedSlot>>);

#[derive(Debug, Default)]
struct AcceptedSlot {
    live: Option<Arc<NodeLink>>,
    newest: Option<SessionId>,
    empty_since: Option<Instant>,
}

/// Session assigned to an upgrade, before its socket exists.
pub(super) struct AcceptedSession {
    pub(super) link: Arc<NodeLink>,
    pub(super) attachment: Attachment,
    pub(super) incoming: Incoming,
    pub(super) stop: SocketStop,
}

pub(super) enum TakenSession {
    Attached(AcceptedSession, Answer),
    /// The session still has a socket, which must be closed first.
    Occupied(Arc<NodeLink>),
}

impl AcceptedLinks {
    /// Assigns a session to a member's upgrade. `begun` is called for each new session.
    pub(super) fn take_link(
        &self,
        (member, clock): (&FleetMember, LinkClock),
        offer: &Offer,
        begun: impl FnOnce(&Arc<NodeLink>),
    ) -> Result<TakenSession, UpgradeRefusal> {
        let mut slots = self.slots();
        slots.retain(|_, slot| slot.empty_since.is_none_or(|since| since.elapsed() < REMEMBERED_FOR));
        let slot = slots.entry(member.boot().to_owned()).or_default();
        let decision = match &slot.live {
            Some(live) => live.outbox().decide_upgrade(offer, slot.newest),
            None => decide_upgrade(offer, None, slot.newest),
        };
        let link = match (decision, &slot.live) {
            (UpgradeDecision::Refuse(refusal), _) => return Err(refusal),
            (UpgradeDecision::EndSocketFirst, Some(live)) => return Ok(TakenSession::Occupied(live.clone())),
            (UpgradeDecision::Resume, Some(live)) => live.clone(),
            _ => {
                let link = begin_link((member, clock), slot, offer);
                begun(&link);
                link
            }
        };
        let Some(Ok((attachment, answer))) = link.outbox().attach_offer(offer, link.clock.now_ms()) else {
            end_link(slot, member, &link);
            return Err(UpgradeRefusal::Unknown);
        };
        let (incoming, stop) = link.begin_socket(answer.received);
        Ok(TakenSession::Attached(AcceptedSession { link, attachment, incoming, stop }, answer))
    }

    /// Ends a session that has no socket; returns `false` if it is connected again.
    pub(super) fn end_detached(&self, member: &FleetMember, link: &Arc<NodeLink>) -> bool {
        let mut slots = self.slots();
        if link.is_open() {
            return false;
        }
        if let Some(slot) = slots.get_mut(member.boot()) {
            end_link(slot, member, link);
        }
        true
    }

    /// Detaches the socket. Ends the session if its verdict or `is_over` says so, and returns whether it ended.
    pub(super) fn detach(
        &self,
        member: &FleetMember,
        (link, attachment): (&Arc<NodeLink>, Attachment),
        is_over: bool,
    ) -> bool {
        let mut slots = self.slots();
        let verdict = link.outbox().detach(attachment, link.clock.now_ms());
        let is_over = is_over || matches!(verdict, Some(SessionEvent::End(_)));
        if is_over && let Some(slot) = slots.get_mut(member.boot()) {
            end_link(slot, member, link);
        }
        is_over
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, AcceptedSlot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins a session, replacing any earlier session of the same process start.
fn begin_link((member, clock): (&FleetMember, LinkClock), slot: &mut AcceptedSlot, offer: &Offer) -> Arc<NodeLink> {
    if let Some(former) = slot.live.take() {
        former.stop_socket(StopReason::Replaced);
        former.end_link();
    }
    let link = Arc::new(NodeLink::new(offer.session, Role::AppServer, clock));
    *slot = AcceptedSlot { live: Some(link.clone()), newest: Some(offer.session), empty_since: None };
    member.set_incoming(Some(link.clone()));
    link
}

fn end_link(slot: &mut AcceptedSlot, member: &FleetMember, link: &Arc<NodeLink>) {
    link.end_link();
    if slot.live.as_ref().is_some_and(|live| Arc::ptr_eq(live, link)) {
        (slot.live, slot.empty_since) = (None, Some(Instant::now()));
        member.set_incoming(None);
    }
}
