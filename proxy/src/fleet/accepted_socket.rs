//! Sockets of incoming node links.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Role as Side;
use tracing::{debug, info};
use trunkline_link::{LinkSocket, SocketStop, StopReason, wait_for_verdict};
use trunkline_protocol::service::{Answer, Attachment, Incoming, Offer, Role, SessionEvent, UpgradeRefusal};

use super::accepted_link::{AcceptedSession, TakenSession};
use super::carry::node_carrier;
use super::fleet_core::Fleet;
use super::fleet_member::FleetMember;
use super::link_over::LinkOver;
use super::node_link::NodeLink;
use super::node_sink::{LinkDirection, NodeSink};
use crate::engine::upstream::into_websocket;

/// Guard of a session's current socket. Dropping it detaches the socket.
pub(super) struct AcceptedSocket {
    fleet: Fleet,
    member: Arc<FleetMember>,
    link: Arc<NodeLink>,
    attachment: Attachment,
    incoming: Incoming,
    stop: SocketStop,
    /// Set if the session ends together with this socket.
    over: Option<LinkOver>,
}

impl AcceptedSocket {
    pub(super) async fn attach(
        fleet: &Fleet,
        member: &Arc<FleetMember>,
        offer: &Offer,
    ) -> Result<(Self, Answer), UpgradeRefusal> {
        let begun = |link: &Arc<NodeLink>| {
            fleet.presence().note_change();
            tokio::spawn(keep(fleet.clone(), member.clone(), link.clone()));
        };
        loop {
            match fleet.accepted().take((member, fleet.members().clock()), offer, begun)? {
                TakenSession::Attached(AcceptedSession { link, attachment, incoming, stop }, answer) => {
                    let (fleet, member) = (fleet.clone(), member.clone());
                    return Ok((Self { fleet, member, link, attachment, incoming, stop, over: None }, answer));
                }
                TakenSession::Occupied(link) => {
                    link.stop_socket(StopReason::Replaced);
                    link.detached().await;
                }
            }
        }
    }

    pub(super) async fn run(mut self, upgrade: OnUpgrade) {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return debug!(peer = self.member.name(), %error, "upgrade of a node link failed"),
        };
        let LinkSocket { reader, mut writer } = LinkSocket::network(into_websocket(upgraded, Side::Server).await);
        let (mut incoming, stop) = (std::mem::take(&mut self.incoming), self.stop.clone());
        let Self { fleet, member, link, attachment, .. } = &self;
        let carrier = node_carrier(link, fleet.fleet_relay().counters(), *attachment, stop);
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
        let is_over = fleet.accepted().detach(member, (link, *attachment), self.over.is_some());
        link.notify_detached();
        if is_over {
            let reason = self.over.as_ref().map(|over| over.reason.as_str());
            let is_gone = self.over.as_ref().is_some_and(|over| over.is_gone);
            match is_gone || fleet.members().has_left() {
                true => debug!(peer = member.name(), reason, "link from a node closed"),
                false => info!(peer = member.name(), reason, "link from a node closed"),
            }
            if is_gone {
                member.set_left();
                fleet.members().note_gone(member);
            }
            fleet.link_over(member);
        }
    }
}

/// Watches for silence of the other node and ends the session after too long a silence.
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
