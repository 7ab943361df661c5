//! Links that other nodes have dialled: one session for each start of a node, and one socket at a time for that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::protocol::Role as Side;
use tracing::{debug, info};
use trunkline_link::{LinkSocket, SocketStop, StopReason, wait_for_verdict};
use trunkline_protocol::service::{
    Answer, Attachment, Incoming, Offer, Role, SessionEvent, SessionId, UpgradeDecision, UpgradeRefusal, decide_upgrade,
};

use super::Fleet;
use super::carry::node_carrier;
use super::fleet_member::FleetMember;
use super::link_over::LinkOver;
use super::node_link::NodeLink;
use super::node_sink::{LinkDirection, NodeSink};
use crate::upstream::into_websocket;

/// How long the newest session of a node is remembered after it was over: no upgrade is under way for longer.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// Sessions that other nodes have begun, by their boot ids.
#[derive(Debug, Default)]
pub(super) struct AcceptedLinks(Mutex<HashMap<String, AcceptedSlot>>);

#[derive(Debug, Default)]
struct AcceptedSlot {
    live: Option<Arc<NodeLink>>,
    newest: Option<SessionId>,
    empty_since: Option<Instant>,
}

/// Right to be the socket of a session; dropped, the session has none.
pub(super) struct AcceptedSocket {
    fleet: Fleet,
    member: Arc<FleetMember>,
    link: Arc<NodeLink>,
    attachment: Attachment,
    incoming: Incoming,
    stop: SocketStop,
    /// The session ends with this socket, for this reason.
    over: Option<LinkOver>,
}

/// Outcome of an upgrade.
enum TakenSession {
    Attached(AcceptedSocket, Answer),
    /// The session has a socket, which is to be ended first.
    Occupied(Arc<NodeLink>),
}

impl AcceptedLinks {
    /// Gives a member's upgrade its session, new or not.
    ///
    /// # Errors
    /// When the session is not known any more, or the offer makes no sense.
    pub(super) async fn attach(
        fleet: &Fleet,
        member: &Arc<FleetMember>,
        offer: &Offer,
    ) -> Result<(AcceptedSocket, Answer), UpgradeRefusal> {
        loop {
            match fleet.accepted().take(fleet, member, offer)? {
                TakenSession::Attached(socket, answer) => return Ok((socket, answer)),
                TakenSession::Occupied(link) => {
                    link.stop_socket(StopReason::Replaced);
                    link.detached().await;
                }
            }
        }
    }

    fn take(&self, fleet: &Fleet, member: &Arc<FleetMember>, offer: &Offer) -> Result<TakenSession, UpgradeRefusal> {
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
            _ => begin(fleet, member, slot, offer),
        };
        let Some(Ok((attachment, answer))) = link.outbox().attach_offer(offer, link.clock().now_ms()) else {
            end(slot, member, &link);
            return Err(UpgradeRefusal::Unknown);
        };
        let (incoming, stop) = link.begin_socket(answer.received);
        let (fleet, member) = (fleet.clone(), member.clone());
        Ok(TakenSession::Attached(
            AcceptedSocket { fleet, member, link, attachment, incoming, stop, over: None },
            answer,
        ))
    }

    /// Ends a session unless it has a socket again; `false` then.
    fn end_detached(&self, member: &FleetMember, link: &Arc<NodeLink>) -> bool {
        let mut slots = self.slots();
        if link.is_open() {
            return false;
        }
        if let Some(slot) = slots.get_mut(member.boot()) {
            end(slot, member, link);
        }
        true
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, AcceptedSlot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins a session; another one of the same start of the node is over.
fn begin(fleet: &Fleet, member: &Arc<FleetMember>, slot: &mut AcceptedSlot, offer: &Offer) -> Arc<NodeLink> {
    if let Some(former) = slot.live.take() {
        former.stop_socket(StopReason::Replaced);
        former.end();
    }
    let link = Arc::new(NodeLink::new(offer.session, Role::AppServer, fleet.clock()));
    *slot = AcceptedSlot { live: Some(link.clone()), newest: Some(offer.session), empty_since: None };
    member.set_incoming(Some(link.clone()));
    fleet.presence_changed();
    tokio::spawn(keep(fleet.clone(), member.clone(), link.clone()));
    link
}

fn end(slot: &mut AcceptedSlot, member: &FleetMember, link: &Arc<NodeLink>) {
    link.end();
    if slot.live.as_ref().is_some_and(|live| Arc::ptr_eq(live, link)) {
        (slot.live, slot.empty_since) = (None, Some(Instant::now()));
        member.set_incoming(None);
    }
}

/// Counts the silence of the other node, and ends the session when that has lasted too long.
async fn keep(fleet: Fleet, member: Arc<FleetMember>, link: Arc<NodeLink>) {
    loop {
        let reason = tokio::select! {
            () = link.given_up() => StopReason::Shutdown,
            verdict = wait_for_verdict(link.outbox(), link.clock(), |_| {}) => match verdict {
                None => break,
                Some(SessionEvent::PeerSilent) => {
                    link.stop_socket(StopReason::Silent);
                    continue;
                }
                Some(SessionEvent::End(cause)) => StopReason::Over(cause),
            }
        };
        link.stop_socket(reason);
        link.detached().await;
        if fleet.accepted().end_detached(&member, &link) || link.is_given_up() {
            break;
        }
    }
    fleet.link_over(&member);
}

impl AcceptedSocket {
    /// Runs the socket until it ends.
    pub(super) async fn run(mut self, upgrade: OnUpgrade) {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return debug!(peer = self.member.name(), %error, "the upgrade of a node link broke off"),
        };
        let LinkSocket { reader, mut writer } = LinkSocket::network(into_websocket(upgraded, Side::Server).await);
        let (mut incoming, stop) = (std::mem::take(&mut self.incoming), self.stop.clone());
        let Self { fleet, member, link, attachment, .. } = &self;
        let carrier = node_carrier(link, fleet.counters(), *attachment, stop);
        let mut sink = NodeSink::new(fleet, member, link, LinkDirection::ByIt);
        let end = carrier.run(&mut incoming, reader, &mut writer, &mut sink, link.given_up()).await;
        drop(sink);
        self.incoming = incoming;
        if !end.is_resumable() {
            self.over = Some(LinkOver::from(&end));
        }
        drop(self);
        if let Some(words) = end.close_frame(Role::AppServer) {
            drop(timeout(Duration::from_secs(1), writer.close(words)).await);
        }
    }
}

impl Drop for AcceptedSocket {
    fn drop(&mut self) {
        let Self { fleet, member, link, attachment, .. } = self;
        link.end_socket(std::mem::take(&mut self.incoming));
        let mut slots = fleet.accepted().slots();
        let verdict = link.outbox().detach(*attachment, link.clock().now_ms());
        let is_over = self.over.is_some() || matches!(verdict, Some(SessionEvent::End(_)));
        if is_over && let Some(slot) = slots.get_mut(member.boot()) {
            end(slot, member, link);
        }
        drop(slots);
        link.notify_detached();
        if is_over {
            let reason = self.over.as_ref().map(|over| over.reason.as_str());
            let is_gone = self.over.as_ref().is_some_and(|over| over.is_gone);
            match is_gone || fleet.has_left() {
                true => debug!(peer = member.name(), reason, "the link from a node is over"),
                false => info!(peer = member.name(), reason, "the link from a node is over"),
            }
            if is_gone {
                member.set_left();
                fleet.note_gone(member);
            }
            fleet.link_over(member);
        }
    }
}
