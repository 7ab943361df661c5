//! Fence: an acknowledgement of every proxy over each of its links, behind all that was sent before in both directions.

use std::time::Duration;

use bytestring::ByteString;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use trunkline_link::LinkOutbox;
use trunkline_protocol::service::{Check, ServiceMessage};

use super::{ExpectedAck, HubCore};

/// Time that a link without a socket has to come back; a proxy that was killed is not waited for any longer.
const RETURN_WINDOW: Duration = Duration::from_secs(1);

/// Interval of the checks whether a link has ended.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

impl HubCore {
    /// Waits until all shards of all proxies have applied what was queued for them before, and until what a proxy had
    /// queued when it acknowledged has arrived, over every link.
    ///
    /// It asks for a group that nobody is in: proxies of any version acknowledge that behind the frames before it.
    pub(crate) async fn fence(&self) {
        let mut waits = Vec::new();
        for node in self.outbound.nodes().iter().filter(|node| !node.is_of_service()) {
            for link in node.links() {
                let ack = self.expect_ack(node);
                let check = Check { subject: ByteString::new(), ack_id: ack.id() };
                if link.control(&ServiceMessage::CheckGroupExistenceWithAck(check).to_frame()).is_ok() {
                    waits.push(async move { wait_for(ack, &link).await });
                }
            }
        }
        join_all(waits).await;
    }
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
