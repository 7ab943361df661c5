//! App servers that dial in, at this and at other nodes: exchange of their presence, and requests for missing links.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytestring::ByteString;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, info};
use trunkline_protocol::fleet::{NodeMessage, PeerPresence, PresenceUpdate, PresentAppServer};
use trunkline_protocol::limits::{GREETING_MEMBERS_MAX, PRESENCE_SERVERS_MAX, PRESENCE_TEXT_MAX_BYTES};

use super::fleet_member::FleetMember;
use super::fleet_membership::Membership;
use super::link_reach::{LinkReach, LinkReaches};
use super::link_request_schedule::{LinkRequestSchedule, Urgency};
use super::node_link::NodeLink;
use crate::engine::shard::{ShardCommand, TargetVerdict};
use crate::engine::upstream::{Hub, LinkHandle};
use crate::features::dialled_in::link_request;
use crate::ground::net::address::Address;

/// Delay for coalescing changes. App servers open several links together.
const NEWS_DELAY: Duration = Duration::from_millis(5);

/// Interval between checks for missing links.
const WISH_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of endpoints stored per node.
const ENDPOINTS_MAX: usize = 64;

/// Time for the clients of a link to be reassigned before it ends.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
pub(super) struct AppPresence {
    /// App servers of this node, as last reported to the others.
    own: ArcSwap<PeerPresence>,
    reaches: LinkReaches,
    changed: Notify,
    /// Endpoints through which app servers have reached each node, by node name. They survive restarts of the node.
    endpoints: Mutex<HashMap<String, BTreeSet<ByteString>>>,
    schedule: Mutex<LinkRequestSchedule<LinkRequest>>,
}

/// Link from an app server that a node is missing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LinkRequest {
    hub: ByteString,
    instance: ByteString,
    /// Endpoint used for the request, through which the app server may reach the node.
    endpoint: ByteString,
    boot: String,
}

#[derive(Debug, Default)]
struct MissingLinks {
    requested: HashMap<LinkRequest, Urgency>,
    /// Requests that this node should send.
    ours: HashSet<LinkRequest>,
}

impl AppPresence {
    /// Reports app servers that dial in here to the other nodes, and requests links that other nodes are missing.
    pub(super) async fn keep(&self, fleet: &Membership) {
        if !fleet.shared.settings.accepts_dial_in {
            return;
        }
        let mut ticks = interval(WISH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leaving = Vec::new();
        loop {
            tokio::select! {
                () = self.changed.notified() => sleep(NEWS_DELAY).await,
                _ = ticks.tick() => {
                    self.ask_for_links(fleet);
                    self.leave_carried(fleet, &mut leaving).await;
                }
            }
            self.notify(fleet);
        }
    }

    /// Called when links of app servers change, here or at another node.
    pub(super) fn note_change(&self) {
        self.reaches.invalidate();
        self.changed.notify_one();
    }

    pub(super) fn apply(&self, member: &FleetMember, update: PresenceUpdate) {
        if let PresenceUpdate::Whole { servers, .. } = &update {
            let direct = servers.iter().filter(|server| server.carried == 0 || server.links > server.carried);
            self.remember(member.name(), direct.map(|server| &server.endpoint));
        }
        member.apply_presence(update);
        self.reaches.invalidate();
    }

    /// Reports all app servers of this node to a new member.
    pub(super) fn introduce(&self, fleet: &Membership, link: &NodeLink) {
        if !fleet.shared.settings.accepts_dial_in {
            return;
        }
        // All members need the same baseline, or a change back to it would be reported to none of them.
        self.notify(fleet);
        for (hub, servers) in self.own.load().hubs() {
            let update = PresenceUpdate::Whole { hub: hub.clone(), servers: servers.to_vec() };
            link.notify(&NodeMessage::Presence(update));
        }
        link.notify(&NodeMessage::Presence(PresenceUpdate::Complete));
    }

    /// Ids of the app servers available at other nodes.
    pub(super) fn elsewhere(&self, fleet: &Membership, hub: &str) -> Vec<String> {
        let mut ids = Vec::new();
        for member in fleet.all().iter() {
            let presence = member.presence();
            let servers = presence.servers(hub).iter().filter(|server| server.links > 0);
            ids.extend(servers.map(|server| server.instance.to_string()));
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Nodes reached through a link: their clients get its messages.
    pub(super) fn reach(&self, fleet: &Membership, link: &LinkHandle) -> Arc<LinkReach> {
        self.reaches.find(&fleet.shared, || fleet.all(), link)
    }

    /// Checks a link that an app server opens for another node, given by its boot id.
    pub(super) fn judge(&self, fleet: &Membership, hub: &Hub, instance: &str, target: &str) -> TargetVerdict {
        let member = fleet.find(target).filter(|member| fleet.is_alive(member));
        let carrier = member.and_then(|member| self.carrier(hub, instance, &member));
        carrier.map_or(TargetVerdict::Refused, TargetVerdict::CarriedTo)
    }

    /// Address of a node to which a link should be carried because the node has lacked one for too long.
    fn carrier(&self, hub: &Hub, instance: &str, member: &FleetMember) -> Option<Address> {
        let presence = member.presence();
        let has_link = presence.servers(hub.key()).iter().any(|server| server.instance == instance && server.links > 0);
        let is_meant = |request: &LinkRequest| {
            request.boot == member.boot() && request.hub == hub.key() && request.instance == instance
        };
        let is_old = !has_link && self.schedule().is_any_old(is_meant, Instant::now());
        member.client_port().filter(|_| is_old).cloned()
    }

    fn notify(&self, fleet: &Membership) {
        let told = self.own.load_full();
        let mut own = PeerPresence::default();
        for hub in dial_in_hubs(fleet) {
            let (servers, key) = (servers_of(&hub), ByteString::from(hub.key()));
            let update = PresenceUpdate::Whole { hub: key, servers };
            let PresenceUpdate::Whole { hub: key, servers } = &update else { continue };
            if !told.knows(key) || told.servers(key) != servers {
                fleet.send_to_members(&NodeMessage::Presence(update.clone()));
            }
            own.apply(update);
        }
        self.own.store(Arc::new(own));
    }

    fn ask_for_links(&self, fleet: &Membership) {
        let missing = self.missing_links(fleet);
        let due = self.schedule().update(&missing.requested, Instant::now());
        for request in due.intersection(&missing.ours) {
            self.ask_for_link(fleet, request);
        }
    }

    /// Gives up carried links once the app server has reached this node directly. Their clients are reassigned first.
    async fn leave_carried(&self, fleet: &Membership, leaving: &mut Vec<(Instant, Arc<LinkHandle>)>) {
        leaving.extract_if(.., |(until, _)| *until <= Instant::now()).for_each(|(_, link)| link.give_up());
        for hub in dial_in_hubs(fleet) {
            for pool in hub.pools().iter() {
                let (carried, direct): (Vec<_>, Vec<_>) = pool.homes().into_iter().partition(|link| link.is_carried());
                for link in carried.into_iter().filter(|link| !direct.is_empty() && link.begin_leave()) {
                    let (hub, app) = (hub.name(), &pool.app.name);
                    info!(hub, %app, "relayed link closed: there are direct links");
                    for shard in fleet.shared.shards() {
                        shard.give(vec![ShardCommand::LeaveLink(link.clone())], 0).await;
                    }
                    leaving.push((Instant::now() + LEAVE_TIMEOUT, link));
                }
            }
        }
    }

    fn ask_for_link(&self, fleet: &Membership, request: &LinkRequest) {
        let Some(member) = fleet.find(&request.boot) else { return };
        let Some(hub) = fleet.shared.hubs.keyed(&request.hub) else { return };
        let pools = hub.pools();
        let pool = pools.iter().find(|pool| *pool.app.instance == *request.instance && !pool.is_draining());
        let Some(pool) = pool else { return };
        let is_direct = |link: &&Arc<LinkHandle>| !link.is_carried() && link.endpoint() == Some(&*request.endpoint);
        if let Some(link) = pool.homes().iter().find(is_direct) {
            let (hub, app, peer) = (hub.name(), &pool.app.name, member.name());
            debug!(hub, %app, peer, "requesting a link of the app server to a node without one");
            link.send(&link_request(member.boot()));
        }
    }

    fn missing_links(&self, fleet: &Membership) -> MissingLinks {
        let (members, own) = (fleet.all(), self.own.load_full());
        let told: Vec<_> = members.iter().map(|member| (member.boot(), member.presence())).collect();
        let own_boot = fleet.shared.boot.as_str();
        let mut missing = MissingLinks::default();
        let hubs = told.iter().flat_map(|(_, presence)| presence.hubs()).chain(own.hubs());
        let hubs: BTreeSet<_> = hubs.map(|(hub, _)| hub).collect();
        for hub in hubs {
            let told = told.iter().map(|(boot, presence)| (*boot, presence.servers(hub)));
            let dialled = DialledEndpoints::from_nodes(told.chain([(own_boot, own.servers(hub))]));
            for member in members.iter().filter(|member| fleet.is_alive(member) && member.presence().is_complete()) {
                self.add_missing(fleet, hub, member, &dialled, &mut missing);
            }
        }
        missing
    }

    fn add_missing(
        &self,
        fleet: &Membership,
        hub: &ByteString,
        member: &FleetMember,
        dialled: &DialledEndpoints,
        out: &mut MissingLinks,
    ) {
        let (presence, known) = (member.presence(), self.known(member.name()));
        for (instance, endpoints) in &dialled.0 {
            let here = presence.servers(hub).iter().filter(|server| server.instance == *instance);
            let (links, direct) = here.fold((0, 0), |(links, direct), server| {
                (links + server.links, direct + server.links.saturating_sub(server.carried))
            });
            if direct > 0 {
                continue;
            }
            let urgency = if links > 0 { Urgency::Carried } else { Urgency::Missing };
            for (endpoint, first) in endpoints {
                if is_behind(endpoint, endpoints, &known, presence.knows(hub)) {
                    let (hub, instance, endpoint) = (hub.clone(), instance.clone(), endpoint.clone());
                    let request = LinkRequest { hub, instance, endpoint, boot: member.boot().into() };
                    if *first == fleet.shared.boot {
                        out.ours.insert(request.clone());
                    }
                    out.requested.insert(request, urgency);
                }
            }
        }
    }
}

/// Whether a node may be reachable through an endpoint. A node reached through another endpoint of the app server
/// belongs to that one; a node not yet reached by any app server may be behind any endpoint.
fn is_behind(
    endpoint: &ByteString,
    endpoints: &BTreeMap<ByteString, String>,
    known: &BTreeSet<ByteString>,
    knows_hub: bool,
) -> bool {
    let is_elsewhere = || endpoints.keys().any(|other| known.contains(other));
    // An address may have been renamed; clients or app servers then arrive by the new name.
    known.contains(endpoint) || (!is_elsewhere() && (known.is_empty() || knows_hub))
}

/// Endpoints dialled by the app servers of a hub, each with the boot id of the first node that has links through it.
struct DialledEndpoints(BTreeMap<ByteString, BTreeMap<ByteString, String>>);

impl DialledEndpoints {
    fn from_nodes<'a>(nodes: impl Iterator<Item = (&'a str, &'a [PresentAppServer])>) -> Self {
        let mut all: BTreeMap<ByteString, BTreeMap<ByteString, String>> = BTreeMap::new();
        for (boot, servers) in nodes {
            for server in servers.iter().filter(|server| server.links > server.carried) {
                let first = all.entry(server.instance.clone()).or_default().entry(server.endpoint.clone());
                let first = first.or_insert_with(|| boot.to_owned());
                if *boot < **first {
                    boot.clone_into(first);
                }
            }
        }
        Self(all)
    }
}

impl AppPresence {
    fn remember<'a>(&self, node: &str, endpoints: impl Iterator<Item = &'a ByteString>) {
        let mut all = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= GREETING_MEMBERS_MAX && !all.contains_key(node) {
            // The entries are only hints, so clearing them is harmless. Node names may change at each start.
            all.clear();
        }
        let known = all.entry(node.to_owned()).or_default();
        for endpoint in endpoints.take(ENDPOINTS_MAX) {
            if known.len() >= ENDPOINTS_MAX && !known.contains(endpoint) {
                known.clear();
            }
            known.insert(endpoint.clone());
        }
    }

    fn known(&self, node: &str) -> BTreeSet<ByteString> {
        let all = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(node).cloned().unwrap_or_default()
    }

    fn schedule(&self) -> MutexGuard<'_, LinkRequestSchedule<LinkRequest>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn dial_in_hubs(fleet: &Membership) -> impl Iterator<Item = Arc<Hub>> + use<> {
    let hubs = fleet.shared.hubs.all();
    let hubs: Vec<_> = hubs.iter().filter(|hub| hub.capabilities().announces_links).cloned().collect();
    hubs.into_iter()
}

/// App servers that have dialled in here for a hub, one entry per endpoint.
fn servers_of(hub: &Hub) -> Vec<PresentAppServer> {
    let mut servers: BTreeMap<(ByteString, ByteString), PresentAppServer> = BTreeMap::new();
    for pool in hub.pools().iter() {
        for link in pool.links() {
            let Some(endpoint) = link.endpoint() else { continue };
            let (instance, endpoint) = (ByteString::from(&*pool.app.instance), ByteString::from(endpoint));
            debug_assert!(instance.len().max(endpoint.len()) <= PRESENCE_TEXT_MAX_BYTES);
            let server = servers.entry((instance.clone(), endpoint.clone()));
            let server = server.or_insert(PresentAppServer { instance, endpoint, links: 0, carried: 0 });
            if link.may_carry_clients() {
                server.links += 1;
                server.carried += u32::from(link.is_carried());
            }
        }
    }
    servers.into_values().take(PRESENCE_SERVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&'static str]) -> BTreeSet<ByteString> {
        all.iter().map(|name| ByteString::from_static(name)).collect()
    }

    #[test]
    fn a_node_is_behind_an_endpoint_that_has_reached_it_or_any_as_long_as_none_has() {
        let dialled: BTreeMap<_, _> = names(&["one", "two"]).into_iter().map(|name| (name, String::new())).collect();
        let is_behind =
            |known: &[&'static str], knows_hub| is_behind(&"one".into(), &dialled, &names(known), knows_hub);
        assert!(is_behind(&[], false) && is_behind(&["one"], false) && is_behind(&["one", "two"], false));
        assert!(!is_behind(&["two"], false) && !is_behind(&["two"], true));
        // Known only under a name that the app server doesn't use: the hub's clients then decide.
        assert!(!is_behind(&["old"], false) && is_behind(&["old"], true));
    }

    #[test]
    fn the_first_node_with_links_of_its_own_asks() {
        let server = |endpoint: &'static str, links, carried| {
            let (instance, endpoint) = ("app".into(), endpoint.into());
            PresentAppServer { instance, endpoint, links, carried }
        };
        let (carried, weak, own) = ([server("one", 1, 1)], [server("one", 0, 0)], [server("one", 2, 1)]);
        let nodes = [("1", &carried[..]), ("2", &weak), ("4", &own), ("3", &own)];
        let dialled = DialledEndpoints::from_nodes(nodes.into_iter());
        let asking: Vec<_> = dialled.0["app"].iter().map(|(endpoint, boot)| (&**endpoint, boot.as_str())).collect();
        assert_eq!(asking, [("one", "3")]);
    }

    #[test]
    fn endpoints_of_a_node_are_remembered_within_bounds() {
        let presence = AppPresence::default();
        let many: Vec<_> = (0..1000).map(|number| ByteString::from(number.to_string())).collect();
        presence.remember("n1", many.iter());
        presence.remember("n1", [ByteString::from_static("new")].iter());
        assert!(presence.known("n1").len() <= ENDPOINTS_MAX && presence.known("n1").contains("new"));
        for node in 0..GREETING_MEMBERS_MAX + 5 {
            presence.remember(&node.to_string(), many.iter().take(1));
        }
        assert!(presence.endpoints.lock().unwrap().len() <= GREETING_MEMBERS_MAX);
        assert!(presence.known("nobody").is_empty());
    }
}
