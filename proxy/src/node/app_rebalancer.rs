//! Rebalancer of app servers: a new one receives its share of this node's clients, some each second.
//!
//! ```text
//!  pools, each second ─► new one? ─── no ─► nothing
//!                           └─ yes ─► clients by app server, of all shards ─► plan ─► orders to shards
//! ```
//!
//! Each node balances only its own clients: balance at each node implies balance in the fleet, and concurrent nodes
//! can't move too many. Shards are queried only while there is a new app server.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::info;
use trunkline_protocol::id::random_bytes;

use crate::engine::shard::{RebalanceCount, RebalanceOrder, Shared};
use crate::engine::upstream::{AppServerId, Hub, HubIndex, NewServer, NewServerRound, Pool};
use crate::node::share_plan::{ShareLoad, ShareMove, SharePlan};

/// Interval of observations and rounds.
const ROUND: Duration = Duration::from_secs(1);

type ShardCounts = HashMap<(HubIndex, AppServerId), RebalanceCount>;

/// Runs for the lifetime of the node, unless rebalancing is disabled.
pub(crate) async fn run(shared: Arc<Shared>) {
    let per_second = u64::from(shared.settings.rehoming.app_rebalance_per_s);
    if per_second == 0 {
        return;
    }
    let mut rebalancer = AppRebalancer::default();
    let mut rounds = interval(ROUND);
    // A late tick counts once, because a frozen process has observed nothing.
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        // The clients of a draining node are already leaving.
        if !shared.has_begun_drain() {
            rebalancer.round(&shared, per_second).await;
        }
    }
}

#[derive(Debug, Default)]
struct AppRebalancer {
    new_servers: HashMap<(HubIndex, AppServerId), (Arc<Pool>, NewServer)>,
}

impl AppRebalancer {
    async fn round(&mut self, shared: &Shared, per_second: u64) {
        self.check(shared);
        let short = self.new_servers.values().filter(|(_, new_server)| new_server.is_short());
        let groups: HashSet<_> = short.map(|(pool, _)| (pool.hub.index, pool.app.group.name.clone())).collect();
        if groups.is_empty() {
            return;
        }
        let counts = gather(shared).await;
        let mut left = per_second;
        for (hub, group) in groups {
            let Some(hub) = shared.hubs.at(hub) else { continue };
            let moves = self.plan(&hub, &group, &counts, left);
            left = left.saturating_sub(moves.iter().map(|one| one.clients).sum());
            moves.iter().for_each(|one| order(shared, &hub, one, &counts));
        }
    }

    /// Observes all pools, once per second.
    fn check(&mut self, shared: &Shared) {
        let mut before = std::mem::take(&mut self.new_servers);
        for hub in shared.hubs.all().iter().filter(|hub| !hub.has_webhook()) {
            for pool in hub.pools().iter().filter(|pool| !pool.app.group.is_mirror()) {
                let place = (hub.index(), pool.app.id);
                let known = before.remove(&place).filter(|(known, _)| Arc::ptr_eq(known, pool));
                let mut new_server = known.map(|(_, new_server)| new_server).unwrap_or_default();
                new_server.update(pool.link_counts());
                self.new_servers.insert(place, (pool.clone(), new_server));
            }
        }
    }

    /// Plans the moves of one group at a hub. `most` limits them together with moves in progress.
    fn plan(&mut self, hub: &Hub, group: &str, counts: &[ShardCounts], most: u64) -> Vec<ShareMove> {
        let mut loads = Vec::new();
        let mut on_their_way = 0;
        for pool in hub.pools().iter().filter(|pool| *pool.app.group.name == *group && pool.is_up()) {
            let place = (hub.index(), pool.app.id);
            let total = total(counts, place);
            on_their_way += total.coming;
            let is_new = self.new_servers.get(&place).is_some_and(|(_, new_server)| new_server.is_short());
            let clients = (total.present + total.coming).saturating_sub(total.going);
            // An app server that is no longer listed only gives clients.
            let weight = if pool.app.is_listed() { u64::from(pool.app.weight()) } else { 0 };
            loads.push(ShareLoad { app: pool.app.id, weight, clients, is_new });
        }
        let mut plan = SharePlan::new(&loads);
        let mut is_any_over = false;
        for load in loads.iter_mut().filter(|load| load.is_new) {
            let place = (hub.index(), load.app);
            let Some((pool, new_server)) = self.new_servers.get_mut(&place) else { continue };
            let (missing, coming) = (plan.missing(load.app), total(counts, place).coming);
            match new_server.begin_round(missing, coming, plan.is_tolerable(load.app)) {
                NewServerRound::Begun => {
                    let app = &pool.app.name;
                    info!(%app, hub = hub.name(), clients = missing, "app server joined: rebalancing clients");
                }
                NewServerRound::GoesOn => {}
                NewServerRound::Over => (load.is_new, is_any_over) = (false, true),
            }
        }
        if is_any_over {
            plan = SharePlan::new(&loads);
        }
        plan.moves(most.saturating_sub(on_their_way))
    }
}

/// Clients by hub and app server, for each shard.
async fn gather(shared: &Shared) -> Vec<ShardCounts> {
    let mut counts = Vec::new();
    for shard in shared.shards() {
        counts.push(
            shard
                .inspect(|state| state.server_rebalance.rebalance_counts(state.core.connections.census()))
                .await
                .unwrap_or_default(),
        );
    }
    counts
}

fn total(counts: &[ShardCounts], place: (HubIndex, AppServerId)) -> RebalanceCount {
    let mut total = RebalanceCount::default();
    for count in counts.iter().filter_map(|shard| shard.get(&place)) {
        total.present += count.present;
        total.going += count.going;
        total.coming += count.coming;
    }
    total
}

/// Orders each shard to move clients in proportion to its number.
fn order(shared: &Shared, hub: &Hub, one: &ShareMove, counts: &[ShardCounts]) {
    let &ShareMove { from, to, clients } = one;
    let hub = hub.index();
    let there = |shard: &ShardCounts| shard.get(&(hub, from)).map_or(0, |it| it.present.saturating_sub(it.going));
    let there: Vec<u64> = counts.iter().map(there).collect();
    let start = usize::from(u16::from_ne_bytes(random_bytes()));
    for (shard, clients) in shared.shards().iter().zip(parts(clients, &there, start)) {
        let clients = usize::try_from(clients).unwrap_or(usize::MAX);
        if clients > 0 {
            shard.post(move |state| state.rebalance(RebalanceOrder { hub, from, to, clients }));
        }
    }
}

/// Splits a number in proportion to the numbers in `of`, with no part above its number. The remainder starts at a
/// random position: if all clients of a shard are in the middle of calls, the next round uses another shard.
fn parts(number: u64, of: &[u64], start: usize) -> Vec<u64> {
    let sum: u64 = of.iter().sum();
    let part = |one: &u64| {
        let part = u128::from(*one) * u128::from(number.min(sum)) / u128::from(sum.max(1));
        u64::try_from(part).unwrap_or(*one)
    };
    let mut parts: Vec<u64> = of.iter().map(part).collect();
    let mut rest = number.min(sum).saturating_sub(parts.iter().sum());
    for step in 0..of.len() {
        let place = start.wrapping_add(step) % of.len();
        if let (Some(part), Some(most)) = (parts.get_mut(place), of.get(place))
            && rest > 0
            && *part < *most
        {
            *part += 1;
            rest -= 1;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_give_in_proportion_and_the_rest_goes_around() {
        assert_eq!(parts(10, &[30, 10], 0), [8, 2]);
        assert_eq!(parts(10, &[30, 10], 1), [7, 3]);
        assert_eq!(parts(1, &[1, 1, 1], 2), [0, 0, 1]);
        assert_eq!(parts(9, &[2, 1], 0), [2, 1]);
        assert_eq!(parts(3, &[0, 5], 0), [0, 3]);
        assert_eq!(parts(3, &[], 7), [0; 0]);
    }
}
