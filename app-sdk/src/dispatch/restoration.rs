//! Restoration: after a client has lost its connection, it opens a new one and gets its groups and items back.
//!
//! ```text
//!  node query: is state kept? ──► yes ──► open, with the lost ID ─┬─ if the lost one is still open, it is ended
//!                                                                 ▼
//!                             on_disconnected of the lost one ─► items, groups ─► on_connected ─► on_restored
//! ```

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytestring::ByteString;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until, timeout};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::Close;
use trunkline_protocol::service::{RestoreAnswer, RestoreQuery, ServiceMessage};
use trunkline_protocol::wire::RESTORES_HEADER;

use super::connection_ends::ConnectionEnds;
use crate::clients::Groups;
use crate::connection::{Connection, ConnectionClose, RestoredFrom, short};
use crate::hub_core::{HubCore, LostClient};
use crate::node::Node;

/// Maximum wait of a new connection for the `on_disconnected` of the lost one. After that, it starts without restored
/// state.
const DISCONNECT_HOOK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Restorations {
    core: Arc<HubCore>,
    ends: Arc<ConnectionEnds>,
}

impl Restorations {
    pub(super) fn new(core: Arc<HubCore>, ends: Arc<ConnectionEnds>) -> Self {
        Self { core, ends }
    }

    /// Answers a node whether this app server had the lost connection of a client.
    pub(super) fn answer_query(&self, node: &Node, query: RestoreQuery) {
        let RestoreQuery { connection_id, user_id, query_id } = query;
        let user_id = user_id.as_deref();
        let open = self.core.connections.get(&connection_id).filter(|lost| lost.request().user_id() == user_id);
        let is_open = open.is_some_and(|lost| lost.inbox().is_connected());
        let is_kept = self.core.lost.are_kept() && (is_open || self.core.lost.contains(&connection_id, user_id));
        self.core.outbound.control(node, &ServiceMessage::RestoreAnswer(RestoreAnswer { query_id, is_kept }));
    }

    /// Restores groups and items of the lost connection, identified by the client's token.
    pub(super) async fn restore(&self, connection: &Arc<Connection>) {
        if !connection.request().is_restoring || !self.core.lost.are_kept() {
            return;
        }
        let Some(lost_id) = connection.request().header(RESTORES_HEADER) else { return };
        let user_id = connection.request().user_id();
        if let Some(lost) = self.core.connections.get(&lost_id).filter(|lost| lost.request().user_id() == user_id) {
            // Its node has crashed or is cut off, which is not detected yet. The token proves that this is its client.
            self.ends.close(&lost, Close::default(), ConnectionClose::new(Cause::Restored));
        }
        let cancellation = connection.cancellation();
        let taken = timeout(DISCONNECT_HOOK_TIMEOUT, self.core.lost.take(&lost_id, user_id));
        if let Some(Ok(Some(lost))) = cancellation.run_until_cancelled(taken).await {
            cancellation.run_until_cancelled(self.restore_state(connection, lost_id, *lost)).await;
        }
    }

    async fn restore_state(&self, connection: &Connection, lost_id: ByteString, lost: LostClient) {
        let gone_for = lost.lost_at.elapsed();
        let (new, old) = (short(connection.id()), short(&lost_id));
        tracing::debug!(hub = self.core.name(), connection = new, lost = old, ?gone_for, "lost client reconnected");
        let restored = RestoredFrom { connection_id: lost_id, cause: lost.cause, gone_for };
        {
            let mut items = connection.items();
            *items = lost.items;
            items.insert(restored);
        }
        // Before any wait, because this connection may be lost too.
        lost.groups.iter().for_each(|group| connection.note_joined(group.clone()));
        let groups = Groups::new(&self.core);
        for joined in join_all(lost.groups.iter().map(|group| groups.add(connection.id(), group))).await {
            if let Err(error) = joined {
                tracing::debug!(hub = self.core.name(), connection = new, %error, "group not restored");
            }
        }
        self.core.metrics().restored.inc();
    }

    /// Stores the state of a connection after its `on_disconnected`, if its client may return.
    pub(super) fn keep_lost(&self, connection: &Connection, was_connected: bool) {
        if self.core.lost.end(connection, was_connected, self.core.metrics()) {
            tokio::spawn(drop_old_lost(Arc::downgrade(&self.core)));
        }
    }
}

async fn drop_old_lost(core: Weak<HubCore>) {
    while let Some(until) = core.upgrade().and_then(|core| core.lost.drop_old(Instant::now())) {
        sleep_until(until).await;
    }
}
