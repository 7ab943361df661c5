//! Pools of in-memory links to webhooks, with links of each shard.

use std::sync::Arc;

use tracing::info;

use super::webhook_set::Webhooks;
use crate::auth::Signer;
use crate::limits::{SignerShare, TableFull};
use crate::shard::Shared;
use crate::upstream::{AppServer, AppTarget, Hub, HubOrigin, Pool};

/// Instance id of a webhook as an app server. Dial-in refuses ids that start with `?`.
const INSTANCE: &str = "?webhook";

impl Webhooks {
    /// Opens the webhooks of named hubs at startup.
    pub(crate) fn open(&self, shared: &Shared) {
        for hub in self.named_hubs() {
            // Configured by the operator, so not counted for any app.
            let share = SignerShare::new(Signer::Fleet, false);
            drop(self.open_hub(shared, (hub, &format!("/{hub}")), HubOrigin::Webhook, &share));
        }
    }

    /// Finds a hub served by a webhook, with its links.
    ///
    /// Path, origin and share apply to a new hub. Fails if there are too many hubs.
    pub(crate) fn open_hub(
        &self,
        shared: &Shared,
        (name, path): (&str, &str),
        origin: HubOrigin,
        share: &SignerShare,
    ) -> Result<Arc<Hub>, TableFull> {
        let hub = shared.hubs.register_as(origin, self.manifest(shared, name, path), share)?;
        // After the limit check, so that a refused hub leaves no state.
        let Some((webhook, dialler)) = self.of(name) else { return Ok(hub) };
        let (id, mut is_new) = (shared.hubs.number(INSTANCE), false);
        let pool = hub.pool_or_add(id, || {
            is_new = true;
            let (name, group) = (webhook.template().to_string(), shared.hubs.groups().default_one());
            let app = AppServer { id, instance: INSTANCE.into(), name, target: AppTarget::Memory(dialler), group };
            Pool::new(hub.identity().clone(), Arc::new(app), shared.shards().len(), Arc::default())
        });
        if is_new {
            info!(hub = name, to = %webhook.template(), "a webhook serves this hub");
            shared.keep_links(&pool, 0);
        }
        Ok(hub)
    }
}
