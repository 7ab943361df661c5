//! Owners of carried GETs that are lost without a word, as when their machine fails: nothing ends the sockets to them,
//! and a poll or an event stream would wait for its time-out.
//!
//! ```text
//!  owner alive ──its node links are late or closed──► its port for clients is dialled ──no system answers──► its GETs end
//! ```
//!
//! A process that is frozen is not lost: its system accepts connections.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{sleep, timeout};
use tracing::info;

use crate::net::address::Address;
use crate::shard::{Reachability, Shared};

/// Interval at which owners are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Time in which the system of an owner has to accept a connection: enough for one lost packet.
const REACH_TIMEOUT: Duration = Duration::from_millis(1_300);

/// Maximum number of owners that are dialled at a time.
const DIALLED_AT_ONCE: usize = 32;

/// Ends the GETs of lost owners as long as the node runs.
pub(crate) async fn end_gets_of_lost_owners(shared: Arc<Shared>) {
    loop {
        sleep(CHECK_INTERVAL).await;
        let gets = &shared.admission.carried_gets;
        if gets.count() > 0 {
            stream::iter(gets.owners()).for_each_concurrent(DIALLED_AT_ONCE, |owner| check(&shared, owner)).await;
        }
    }
}

async fn check(shared: &Shared, (owner, boot): (Address, Arc<str>)) {
    let is_lost = match shared.other_nodes().reachability(&boot) {
        Reachability::Alone | Reachability::Alive => false,
        Reachability::Refused => true,
        Reachability::Late | Reachability::Unknown => {
            let connector = shared.ways.connector.for_clients();
            !timeout(REACH_TIMEOUT, connector.reaches(&owner)).await.unwrap_or(false)
        }
    };
    if is_lost {
        let ended = shared.admission.carried_gets.end_of_lost(&boot);
        info!(%owner, boot = &*boot, ended, "a node is lost: polls and event streams that were carried to it end");
    }
}
