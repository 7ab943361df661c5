//! Inspection of this node: snapshot, client connections, groups, users, and records of ended connections.
//!
//! Shards are inspected in short steps, because inspection blocks them.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::client_tap::ClientTap;
use super::list_page::{ClientCursor, ClientFilter, ListPage, NameKind, NamePage, NameSum};
use super::node_snapshot::NodeSampler;
use super::node_watch::{PayloadView, WatchError};
use super::readiness::Readiness;
use super::rebalance_board::RebalanceBoard;
use super::snapshot::{ClientDetails, ClientSummary, NodeSnapshot, client_summary};
use super::snapshot_cache::{Freshness, SnapshotCache};
use crate::engine::shard::{Location, PastConnection, ShardSender, Shared, short};
use crate::engine::upstream::HubIndex;
use crate::features::inspection::{ClientSelection, Inspector, ListedNames};
use crate::ground::bounded::FirstNames;
use crate::ground::clock::unix_ms;
use crate::ground::metrics::ClientProtocol;

/// Maximum number of lists read concurrently; further requests wait.
const LISTS_MAX: usize = 8;

#[derive(Debug)]
pub(crate) struct NodeInspector {
    pub(crate) shared: Arc<Shared>,
    snapshots: SnapshotCache<NodeSnapshot>,
    lists: Semaphore,
}

impl NodeInspector {
    /// Starts the snapshot cache. Needs a runtime.
    pub(super) fn new(readiness: Readiness, rebalance: RebalanceBoard) -> Self {
        let shared = readiness.shared.clone();
        let snapshots =
            SnapshotCache::new(NodeSampler::new(readiness, rebalance), |sampler| Box::pin(sampler.sample()));
        Self { shared, snapshots, lists: Semaphore::new(LISTS_MAX) }
    }

    /// Returns a snapshot with its age; `None` during shutdown.
    pub(crate) async fn snapshot(&self, freshness: Freshness) -> Option<NodeSnapshot> {
        let snapshot = self.snapshots.get(freshness).await?;
        let age_ms = Some(unix_ms().saturating_sub(snapshot.at_ms));
        Some(NodeSnapshot { age_ms, ..NodeSnapshot::clone(&snapshot) })
    }

    /// Lists client connections of this node; `None` if the hub is unknown.
    pub(crate) async fn clients(&self, filter: &ClientFilter) -> Option<ListPage<ClientSummary>> {
        let _permit = self.lists.acquire().await.ok()?;
        let which = self.which(filter)?;
        let start = ClientCursor::start_of(&self.shared.settings.node, &self.shared.boot);
        let mut at = filter.after.clone().unwrap_or_default().max(start.clone());
        let mut page = ListPage { total: self.count(&which).await, ..ListPage::default() };
        if (&at.node, &at.instance) != (&start.node, &start.instance) {
            return Some(page);
        }
        let shards = self.shared.shards();
        while let Some(shard) = shards.get(usize::from(at.shard)) {
            let (wanted, from, most) = (which.clone(), at.slot, filter.limit - page.items.len());
            let (rows, next) = shard.inspect(move |state| Inspector::at_shard(state).list(&wanted, from, most)).await?;
            page.items.extend(rows.iter().map(|row| client_summary(&self.shared, row)));
            at = next.map_or_else(|| at.at(at.shard.saturating_add(1), 0), |slot| at.at(at.shard, slot));
            if page.items.len() >= filter.limit {
                let is_more = usize::from(at.shard) < shards.len();
                page.next = is_more.then(|| at.to_string());
                break;
            }
        }
        Some(page)
    }

    pub(crate) async fn names(
        &self,
        kind: NameKind,
        hub: &str,
        after: Option<String>,
        limit: usize,
    ) -> Option<NamePage> {
        let _permit = self.lists.acquire().await.ok()?;
        let hub = self.hub(hub)?;
        let names = match kind {
            NameKind::Users => ListedNames::Users,
            NameKind::Groups => ListedNames::Groups,
        };
        let mut sum = NameSum::default();
        for shard in self.shared.shards() {
            // One extra row shows whether there is another page.
            let first = FirstNames::new(after.clone(), limit + 1, usize::MAX);
            sum.add_names(shard.walk_names((&names, hub), first, FirstNames::take).await?.into_names().0);
        }
        Some(sum.into_page(limit))
    }

    /// Returns the details of a client connection; `None` if it is not here.
    pub(crate) async fn client(&self, id: &str) -> Option<ClientDetails> {
        let (shard, Location { slot, .. }) = self.find(id)?;
        let wanted = id.to_owned();
        let details = shard.inspect(move |state| Inspector::at_shard(state).details(slot, &wanted)).await??;
        Some(ClientDetails {
            client: client_summary(&self.shared, &details.row),
            user_agent: details.user_agent,
            groups: details.groups,
            group_count: details.group_count as u64,
            outbox_bytes: details.outbox_bytes as u64,
            pending_calls: details.pending_calls as u64,
            heard_s: details.heard_s,
            sent_s: details.sent_s,
            token_ends_s: details.token_ends_s,
        })
    }

    pub(crate) async fn close_client(&self, id: &str, reason: Option<String>) -> bool {
        let Some((shard, Location { slot, .. })) = self.find(id) else { return false };
        let id = id.to_owned();
        shard.inspect(move |state| state.close_by_operator(slot, &id, reason.as_deref())).await.unwrap_or_default()
    }

    /// Closes the connections of a user with revoked tokens; returns their number.
    pub(super) async fn close_revoked(&self, user: &str) -> u64 {
        let closing = self.shared.shards().iter().map(|shard| {
            let user = user.to_owned();
            shard.inspect(move |state| state.close_revoked(&user) as u64)
        });
        join_all(closing).await.into_iter().flatten().sum()
    }

    pub(super) async fn tap(&self, id: &str, payloads: PayloadView) -> Result<ClientTap, WatchError> {
        let (shard, Location { slot, .. }) = self.find(id).ok_or(WatchError::UnknownClient)?;
        ClientTap::open_tap(shard, (slot, id), payloads).await
    }

    pub(crate) fn past(&self, id: &str) -> Option<Value> {
        let node = self.shared.settings.node.as_str();
        if self.shared.routes.find(id).is_some() {
            return Some(open_record(id, node));
        }
        self.shared.past(id).map(|past| ended_record(&past, node))
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.find(id).is_some()
    }

    fn find(&self, id: &str) -> Option<(&ShardSender, Location)> {
        let place = self.shared.routes.find(id)?;
        Some((self.shared.shards().get(usize::from(place.shard))?, place))
    }

    fn which(&self, filter: &ClientFilter) -> Option<ClientSelection> {
        let hub = filter.hub.as_deref().map(|name| self.hub(name).ok_or(())).transpose().ok()?;
        let every = || self.shared.hubs.living().iter().map(|hub| hub.index()).collect();
        Some(match (hub, &filter.group, &filter.user) {
            (Some(hub), Some(group), _) => ClientSelection::Group(hub, group.clone()),
            (hub, _, Some(user)) => ClientSelection::User(hub.map_or_else(every, |hub| vec![hub]), user.clone()),
            (Some(hub), None, None) => ClientSelection::Hub(hub),
            (None, _, None) => ClientSelection::Everyone,
        })
    }

    fn hub(&self, name: &str) -> Option<HubIndex> {
        self.shared.hubs.living().iter().find(|hub| hub.name() == name).map(|hub| hub.index())
    }

    async fn count(&self, which: &ClientSelection) -> Option<u64> {
        let sizes = self.shared.shards().iter().map(|shard| {
            let which = which.clone();
            shard.inspect(move |state| Inspector::at_shard(state).set_size(&which) as u64)
        });
        match which {
            ClientSelection::Everyone => Some(self.snapshot(Freshness::Recent).await?.clients),
            _ => Some(join_all(sizes).await.into_iter().flatten().sum()),
        }
    }
}

pub(super) fn open_record(id: &str, node: &str) -> Value {
    json!({ "connectionId": short(id), "state": "open", "node": node })
}

pub(super) fn ended_record(past: &PastConnection<'_>, node: &str) -> Value {
    json!({
        "connectionId": past.id,
        "state": if past.opened_ms.is_some() { "closed" } else { "refused" },
        "cause": past.cause.label(),
        "text": past.cause.text(),
        "detail": past.detail,
        "node": node,
        "hub": past.hub,
        "transport": past.transport.map(|transport| transport.name()),
        "protocol": past.protocol.map(ClientProtocol::label),
        "user": past.user,
        "remoteAddress": past.remote,
        "userAgent": past.user_agent,
        "appServer": past.app_server.as_deref(),
        "openedMs": past.opened_ms,
        "closedMs": past.closed_ms,
    })
}
