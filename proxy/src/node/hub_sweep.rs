//! Removal of hubs and app servers that are no longer named: a release has renamed or dropped hubs, or app servers have
//! restarted and dial in under other ids.
//!
//! Level-triggered, once a second. A hub is removed when no linked app server has named it for `--hold-timeout` and it
//! has no clients; a restart or a lost link ends before that. A hub that clients name, because a webhook serves any
//! name, is removed when it had no clients for that time. Its index is reused when no shard uses it: each shard is
//! asked after all earlier commands. An app server is removed when it had neither links nor clients for that time. Idle
//! times are noted earlier: a full table evicts idle entries.

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
    // The link of a living app server may be resumed within the window.
    let limit = hold.max(Duration::from_millis(shared.settings.links.resume_window_ms));
    loop {
        sleep(INTERVAL).await;
        sweep(&shared, limit).await;
    }
}

/// Queries each shard once, and removes the unused hubs and app servers.
async fn sweep(shared: &Shared, limit: Duration) {
    let unnamed = shared.hubs.unnamed_for(limit, |hub| shared.webhooks.has_clients(hub));
    let unheld = shared.hubs.unheld();
    let Some(used) = UsedEntries::of(shared, &unheld).await else { return };
    for hub in unnamed {
        if !used.hubs.contains(&hub.index()) && shared.hubs.remove(&hub, limit) {
            let seconds = limit.as_secs();
            info!(hub = hub.name(), seconds, "hub removed: unnamed for the hold time-out");
        }
    }
    shared.hubs.note_use(|hub| used.hubs.contains(&hub.index()) || shared.webhooks.has_clients(hub.name()));
    for index in unheld {
        let is_told = shared.fleet.interest.as_ref().is_some_and(|interest| !interest.map(index).is_empty());
        if !is_told && !used.hubs.contains(&index) && !used.ends.contains(&index) {
            shared.hubs.release(index);
        }
    }
    let count = shared.hubs.remove_unused_app_servers(&used.apps, limit);
    if count > 0 {
        debug!(count, seconds = limit.as_secs(), "unused app servers removed");
    }
}

/// Hubs and app servers that are in use at any shard.
#[derive(Debug, Default)]
struct UsedEntries {
    /// Hubs that have clients.
    hubs: HashSet<HubIndex>,
    /// App servers that clients are assigned to.
    apps: HashSet<AppServerId>,
    /// Hubs with client ends that an app server must still be notified of.
    ends: HashSet<HubIndex>,
}

impl UsedEntries {
    /// Queries each shard once, after all earlier commands; `None` if a shard does not answer, which may use any entry.
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
