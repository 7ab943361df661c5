//! Pools of links to webhooks: a link of each shard, in memory.

use std::sync::Arc;

use tracing::info;
use trunkline_protocol::manifest::HubManifest;

use crate::auth::Signer;
use crate::limits::{SignerShare, TableFull};
use crate::shard::inbox::ShardMessage;
use crate::shard::shared::Shared;
use crate::upstream::{AppServer, AppTarget, Hub, HubOrigin, Pool};

/// Instance of the app server that a webhook is for the node. Dial-in refuses ids that begin with `?`.
const INSTANCE: &str = "?webhook";

/// Largest message of a client, unless `--message-max-bytes` is less: a webhook says nothing about it.
const MESSAGE_MAX_BYTES: usize = 1024 * 1024;

impl Shared {
    /// Opens the webhooks of hubs that are named, at the start.
    pub(crate) fn open_webhooks(&self) {
        for hub in self.webhooks.named_hubs() {
            // Those are the operator's own, and no share of anybody.
            let share = SignerShare::new(Signer::Fleet, false);
            drop(self.serve_by_webhook((hub, &format!("/{hub}")), HubOrigin::Webhook, &share));
        }
    }

    /// Finds a hub that a webhook serves, with links to it.
    ///
    /// Path, origin and share are those of a hub which is not known yet.
    ///
    /// # Errors
    /// When there are too many hubs.
    pub(crate) fn serve_by_webhook(
        &self,
        (name, path): (&str, &str),
        origin: HubOrigin,
        share: &SignerShare,
    ) -> Result<Arc<Hub>, TableFull> {
        let mut settings = HubManifest::new(name, path);
        settings.message_max_bytes = MESSAGE_MAX_BYTES.min(self.settings.message_max_bytes);
        let hub = self.hubs.learn_as(origin, settings, share)?;
        // Only now: a hub that is one too many leaves nothing behind.
        let Some((webhook, dialler)) = self.webhooks.of(name) else { return Ok(hub) };
        let (id, mut is_new) = (self.hubs.number(INSTANCE), false);
        let pool = hub.pool_or_add(id, || {
            is_new = true;
            let (name, group) = (webhook.template().to_string(), self.hubs.groups().default_one());
            let app = AppServer { id, instance: INSTANCE.into(), name, target: AppTarget::Memory(dialler), group };
            Pool::new(hub.identity().clone(), Arc::new(app), self.shards().len(), Arc::default())
        });
        if is_new {
            info!(hub = name, to = %webhook.template(), "a webhook serves this hub");
            self.keep_links(&pool, 0);
        }
        Ok(hub)
    }

    /// Assigns the links of a pool to the shards round robin, from one of them on.
    pub(crate) fn keep_links(&self, pool: &Arc<Pool>, start: usize) {
        let shards = self.shards().iter().cycle().skip(start % self.shards().len().max(1));
        for (slot, shard) in (0..pool.size()).zip(shards) {
            shard.put(ShardMessage::KeepLink(pool.clone(), slot));
        }
    }
}
