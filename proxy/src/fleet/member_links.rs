//! Links between this node and another: each node sends over the link it dialled.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::time::Instant;
use trunkline_link::TrySendError;
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;

use super::node_link::{DropCause, NodeLink};
use crate::ground::auth::Signer;
use crate::ground::limits::SignerShare;

#[derive(Debug, Default)]
pub(crate) struct MemberLinks {
    outgoing: ArcSwapOption<NodeLink>,
    incoming: ArcSwapOption<NodeLink>,
}

impl MemberLinks {
    pub(super) fn outgoing(&self) -> Option<Arc<NodeLink>> {
        self.outgoing.load_full()
    }

    pub(super) fn incoming(&self) -> Option<Arc<NodeLink>> {
        self.incoming.load_full()
    }

    pub(super) fn living(&self) -> impl Iterator<Item = Arc<NodeLink>> {
        [self.outgoing(), self.incoming()].into_iter().flatten()
    }

    pub(super) fn set_outgoing(&self, link: Option<Arc<NodeLink>>) {
        self.outgoing.store(link);
    }

    pub(super) fn set_incoming(&self, link: Option<Arc<NodeLink>>) {
        self.incoming.store(link);
    }

    /// Whether both links live. Both nodes then count each other as members.
    pub(crate) fn are_complete(&self) -> bool {
        self.outgoing.load().is_some() && self.incoming.load().is_some()
    }

    pub(crate) fn are_open(&self) -> bool {
        self.outgoing.load().as_ref().is_some_and(|link| link.is_open()) && self.has_incoming_socket()
    }

    /// Whether the incoming link has a socket, which shows that the other node is alive.
    pub(super) fn has_incoming_socket(&self) -> bool {
        self.incoming.load().as_ref().is_some_and(|link| link.is_open())
    }

    /// Lag of the slower link in milliseconds.
    pub(crate) fn lag_ms(&self, now_ms: u64) -> u64 {
        self.living().map(|link| link.beats().lag_ms(now_ms)).max().unwrap_or_default()
    }

    /// Whether the outgoing link is missing, or silent for too long to wait for an answer.
    pub(super) fn is_overdue(&self, now_ms: u64) -> bool {
        self.outgoing.load().as_ref().is_none_or(|link| link.is_overdue(now_ms))
    }

    /// Whether an app has used up its share of the queue for the node.
    pub(super) fn are_crowded(&self, share: &SignerShare) -> bool {
        self.outgoing.load().as_ref().is_some_and(|link| link.is_crowded(share))
    }

    /// Waits until an app has room in the queue for the node.
    pub(super) async fn room(&self, share: &SignerShare, until: Instant) {
        if let Some(link) = self.outgoing() {
            link.room(share, until).await;
        }
    }

    /// Queues a frame of an app. The caller of a query needs the error, because an unqueued query gets no answer.
    pub(super) fn send(&self, signer: &Signer, frame: &[u8]) -> Result<(), DropCause> {
        // The length prefix takes five bytes at most.
        if frame.len() > LINK_FRAME_MAX_BYTES + 5 {
            return Err(DropCause::TooLarge);
        }
        let link = self.outgoing().ok_or(DropCause::Unlinked)?;
        link.try_send(signer, frame).map_err(|error| match error {
            TrySendError::Full => DropCause::Full,
            TrySendError::Closed => DropCause::Unlinked,
        })
    }
}

#[cfg(test)]
mod tests {
    use trunkline_link::LinkClock;
    use trunkline_protocol::fleet::OVERDUE_AFTER_MS;
    use trunkline_protocol::service::{Role, SessionId};

    use super::*;

    fn link(role: Role) -> Option<Arc<NodeLink>> {
        Some(Arc::new(NodeLink::new(SessionId::FIRST, role, LinkClock::start())))
    }

    #[test]
    fn links_are_complete_once_each_node_has_dialled_the_other() {
        let links = MemberLinks::default();
        assert!(links.living().next().is_none() && !links.are_complete());
        links.set_outgoing(link(Role::Proxy));
        assert!(links.living().count() == 1 && !links.are_complete());
        links.set_incoming(link(Role::AppServer));
        assert!(links.living().count() == 2 && links.are_complete());
        assert!(!links.are_open() && !links.has_incoming_socket(), "no link has a socket yet");
        links.set_outgoing(None);
        assert!(links.outgoing().is_none() && links.incoming().is_some() && !links.are_complete());
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_without_a_socket_is_overdue_after_some_time() {
        let links = MemberLinks::default();
        assert!(links.is_overdue(0), "without a link no answer can come");
        let outgoing = link(Role::Proxy);
        links.set_outgoing(outgoing.clone());
        let now_ms = outgoing.unwrap().clock.now_ms();
        assert!(!links.is_overdue(now_ms) && links.is_overdue(now_ms + OVERDUE_AFTER_MS + 1));
        assert_eq!(links.lag_ms(now_ms), 0, "no beat is owed");
    }

    #[test]
    fn a_frame_needs_an_outgoing_link_that_lives() {
        let links = MemberLinks::default();
        links.set_incoming(link(Role::AppServer));
        assert!(
            matches!(links.send(&Signer::Fleet, b"frame"), Err(DropCause::Unlinked)),
            "the incoming link takes no frame"
        );
        let outgoing = link(Role::Proxy);
        links.set_outgoing(outgoing.clone());
        assert!(links.send(&Signer::Fleet, b"frame").is_ok());
        assert!(matches!(links.send(&Signer::Fleet, &vec![0; LINK_FRAME_MAX_BYTES + 6]), Err(DropCause::TooLarge)));
        outgoing.unwrap().end_link();
        assert!(matches!(links.send(&Signer::Fleet, b"frame"), Err(DropCause::Unlinked)));
    }
}
