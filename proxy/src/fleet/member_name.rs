//! Names of members, for requests about their connections. Addresses are stored because some orchestrators remove a
//! node's name as soon as they stop it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};

use super::fleet_member::FleetMember;
use super::fleet_membership::Membership;
use crate::engine::shard::Shared;
use crate::ground::net::address::Address;

/// Retry interval for unresolved names. The name of a new node may appear only once it is healthy.
const LEARN_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum number of concurrent DNS lookups.
const RESOLVED_AT_ONCE: usize = 16;

/// Records the machine of a member's link as a possible address of its name.
pub(super) fn note_address(shared: &Shared, member: &FleetMember) {
    let (Some(name), Some(link)) = (name_of(member), member.address()) else { return };
    let ip = link.resolved().map(|at| at.ip()).or_else(|| link.host().parse::<IpAddr>().ok());
    if let (Some(ip), Some(port)) = (ip, name.port()) {
        shared.ways.node_names.note_reported(&name, SocketAddr::new(ip, port));
    }
}

/// Resolves the names of members, once each.
pub(super) async fn keep_names(members: &Membership) {
    let mut learning = interval(LEARN_INTERVAL);
    learning.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        learning.tick().await;
        let names: Vec<_> = members.all().iter().filter_map(|member| name_of(member)).collect();
        let node_names = &members.shared().ways.node_names;
        stream::iter(&names).for_each_concurrent(RESOLVED_AT_ONCE, |name| node_names.resolve_once(name)).await;
    }
}

/// Name of a member for requests, as in its connection tokens.
fn name_of(member: &FleetMember) -> Option<Address> {
    Some(member.client_port()?.of_start(member.boot()))
}
