//! Fence: an acknowledgement from every proxy over each of its links, behind everything sent before in both
//! directions.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use trunkline_link::LinkOutbox;
use trunkline_protocol::service::{Check, ConnectionFlowControl, FlowOperation, FlowSubject, ServiceMessage};

use super::acks::{Acks, ExpectedAck};
use crate::node::Node;
use crate::outbound::Outbound;

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
            let check = Check { subject: ByteString::new(), ack_id: ack.id() };
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
