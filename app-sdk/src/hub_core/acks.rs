//! Pending acknowledgements of proxies, and the limit of concurrent queries about groups and users, which clients may
//! trigger in large numbers. At a shutdown, fences wait until the proxies have handled all earlier frames.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytestring::ByteString;
use futures_util::future::join_all;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::{Instant, sleep, timeout};
use trunkline_link::LinkOutbox;
use trunkline_protocol::limits::ACK_TIMEOUT_MS;
use trunkline_protocol::service::{Ack, Check, ConnectionFlowControl, FlowOperation, FlowSubject, ServiceMessage};

use crate::node::Node;
use crate::outbound::Outbound;
use crate::sync::lock;

#[derive(Debug, Default)]
pub(crate) struct Acks(Mutex<AwaitedAcks>);

#[derive(Debug, Default)]
struct AwaitedAcks {
    latest: u32,
    waiting: HashMap<i64, WaitingAck>,
}

#[derive(Debug)]
struct WaitingAck {
    node: Arc<Node>,
    sender: oneshot::Sender<Ack>,
}

/// A pending acknowledgement. Dropping it cancels the wait.
#[derive(Debug)]
pub(crate) struct ExpectedAck<'a> {
    acks: &'a Acks,
    pub(crate) id: i64,
    receiver: oneshot::Receiver<Ack>,
}

impl Acks {
    pub(crate) fn expect(&self, node: &Arc<Node>) -> ExpectedAck<'_> {
        let mut awaited = lock(&self.0);
        // Azure's IDs are positive int32. When they wrap around after two billion requests, old ones are long
        // finished.
        let id = i64::from(awaited.latest % (i32::MAX as u32)) + 1;
        awaited.latest = awaited.latest.wrapping_add(1);
        let (sender, receiver) = oneshot::channel();
        awaited.waiting.insert(id, WaitingAck { node: Arc::clone(node), sender });
        ExpectedAck { acks: self, id, receiver }
    }

    /// Delivers an acknowledgement. Drops it if no request matches.
    pub(crate) fn acknowledge(&self, ack: Ack) {
        let waiting = lock(&self.0).waiting.remove(&ack.ack_id);
        if let Some(waiting) = waiting {
            let _ = waiting.sender.send(ack);
        }
    }

    pub(crate) fn fail_node(&self, node: &Arc<Node>) {
        lock(&self.0).waiting.retain(|_, waiting| !Arc::ptr_eq(&waiting.node, node));
    }
}

impl ExpectedAck<'_> {
    /// Waits for the acknowledgement; `None` if the node is lost.
    pub(crate) async fn received(&mut self) -> Option<Ack> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for ExpectedAck<'_> {
    fn drop(&mut self) {
        lock(&self.acks.0).waiting.remove(&self.id);
    }
}

/// Maximum number of concurrent queries of one hub. Each goes to every proxy.
const ASKED_MAX: usize = 1_024;

/// Maximum number of queued queries. Further queries are refused.
pub(crate) const WAITING_MAX: usize = 16_384;

#[derive(Debug)]
pub(crate) struct QueryLimit {
    turns: Semaphore,
    waiting: AtomicUsize,
}

struct Waiting<'a>(&'a AtomicUsize);

impl QueryLimit {
    /// Waits for a permit, at most as long as for a proxy's reply. `None` on timeout or if too many are queued.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Some(turn);
        }
        let waiting = Waiting(&self.waiting);
        if waiting.0.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return None;
        }
        timeout(Duration::from_millis(ACK_TIMEOUT_MS), self.turns.acquire()).await.ok()?.ok()
    }
}

impl Default for QueryLimit {
    fn default() -> Self {
        Self { turns: Semaphore::new(ASKED_MAX), waiting: AtomicUsize::new(0) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Time for a link without a socket to reconnect. A killed proxy delays the fence no longer than this.
const RETURN_WINDOW: Duration = Duration::from_secs(1);

/// Interval between checks whether a link has closed.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Announces the stop to all proxies, and waits until they open no connections here and have requested theirs.
pub(crate) async fn announce_shutdown(outbound: &Outbound, acks: &Acks) {
    let mut notified = Vec::new();
    // A proxy may have connected at the last moment.
    while announce_to_new(outbound, &mut notified) {
        // After the first fence, no shard opens new connections; after the second one, all connections opened before
        // have arrived.
        fence(outbound, acks).await;
        fence(outbound, acks).await;
    }
}

/// Announces the stop to proxies that are not in `notified`. Returns whether there were any.
fn announce_to_new(outbound: &Outbound, notified: &mut Vec<Arc<Node>>) -> bool {
    let message = ServiceMessage::ConnectionFlowControl(ConnectionFlowControl {
        connection_id: ByteString::new(),
        subject: FlowSubject::Server,
        operation: FlowOperation::Offline,
    });
    let nodes = outbound.nodes();
    let is_announced = |notified: &[Arc<Node>], node| notified.iter().any(|other| Arc::ptr_eq(other, node));
    let notified_before = notified.len();
    // Services are notified with a ping on each of their connections.
    for node in nodes.iter().filter(|node| !node.is_of_service()) {
        if !is_announced(notified, node) {
            // Over each link, because a link without a socket would hold the message back.
            for link in node.links() {
                // A closed link needs no notification.
                let _ = link.control(&message.to_frame());
            }
            notified.push(Arc::clone(node));
        }
    }
    notified.len() > notified_before
}

/// Waits until all shards of all proxies have applied everything queued for them before, and until everything that a
/// proxy had queued when it acknowledged has arrived, on every link.
///
/// Queries an empty group, which proxies of any version acknowledge after the preceding frames.
pub(crate) async fn fence(outbound: &Outbound, acks: &Acks) {
    let mut waits = Vec::new();
    for node in outbound.nodes().iter().filter(|node| !node.is_of_service()) {
        for link in node.links() {
            let ack = acks.expect(node);
            let check = Check { subject: ByteString::new(), ack_id: ack.id };
            if link.control(&ServiceMessage::CheckGroupExistenceWithAck(check).to_frame()).is_ok() {
                waits.push(async move { wait_for(ack, &link).await });
            }
        }
    }
    join_all(waits).await;
}

/// Waits for the acknowledgement over a link, or for the link to close.
async fn wait_for(mut ack: ExpectedAck<'_>, link: &LinkOutbox) {
    let mut last_open = Instant::now();
    while !link.is_closed() && last_open.elapsed() < RETURN_WINDOW {
        tokio::select! {
            _ = ack.received() => return,
            () = sleep(CHECK_INTERVAL) => {}
        }
        if link.is_open() {
            last_open = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use trunkline_protocol::service::{AckStatus, Capabilities};

    use super::*;

    fn node(name: &str) -> Arc<Node> {
        Arc::new(Node::new(crate::node::NodeName::proxy(name, "boot"), Capabilities::plain()))
    }

    #[test]
    fn an_acknowledgement_is_taken_once() {
        let acks = Acks::default();
        let mut expected = acks.expect(&node("a"));
        let ack = |status| Ack { ack_id: expected.id, status, ..Ack::default() };
        let (first, second) = (ack(AckStatus::Ok), ack(AckStatus::NotFound));
        acks.acknowledge(first.clone());
        acks.acknowledge(second);
        assert_eq!(expected.receiver.try_recv().unwrap(), first);
    }

    #[test]
    fn ids_are_positive_int32_and_wrap_around() {
        let (acks, node) = (Acks::default(), node("a"));
        lock(&acks.0).latest = i32::MAX as u32 - 1;
        assert_eq!(acks.expect(&node).id, i64::from(i32::MAX));
        assert_eq!(acks.expect(&node).id, 1);
    }

    #[test]
    fn a_lost_node_fails_its_own_requests_only() {
        let (acks, lost, other) = (Acks::default(), node("a"), node("b"));
        let (mut of_lost, mut of_other) = (acks.expect(&lost), acks.expect(&other));
        acks.fail_node(&lost);
        assert_eq!(of_lost.receiver.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
        assert_eq!(of_other.receiver.try_recv().unwrap_err(), oneshot::error::TryRecvError::Empty);
    }

    #[test]
    fn a_dropped_expectation_is_removed() {
        let acks = Acks::default();
        drop(acks.expect(&node("a")));
        assert!(lock(&acks.0).waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn questions_beyond_the_limit_wait_for_a_turn_and_no_longer_than_an_answer_may_take() {
        let limit = QueryLimit::default();
        let mut turns = join_all((0..ASKED_MAX).map(|_| limit.turn())).await;
        assert!(limit.turn().await.is_none(), "nobody gives a turn back");
        let (turn, ()) = tokio::join!(limit.turn(), async { drop(turns.pop()) });
        assert!(turn.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn queries_are_refused_immediately_when_too_many_wait() {
        let limit = QueryLimit::default();
        let _turns = join_all((0..ASKED_MAX).map(|_| limit.turn())).await;
        let waiting = join_all((0..WAITING_MAX).map(|_| limit.turn()));
        let refused = async {
            let begun = tokio::time::Instant::now();
            (limit.turn().await.is_none(), begun.elapsed())
        };
        let (_, refused) = tokio::join!(waiting, refused);
        assert_eq!(refused, (true, Duration::ZERO));
        assert_eq!(limit.waiting.load(Ordering::Relaxed), 0);
    }
}
