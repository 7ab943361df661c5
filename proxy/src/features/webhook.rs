//! Webhooks: hubs without app servers. Their events are POSTed to URLs in the format of Azure SignalR's upstream.
//!
//! ```text
//!  shards ══ in-memory link ══ LoopbackServer ─► one request at a time per client ─► EventSender ─► back end
//!         ◄═══ completions, closes, pauses ═══ LoopbackServer ◄─────── response ──────────┘
//! ```
//!
//! Some events are sent by another node than the client's: each node has a [table](subject_table) of the users and the
//! connections of all nodes.
//!
//! To the node, a webhook is an app server at the other end of in-memory links, so assignments, closes and client
//! results work as usual. [`LoopbackServer`](loopback_server::LoopbackServer) does no I/O.

mod answer;
mod client_fact;
mod connect_answer;
mod connect_question;
mod event_sender;
mod loopback_server;
mod subject;
mod subject_log;
mod subject_table;
mod webhook_client;
mod webhook_dialler;
mod webhook_event;
mod webhook_hub;
mod webhook_presence;
mod webhook_set;

use std::sync::Arc;

use tracing::info;

use crate::engine::shard::Shared;
use crate::engine::upstream::{AppServer, AppTarget, Hub, HubOrigin, Pool};
use crate::ground::auth::Signer;
use crate::ground::limits::{SignerShare, TableFull};

pub(crate) use subject::{HubConnection, HubUser, Subject};
pub(crate) use subject_log::LoggedChange;
pub(crate) use subject_table::{BatchAnswer, SubjectBatch, SubjectChange, SubjectReport};
pub(crate) use webhook_presence::WebhookPresence;
pub(crate) use webhook_set::{Reported, Webhooks};

/// Instance id of a webhook as an app server. Dial-in refuses ids that start with `?`.
const INSTANCE: &str = "?webhook";

impl Webhooks {
    /// Opens the webhooks of named hubs at startup.
    pub(crate) fn open_hubs(&self, shared: &Shared) {
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
        let Some((webhook, dialler)) = self.hub_of(name) else { return Ok(hub) };
        let (id, mut is_new) = (shared.hubs.number(INSTANCE), false);
        let pool = hub.pool_or_add(id, || {
            is_new = true;
            let (name, group) = (webhook.template.to_string(), shared.hubs.groups.default_one());
            let app = AppServer { id, instance: INSTANCE.into(), name, target: AppTarget::Memory(dialler), group };
            Pool::new(hub.identity.clone(), Arc::new(app), shared.shards().len(), Arc::default())
        });
        if is_new {
            info!(hub = name, to = %webhook.template, "a webhook serves this hub");
            shared.keep_links(&pool, 0);
        }
        Ok(hub)
    }
}
