//! Sweep of hubs and app servers that nobody names any more: a release has renamed or dropped hubs, or app servers have
//! started again and dial in under other ids.
//!
//! Level-triggered: once a second it looks at what is linked. A hub is forgotten when no app server that is linked has
//! named it for `--hold-timeout` and none of its clients is left; a restart or a lost link ends before that. A hub that
//! clients have named, because a webhook serves any name, is forgotten when it has had none for that time. Its index is
//! used again when nothing in any shard goes by it: each is asked behind all that it was told before. An app server is
//! forgotten when it has had neither a pool of links nor a client for that time. What is idle sooner is noted: a full
//! table evicts it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, info};

use crate::shard::Shared;
use crate::upstream::{AppServerId, HubIndex};

/// Interval of the sweep.
const INTERVAL: Duration = Duration::from_secs(1);

/// Sweeps as long as the node runs.
pub(crate) async fn run(shared: Arc<Shared>) {
    let hold = Duration::from_secs(shared.settings.rehoming.hold_timeout_s.into());
    // A link that may be resumed is no end of an app server.
    let limit = hold.max(Duration::from_millis(shared.settings.links.resume_window_ms));
    loop {
        sleep(INTERVAL).await;
        sweep(&shared, limit).await;
    }
}

/// Asks each shard once for all that may be unused, and forgets or evicts what is.
async fn sweep(shared: &Shared, limit: Duration) {
    let unnamed = shared.hubs.unnamed_for(limit, |hub| shared.webhooks.has_clients(hub));
    let unheld = shared.hubs.unheld();
    let Some(used) = UsedEntries::of(shared, &unheld).await else { return };
    for hub in unnamed {
        if !used.hubs.contains(&hub.index()) && shared.hubs.forget(&hub, limit) {
            let seconds = limit.as_secs();
            info!(hub = hub.name(), seconds, "a hub is forgotten: nobody has named it for this long");
        }
    }
    shared.hubs.note_use(|hub| used.hubs.contains(&hub.index()) || shared.webhooks.has_clients(hub.name()));
    for index in unheld {
        let is_told = shared.fleet.interest.as_ref().is_some_and(|interest| !interest.map(index).is_empty());
        if !is_told && !used.hubs.contains(&index) && !used.ends.contains(&index) {
            shared.hubs.release(index);
        }
    }
    let count = shared.hubs.forget_app_servers(&used.apps, limit);
    if count > 0 {
        debug!(count, seconds = limit.as_secs(), "app servers are forgotten: none of them was linked for this long");
    }
}

/// Hubs and app servers that are in use at any shard.
#[derive(Debug, Default)]
struct UsedEntries {
    /// Hubs that have clients.
    hubs: HashSet<HubIndex>,
    /// App servers at which clients are at home.
    apps: HashSet<AppServerId>,
    /// Hubs with ends of clients that an app server is still to be notified of.
    ends: HashSet<HubIndex>,
}

impl UsedEntries {
    /// Asks each shard once, behind all that it was given before; `None` if one does not answer, which may use any.
    async fn of(shared: &Shared, hubs: &[HubIndex]) -> Option<Self> {
        let mut used = Self::default();
        for shard in shared.shards() {
            let hubs = hubs.to_vec();
            let (homes, ends) = shard.inspect(move |state| state.used_entries(&hubs)).await?;
            used.hubs.extend(homes.iter().map(|(hub, _)| *hub));
            used.apps.extend(homes.iter().map(|(_, app)| *app));
            used.ends.extend(ends);
        }
        Some(used)
    }
}
