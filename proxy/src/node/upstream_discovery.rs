//! Upstreams to watch, and discovery of each by DNS, with a watcher for each address of the name. Addresses with the
//! same instance id, such as IPv4 and IPv6, count as one app server.
//!
//! A delisted address keeps its watcher and its clients while links are open, so that a stopping app server can hand
//! them over. It gets nothing new while a listed one is up, until it is listed again. A DNS failure and an empty answer
//! change nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use super::upstream_watcher::{self, Listing, WatchedAddress};
use crate::edge::observer::UpstreamProblems;
use crate::engine::shard::Shared;
use crate::engine::upstream::ServerGroup;
use crate::ground::net::address::Address;
use crate::ground::net::resolver::{AddressFamilies, Resolver};

/// DNS query interval while an app server does not answer.
const DOUBTED_INTERVAL: Duration = Duration::from_millis(500);

/// Addresses of a name, each with a channel that informs its watcher whether it is still listed.
#[derive(Debug, Default)]
struct ListedAddresses(HashMap<SocketAddr, (Address, watch::Sender<Listing>)>);

pub(super) struct UpstreamDiscovery {
    pub(super) shared: Arc<Shared>,
    pub(super) problems: Arc<UpstreamProblems>,
    pub(super) group: Arc<ServerGroup>,
    pub(super) address: Address,
    pub(super) resolver: Resolver,
    /// DNS query interval; zero for never.
    pub(super) interval: Duration,
    /// Whether the upstream is still configured.
    pub(super) listing: watch::Receiver<Listing>,
}

impl UpstreamDiscovery {
    /// Watches the upstream until it is removed and its app servers have no clients.
    pub(super) async fn run(self) {
        if self.is_one_server() {
            let (listing, resolve, families) = (self.listing.clone(), Arc::default(), Arc::default());
            return self.watch(WatchedAddress { address: self.address.clone(), listing, resolve, families }).await;
        }
        let (mut listed, mut watchers) = (ListedAddresses::default(), JoinSet::new());
        let name = self.address.to_string();
        let (mut is_resolved, mut listing, resolve) = (true, self.listing.clone(), Arc::new(Notify::new()));
        let families = Arc::new(AddressFamilies::default());
        loop {
            match self.resolver.resolve(&self.address).await {
                Ok(found) => {
                    let had_any = std::mem::replace(&mut is_resolved, !found.is_empty());
                    if had_any && found.is_empty() {
                        warn!(upstream = %self.address, "DNS lists no address: keeping the last known ones");
                    }
                    families.note_listed(&found);
                    if listed.0.is_empty() {
                        self.problems.set(&name, None);
                    }
                    for (address, listing) in listed.update(&self.address, &found) {
                        let (resolve, families) = (resolve.clone(), families.clone());
                        watchers.spawn(self.watch(WatchedAddress { address, listing, resolve, families }));
                    }
                }
                Err(error) => {
                    if std::mem::take(&mut is_resolved) {
                        warn!(upstream = %self.address, %error, "the name can't be resolved");
                    }
                    if listed.0.is_empty() {
                        self.problems.set(&name, Some(format!("the name can't be resolved: {error}").into()));
                    }
                }
            }
            tokio::select! {
                () = sleep(self.interval) => {}
                () = resolve.notified() => sleep(DOUBTED_INTERVAL.min(self.interval)).await,
                () = Listing::removed(&mut listing) => {
                    listed.remove_all();
                    while watchers.join_next().await.is_some() {}
                    return self.problems.set(&name, None);
                }
            }
            // Joins the watchers of addresses that are no longer listed.
            while watchers.try_join_next().is_some() {}
        }
    }

    /// Whether the upstream is a single app server regardless of DNS: an IP address, or this machine.
    fn is_one_server(&self) -> bool {
        self.interval.is_zero() || self.address.is_one_server()
    }

    fn watch(&self, watched: WatchedAddress) -> impl Future<Output = ()> + use<> {
        let (shared, problems, group) = (self.shared.clone(), self.problems.clone(), self.group.clone());
        upstream_watcher::watch(shared, problems, group, watched)
    }
}

impl ListedAddresses {
    /// Removes all addresses: the upstream is no longer configured.
    fn remove_all(&self) {
        for (_, listing) in self.0.values() {
            listing.send_replace(Listing::Removed);
        }
    }

    /// Updates the list; returns new addresses, which need a watcher. An empty list changes nothing.
    fn update(&mut self, name: &Address, found: &[SocketAddr]) -> Vec<(Address, watch::Receiver<Listing>)> {
        // Removes addresses of ended watchers.
        self.0.retain(|_, (_, listing)| !listing.is_closed());
        if found.is_empty() {
            return Vec::new();
        }
        for (at, (address, listing)) in &self.0 {
            let is_listed = found.contains(at);
            let now = if is_listed { Listing::Listed } else { Listing::Vanished };
            address.set_listed(is_listed);
            if listing.send_if_modified(|was| std::mem::replace(was, now) != now) {
                match is_listed {
                    true => info!(upstream = %name, %at, "address listed in DNS again"),
                    false => {
                        info!(upstream = %name, %at, "address left DNS: new clients and requests go to listed ones")
                    }
                }
            }
        }
        let mut new = Vec::new();
        for at in found {
            if !self.0.contains_key(at) {
                info!(upstream = %name, %at, "address added to DNS");
                let (address, (sender, listing)) = (name.at(*at), watch::channel(Listing::Listed));
                self.0.insert(*at, (address.clone(), sender));
                new.push((address, listing));
            }
        }
        new
    }
}

type UpstreamKey = (Arc<str>, Address);

/// Level-triggered: watchers are reconciled with the wanted upstreams. The clients of a removed upstream are reassigned
/// before it can be watched again.
#[derive(Debug)]
pub(super) struct UpstreamSet {
    pub(super) shared: Arc<Shared>,
    pub(super) problems: Arc<UpstreamProblems>,
    pub(super) resolver: Resolver,
    /// DNS query interval; zero for never.
    pub(super) interval: Duration,
    watched: HashMap<UpstreamKey, watch::Sender<Listing>>,
    wanted: Vec<(Arc<ServerGroup>, Address)>,
    watchers: JoinSet<UpstreamKey>,
}

impl UpstreamSet {
    pub(super) fn new(
        shared: Arc<Shared>,
        problems: Arc<UpstreamProblems>,
        resolver: Resolver,
        interval: Duration,
    ) -> Self {
        let (watched, wanted, watchers) = Default::default();
        Self { shared, problems, resolver, interval, watched, wanted, watchers }
    }

    /// Sets the wanted upstreams: starts watching new ones and leaves removed ones.
    pub(super) fn want(&mut self, wanted: Vec<(Arc<ServerGroup>, Address)>) {
        self.wanted = wanted;
        self.reconcile();
    }

    /// Waits until a removed upstream has no clients left.
    pub(super) async fn next_end(&mut self) {
        match self.watchers.join_next().await {
            Some(Ok(key)) => drop(self.watched.remove(&key)),
            Some(Err(_)) => {}
            None => return std::future::pending().await,
        }
        self.reconcile();
    }

    fn reconcile(&mut self) {
        let is_wanted = |(name, address): &UpstreamKey| {
            self.wanted.iter().any(|(group, wanted)| group.name == *name && wanted == address)
        };
        for (key, listing) in &self.watched {
            let is_wanted = is_wanted(key);
            if !is_wanted
                && listing.send_if_modified(|was| std::mem::replace(was, Listing::Removed) != Listing::Removed)
            {
                info!(group = %key.0, upstream = %key.1, "upstream removed: reassigning its clients");
            }
        }
        for (group, address) in &self.wanted {
            let key = (group.name.clone(), address.clone());
            if self.watched.contains_key(&key) {
                continue;
            }
            let (sender, listing) = watch::channel(Listing::Listed);
            let discovery = UpstreamDiscovery {
                shared: self.shared.clone(),
                problems: self.problems.clone(),
                group: group.clone(),
                address: address.clone(),
                resolver: self.resolver.clone(),
                interval: self.interval,
                listing,
            };
            self.watched.insert(key.clone(), sender);
            self.watchers.spawn(async move {
                discovery.run().await;
                key
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::Router;
    use axum::extract::Request;
    use axum::routing::get;
    use hyper::server::conn::http1;
    use hyper_util::rt::TokioIo;
    use hyper_util::service::TowerToHyperService;
    use tokio::runtime::Builder;
    use tokio::task::{AbortHandle, LocalSet, spawn_local};
    use trunkline_channel::HelloTable;
    use trunkline_protocol::key::{AccessKey, AccessKeys, PeerKind};
    use trunkline_protocol::manifest::{HubManifest, MANIFEST_PATH, Manifest};
    use trunkline_protocol::wire::CHANNEL_PATH;

    use super::*;
    use crate::engine::shard::{Connectors, ShardSender};
    use crate::engine::upstream::{AppTarget, Pool};
    use crate::fleet::{ChannelLock, NodeStores, OwnNames, open_channel};
    use crate::ground::config::Settings;
    use crate::ground::net::connector::{Connector, MemoryNetwork};
    use crate::node::shard_thread;

    const V4: &str = "10.0.0.1:5000";
    const V6: &str = "[2001:db8::1]:5000";

    /// Node that watches one name with app servers that have manifests but no links.
    struct Scene {
        network: MemoryNetwork,
        keys: AccessKeys,
        shared: Arc<Shared>,
        problems: Arc<UpstreamProblems>,
        addresses: Arc<Mutex<Vec<SocketAddr>>>,
        _listing: watch::Sender<Listing>,
    }

    impl Scene {
        fn start(addresses: &[&str]) -> Self {
            let (network, (sender, inbox)) = (MemoryNetwork::default(), ShardSender::new());
            let keys = AccessKeys::new(vec![AccessKey::random()]).unwrap();
            let connectors = Connectors { fleet: Connector::in_memory(network.clone()), ..Connectors::default() };
            let settings = Settings { pool_size: 1, ..Settings::embedded(keys.clone(), Vec::new(), false) };
            let stores = NodeStores::with_keys_alone(&settings);
            let shared = Shared::new(settings, stores.seams(), connectors, vec![sender]);
            let addresses = Arc::new(Mutex::new(addresses.iter().map(|address| at(address)).collect::<Vec<_>>()));
            let ((listed, listing), asked) = (watch::channel(Listing::Listed), addresses.clone());
            let problems = Arc::<UpstreamProblems>::default();
            let discovery = UpstreamDiscovery {
                shared: shared.clone(),
                problems: problems.clone(),
                group: shared.hubs.groups.default_one(),
                address: "http://app:5000".parse().unwrap(),
                resolver: Resolver::asking(move |_| Ok(asked.lock().unwrap().clone())),
                interval: Duration::from_secs(5),
                listing,
            };
            spawn_local(shard_thread::run(0, (shared.clone(), stores.admission, None), Vec::new(), inbox));
            tokio::spawn(discovery.run());
            Self { network, keys, shared, problems, addresses, _listing: listed }
        }

        /// Makes an app server listen at an address.
        fn listen(&self, address: &str, instance: &str) -> AbortHandle {
            let hubs = vec![HubManifest::new("chat", "/chat")];
            let manifest = Manifest { instance: instance.into(), name: "app".into(), version: "1".into(), hubs };
            let manifest = serde_json::to_string(&manifest).unwrap();
            let inside = Router::new().route(MANIFEST_PATH, get(async move || manifest));
            let (keys, hellos) = (self.keys.clone(), Arc::new(HelloTable::default()));
            let open = move |request: Request| {
                let lock =
                    ChannelLock { keys: &keys, peer_kind: PeerKind::AppServer, names: OwnNames::Any, hellos: &hellos };
                let opened = open_channel(&request, lock, inside.clone(), || Ok(()));
                std::future::ready(opened.unwrap())
            };
            let router = Router::new().route(CHANNEL_PATH, get(open));
            let mut accepted = self.network.listen(&format!("http://{address}").parse().unwrap());
            let serving = tokio::spawn(async move {
                while let Some(stream) = accepted.recv().await {
                    let service = TowerToHyperService::new(router.clone());
                    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
                }
            });
            serving.abort_handle()
        }

        fn list(&self, addresses: &[&str]) {
            *self.addresses.lock().unwrap() = addresses.iter().map(|address| at(address)).collect();
        }

        /// Waits until discovery has settled; returns the pools by instance.
        async fn pools(&self) -> Vec<Arc<Pool>> {
            // sleep: virtual time, longer than every interval and delay
            sleep(Duration::from_secs(40)).await;
            let hubs = self.shared.hubs.all();
            let mut pools: Vec<_> = hubs.iter().flat_map(|hub| hub.pools().to_vec()).collect();
            pools.sort_by(|one, other| one.app.instance.cmp(&other.app.instance));
            pools
        }

        async fn instances(&self) -> Vec<String> {
            self.pools().await.iter().map(|pool| pool.app.instance.clone()).collect()
        }
    }

    fn endpoints(pool: &Pool) -> Vec<SocketAddr> {
        let AppTarget::Network(address) = &pool.app.target else { panic!("it is dialled") };
        address.endpoints().unwrap()
    }

    /// Runs a test with local tasks and a paused clock.
    fn run(test: impl Future<Output = ()>) {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn an_app_server_on_one_family_is_found_whichever_comes_first_and_the_other_is_no_problem() {
        run(async {
            for (addresses, listening) in [([V6, V4], V4), ([V4, V6], V6)] {
                let scene = Scene::start(&addresses);
                scene.listen(listening, "one");
                assert_eq!(endpoints(&scene.pools().await[0]), [at(listening)]);
                assert_eq!((scene.instances().await, scene.problems.list()), (vec!["one".into()], vec![]));
            }
        });
    }

    #[test]
    fn an_app_server_on_both_families_is_one_and_a_change_of_families_keeps_its_pool() {
        run(async {
            let scene = Scene::start(&[V4]);
            let v4 = scene.listen(V4, "one");
            scene.listen(V6, "one");
            let [pool] = scene.pools().await.try_into().unwrap();
            scene.list(&[V6, V4]);
            assert_eq!((scene.pools().await.len(), endpoints(&pool)), (1, vec![at(V4), at(V6)]));
            scene.list(&[V6]);
            v4.abort();
            let [same] = scene.pools().await.try_into().unwrap();
            assert!(Arc::ptr_eq(&pool, &same) && !pool.retired.is_cancelled());
            assert_eq!((endpoints(&pool), scene.problems.list()), (vec![at(V6)], vec![]));
        });
    }

    #[test]
    fn an_address_that_fails_is_no_problem_while_the_app_server_is_reached_by_another() {
        run(async {
            let scene = Scene::start(&[V6, V4]);
            let servers = [V6, V4].map(|address| scene.listen(address, "one"));
            let [pool] = scene.pools().await.try_into().unwrap();
            for (failing, address) in servers.iter().zip([V6, V4]) {
                failing.abort();
                let [same] = scene.pools().await.try_into().unwrap();
                assert!(Arc::ptr_eq(&pool, &same), "{address}");
                assert!(scene.problems.list().is_empty(), "{address}");
                scene.listen(address, "one");
            }
        });
    }

    #[test]
    fn several_app_servers_have_pools_of_their_own_and_addresses_may_part() {
        run(async {
            let scene = Scene::start(&[V6, V4, "10.0.0.2:5000"]);
            let [v6, ..] = [(V6, "one"), (V4, "one"), ("10.0.0.2:5000", "two")].map(|(at, app)| scene.listen(at, app));
            assert_eq!(scene.instances().await, ["one", "two"]);
            v6.abort();
            scene.listen(V6, "three");
            assert_eq!(scene.instances().await, ["one", "three", "two"]);
        });
    }

    #[test]
    fn an_app_server_that_is_gone_from_all_of_its_addresses_is_given_up() {
        run(async {
            let scene = Scene::start(&[V6, V4]);
            let servers = [V6, V4].map(|address| scene.listen(address, "one"));
            assert_eq!(scene.instances().await, ["one"]);
            servers.iter().for_each(AbortHandle::abort);
            assert_eq!((scene.pools().await.len(), scene.problems.list().len()), (0, 2));
            [V6, V4].iter().for_each(|address| drop(scene.listen(address, "next")));
            assert_eq!(scene.instances().await, ["next"]);
        });
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn name() -> Address {
        "http://app:5000".parse().unwrap()
    }

    #[test]
    fn a_new_address_is_returned_and_a_missing_one_is_marked_as_not_listed() {
        let mut listed = ListedAddresses::default();
        let (a, b) = (at("10.0.0.1:80"), at("10.0.0.2:80"));
        let [(first, of_a)] = listed.update(&name(), &[a]).try_into().unwrap();
        assert!(first.resolved() == Some(a) && *of_a.borrow() == Listing::Listed);
        let [(second, of_b)] = listed.update(&name(), &[a, b]).try_into().unwrap();
        assert_eq!(second.resolved(), Some(b));
        assert!(listed.update(&name(), &[b]).is_empty());
        assert_eq!((*of_a.borrow(), *of_b.borrow()), (Listing::Vanished, Listing::Listed));
        assert!(listed.update(&name(), &[a, b]).is_empty(), "it is watched still");
        assert_eq!(*of_a.borrow(), Listing::Listed);
    }

    #[test]
    fn an_address_without_a_watcher_is_new_again_and_an_empty_answer_changes_nothing() {
        let mut listed = ListedAddresses::default();
        let a = at("10.0.0.1:80");
        let of_a = listed.update(&name(), &[a]);
        assert!(listed.update(&name(), &[]).is_empty());
        assert_eq!(*of_a[0].1.borrow(), Listing::Listed);
        drop(of_a);
        assert_eq!(listed.update(&name(), &[a]).len(), 1);
    }
}
