//! Summary of one client connection for lists.

use std::sync::Arc;

use super::snapshot::ClientSummary;
use crate::shard::{ClientRow, Shared};
use crate::upstream::{AppServerId, Hub, Pool};

/// Builds the summary from what its shard tells.
pub(super) fn summary(shared: &Shared, row: &ClientRow) -> ClientSummary {
    let hubs = shared.hubs.all();
    let hub = hubs.get(row.hub.get());
    ClientSummary {
        id: row.id.clone(),
        node: shared.settings.node.clone(),
        hub: hub.map(|hub| hub.name().to_owned()).unwrap_or_default(),
        app: shared.hubs.instance(row.app).to_string(),
        app_name: hub.and_then(|hub| pool_of(hub, row.app)).map(|pool| pool.app().name.clone()).unwrap_or_default(),
        user: row.user.clone(),
        address: row.address.clone(),
        transport: row.transport.into(),
        protocol: row.protocol.into(),
        state: row.state.into(),
        age_s: row.age_s,
    }
}

fn pool_of(hub: &Hub, app: AppServerId) -> Option<Arc<Pool>> {
    hub.pools().iter().find(|pool| pool.app().id == app).cloned()
}
