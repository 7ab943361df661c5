//! Removal of hubs and app servers that are no longer named, after a release that renames or drops hubs, or a restart
//! of app servers that dial in.
//!
//! Level-triggered, once a second. After `--hold-timeout`, which outlasts restarts and lost links, three kinds of
//! entries are removed: a hub without clients that no linked app server names, a hub of a pattern webhook without
//! clients, and an app server without links and clients. A hub's index is reused once no shard uses it: each shard is
//! queried after all earlier commands. Idle times are recorded earlier, because a full table evicts idle entries.
//! Expired entries of the limits by client address are dropped as well.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, info};

use crate::engine::shard::Shared;
use crate::engine::upstream::{AppServerId, HubIndex};
use crate::features::webhook::Webhooks;

const INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn run(shared: Arc<Shared>, webhooks: Arc<Webhooks>) {
    let hold = Duration::from_secs(shared.settings.rehoming.hold_timeout_s.into());
    // The link of a live app server may be resumed within the window.
    let limit = hold.max(Duration::from_millis(shared.settings.links.resume_window_ms));
    loop {
        sleep(INTERVAL).await;
        shared.limits.sweep(shared.uptime());
        sweep(&shared, &webhooks, limit).await;
    }
}

/// Queries each shard once, and removes unused hubs and app servers.
async fn sweep(shared: &Shared, webhooks: &Webhooks, limit: Duration) {
    let unnamed = shared.hubs.unnamed_for(limit, |hub| webhooks.has_clients(hub));
    let unheld = shared.hubs.unheld();
    let Some(used) = UsedEntries::of(shared, &unheld).await else { return };
    for hub in unnamed {
        if !used.hubs.contains(&hub.index()) && shared.hubs.remove(&hub, limit) {
            let seconds = limit.as_secs();
            info!(hub = hub.name(), seconds, "hub removed: not announced by app servers for --hold-timeout");
        }
    }
    shared.hubs.note_use(|hub| used.hubs.contains(&hub.index()) || webhooks.has_clients(hub.name()));
    for index in unheld {
        let is_announced = shared.interest.as_ref().is_some_and(|interest| interest.has_sets(index));
        if !is_announced && !used.hubs.contains(&index) && !used.ends.contains(&index) {
            shared.hubs.release(index);
        }
    }
    let count = shared.hubs.remove_unused_app_servers(&used.apps, limit);
    if count > 0 {
        debug!(count, seconds = limit.as_secs(), "unused app servers removed");
    }
}

#[derive(Debug, Default)]
struct UsedEntries {
    hubs: HashSet<HubIndex>,
    /// App servers that clients are assigned to.
    apps: HashSet<AppServerId>,
    /// Hubs with client ends not yet reported to an app server.
    ends: HashSet<HubIndex>,
}

impl UsedEntries {
    /// Queries each shard once, after all earlier commands. `None` if a shard, which may use any entry, does not
    /// answer.
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
