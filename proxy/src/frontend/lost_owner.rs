//! Lost owners of forwarded GETs, as after a machine failure: their sockets stay open, and a poll or event stream would
//! wait for its timeout.
//!
//! ```text
//!  owner alive ──its node links are late or closed──► its client port is dialled ──connecting times out──► its GETs end
//! ```
//!
//! A frozen process is not lost: its kernel accepts connections.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{sleep, timeout};
use tracing::info;

use crate::net::address::Address;
use crate::shard::{Reachability, Shared};

const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Timeout for connecting to an owner, enough for one lost packet.
const REACH_TIMEOUT: Duration = Duration::from_millis(1_300);

/// Maximum number of owners dialled concurrently.
const DIALLED_AT_ONCE: usize = 32;

pub(crate) async fn end_gets_of_lost_owners(shared: Arc<Shared>) {
    loop {
        sleep(CHECK_INTERVAL).await;
        let gets = &shared.carried_gets;
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
        let ended = shared.carried_gets.end_of_lost(&boot);
        info!(%owner, boot = &*boot, ended, "node lost: ending relayed polls and event streams");
    }
}
