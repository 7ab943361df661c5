//! Fence: an acknowledgement of every proxy over each of its links, behind all that was sent before in both directions.

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

/// Time that a link without a socket has to come back; a proxy that was killed is not waited for any longer.
const RETURN_WINDOW: Duration = Duration::from_secs(1);

/// Interval of the checks whether a link has ended.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Tells all proxies that this app server is about to stop, and waits until they have asked for their connections and
/// open no more here.
pub(crate) async fn announce_shutdown(outbound: &Outbound, acks: &Acks) {
    let mut told = Vec::new();
    // A proxy may have come in the last moment.
    while announce_to_new(outbound, &mut told) {
        // Behind the first one no shard opens a connection any more, behind the second one those opened before are
        // here.
        fence(outbound, acks).await;
        fence(outbound, acks).await;
    }
}

/// Tells the proxies that were not `told` yet that this app server is about to stop: they open no connection here any
/// more, and ask for those that they have. Returns whether there were any.
fn announce_to_new(outbound: &Outbound, told: &mut Vec<Arc<Node>>) -> bool {
    let message = ServiceMessage::ConnectionFlowControl(ConnectionFlowControl {
        connection_id: ByteString::new(),
        subject: FlowSubject::Server,
        operation: FlowOperation::Offline,
    });
    let nodes = outbound.nodes();
    let is_told = |told: &[Arc<Node>], node| told.iter().any(|other| Arc::ptr_eq(other, node));
    let told_before = told.len();
    // A service is told by a ping on each of its connections.
    for node in nodes.iter().filter(|node| !node.is_of_service()) {
        if !is_told(told, node) {
            // Over each link: one without a socket would keep it to itself.
            for link in node.links() {
                // Of one that is over there is nothing to tell.
                let _ = link.control(&message.to_frame());
            }
            told.push(Arc::clone(node));
        }
    }
    told.len() > told_before
}

/// Waits until all shards of all proxies have applied what was queued for them before, and until what a proxy had
/// queued when it acknowledged has arrived, over every link.
///
/// It asks for a group that nobody is in: proxies of any version acknowledge that behind the frames before it.
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

/// Waits for the acknowledgement over a link, or for the end of that link.
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
