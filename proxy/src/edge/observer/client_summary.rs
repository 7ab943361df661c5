//! Summary of one client connection, for lists.

use super::snapshot::ClientSummary;
use crate::engine::shard::Shared;
use crate::engine::upstream::{AppServerId, HubIndex};
use crate::features::inspection::ClientRow;

pub(super) fn summary(shared: &Shared, row: &ClientRow) -> ClientSummary {
    let hub = shared.hubs.at(row.hub);
    ClientSummary {
        id: row.id.clone(),
        node: shared.settings.node.clone(),
        hub: hub.map(|hub| hub.name().to_owned()).unwrap_or_default(),
        app: shared.hubs.instance(row.app).to_string(),
        app_name: app_name(shared, row.hub, row.app).unwrap_or_default(),
        user: row.user.clone(),
        address: row.address.clone(),
        transport: row.transport.into(),
        protocol: row.protocol.into(),
        compressed: row.is_compressed,
        state: row.state.into(),
        age_s: row.age_s,
    }
}

pub(super) fn app_name(shared: &Shared, hub: HubIndex, app: AppServerId) -> Option<String> {
    Some(shared.hubs.at(hub)?.pool_of(app)?.app().name.clone())
}
