//! Composition of a node: listeners, connectors, shards, upstream discovery, the admin port, and graceful shutdown.
//!
//! ```text
//!  main thread: admin port, upstream discovery, certificate reload, signals
//!  shard threads: accept loop, inbox, ticks, client tasks, link tasks
//! ```

mod app_instance;
pub(crate) mod app_rebalancer;
mod app_server_condition;
#[cfg(feature = "tls")]
mod certificate_reload;
pub(crate) mod condition_watch;
mod condition_webhook;
mod embedded;
#[cfg(feature = "otlp")]
mod export;
mod file_check;
mod graceful_stop;
mod hub_condition;
pub(crate) mod hub_sweep;
pub(crate) mod key_reload;
mod listener_set;
mod manifest;
mod memory_limit;
mod node_condition;
pub(crate) mod presence_keeper;
pub(crate) mod rule_set;
pub(crate) mod shard_thread;
mod share_plan;
mod shared_port;
mod start_error;
mod traffic_condition;
mod upstream_discovery;
mod upstream_news;
pub(crate) mod upstream_watcher;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trunkline_process::log_open_files;
use trunkline_vectored::SendRing;

pub use embedded::{AppListener, Embedded};
pub use listener_set::InheritedSockets;
pub use start_error::StartError;

use condition_watch::ConditionWatch;
#[cfg(feature = "otlp")]
use export::Export;
use graceful_stop::{close_links, finish_requests, poll_until, share_ends, stragglers};
use listener_set::{BoundAddresses, ListenerSet, ShardListener};
use rule_set::RuleSet;
use shard_thread::ShardServices;
use upstream_discovery::UpstreamSet;

use crate::edge::admin::{self, AdminCounters};
use crate::edge::frontend::{end_gets_of_lost_owners, release_carried};
use crate::edge::observer::{Readiness, UpstreamProblems};
#[cfg(feature = "otlp")]
use crate::edge::otlp;
use crate::edge::rest::Rest;
use crate::engine::shard::{Connectors, Inbox, ShardCommand, ShardSender, Shared};
use crate::features::admission::Admission;
use crate::features::store;
use crate::features::webhook::{HubConnection, HubUser, Reported, Webhooks};
use crate::fleet::{Fleet, NodeStores, keep_fleet};
use crate::ground::auth::AccessSettings;
#[cfg(feature = "tls")]
use crate::ground::auth::JwksSource;
use crate::ground::config::{Config, DrainSettings, SecretSources, Settings};
#[cfg(feature = "tls")]
use crate::ground::net::address::Address;
use crate::ground::net::connector::Connector;
#[cfg(feature = "tls")]
use crate::ground::net::tls::{Certificates, ClientTls, server_config};

/// A running proxy node: its shards, admin port and upstream watchers.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    fleet: Fleet,
    webhooks: Arc<Webhooks>,
    listen: BoundAddresses,
    admin: SocketAddr,
    drain: DrainSettings,
    rest: Option<Rest>,
    threads: Vec<JoinHandle<()>>,
    background: JoinSet<()>,
    stop: CancellationToken,
    #[cfg(feature = "otlp")]
    export: Export,
}

impl Node {
    /// Starts a node. On return, both ports are served.
    ///
    /// # Errors
    /// If an address is in use, or a thread can't be created.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_on(InheritedSockets::default(), config).await
    }

    /// Starts a node on sockets inherited from a supervisor; opens the missing ones.
    ///
    /// # Errors
    /// If an address is in use, a socket has no configured address, or a thread can't be created.
    pub async fn start_on(mut sockets: InheritedSockets, config: Config) -> Result<Self, StartError> {
        log_open_files();
        let (listeners, listen) = ListenerSet::open(&config, &mut sockets)?;
        let (connectors, issuers) = connectors(&config)?;
        let (admin_listener, admin) = admin_listener(config.admin, &mut sockets)?;
        sockets.ensure_all_taken()?;

        let Config {
            upstreams, resolve_interval, resolver, shards, drain, mut settings, observer, key_sources, ..
        } = config;
        memory_limit::fit_budgets(&mut settings);
        #[cfg(feature = "tls")]
        let upstream_tls = config.upstream_tls;
        let (stop, fleet_resolver, rules_file) = (CancellationToken::new(), resolver.clone(), config.rules_file);
        let (senders, inboxes): (Vec<_>, Vec<_>) = listeners.of_shards.iter().map(|_| ShardSender::new()).unzip();
        let tables = config.access.tables.clone();
        let (shared, stores) = shared_state(settings, config.access, (&connectors, &issuers), senders);
        let (fleet, webhooks) = (Fleet::new(shared.clone(), stores, admin), Arc::new(Webhooks::new(&shared)));
        let rest = shared.settings.rest.is_on().then(|| Rest::new(shared.clone(), fleet.clone()));
        let services = ShardServices { fleet: fleet.clone(), rest: rest.clone(), webhooks: webhooks.clone() };
        let threads = start_shards((&shared, &services), listeners.of_shards, inboxes, &stop)?;
        webhooks.open_hubs(&shared);

        let mut background = keep_own_state(&shared, fleet.admission(), &webhooks, key_sources);
        let (problems, counters) = (Arc::<UpstreamProblems>::default(), Arc::<AdminCounters>::default());
        let rule_set = RuleSet::new(
            shared.clone(),
            fleet.admission().clone(),
            webhooks.clone(),
            upstreams,
            #[cfg(feature = "tls")]
            upstream_tls,
        );
        rule_set.apply(&shared.settings.rules, &tables)?;
        let upstreams = UpstreamSet::new(shared.clone(), problems.clone(), resolver, resolve_interval);
        background.spawn(rule_set.watch(upstreams));
        #[cfg(feature = "tls")]
        let (certificates, has_rules) = (listeners.certificates, rules_file.is_some());
        #[cfg(feature = "tls")]
        background.spawn(certificate_reload::run(shared.clone(), [connectors.fleet, issuers], certificates, has_rules));
        if let Some(file) = rules_file {
            background.spawn(rule_set::watch_file(shared.clone(), rule_set, file));
        }
        let watch = ConditionWatch::new(shared.clone(), fleet.clone(), webhooks.clone(), problems.clone());
        background.spawn(condition_watch::run(watch, observer.condition_webhook.clone()));
        let readiness = Readiness::new(shared.clone(), problems).with_store(fleet.store());
        background.spawn(store::keep(fleet.store().cloned(), shared.clone()));
        background.spawn(keep_fleet(fleet.clone(), fleet_resolver));
        background.spawn(presence_keeper::run(shared.clone(), webhooks.clone(), fleet.clone()));
        #[cfg(feature = "otlp")]
        let export = Export::start(config.otlp, &readiness, (&fleet, &webhooks), &counters)?;
        let rest_of_admin = rest.clone().filter(|_| shared.settings.rest.listen == Some(config.admin));
        let of_admin = (fleet.clone(), rest_of_admin, webhooks.clone());
        background
            .spawn(async move { admin::serve(admin_listener, admin, readiness, &observer, of_admin, counters).await });

        note_ways_out(&shared);
        log_start(&shared, &listen, admin, shards);
        Ok(Self {
            shared,
            fleet,
            webhooks,
            listen,
            admin,
            drain,
            rest,
            threads,
            background,
            stop,
            #[cfg(feature = "otlp")]
            export,
        })
    }

    /// Checks everything that [`Self::start`] checks except ports: TLS files, groups and keys. Needs a runtime.
    ///
    /// # Errors
    /// As for a start.
    pub fn check(config: Config) -> Result<(), StartError> {
        let (connectors, issuers) = connectors(&config)?;
        #[cfg(feature = "tls")]
        if let Some(tls) = config.tls_listen {
            server_config(Certificates::read(tls.identities)?)?;
        }
        #[cfg(feature = "otlp")]
        config.otlp.map_or(Ok(()), otlp::check).map_err(StartError::Otlp)?;
        let (sender, _inbox) = ShardSender::new();
        let tables = config.access.tables.clone();
        let (shared, stores) = shared_state(config.settings, config.access, (&connectors, &issuers), vec![sender]);
        let rules = RuleSet::new(
            shared.clone(),
            stores.admission,
            Arc::new(Webhooks::new(&shared)),
            config.upstreams,
            #[cfg(feature = "tls")]
            config.upstream_tls,
        );
        Ok(rules.apply(&shared.settings.rules, &tables)?)
    }

    /// Address of the plain client listener.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen.plain
    }

    /// Address of the TLS client listener.
    #[must_use]
    pub fn tls_listen(&self) -> Option<SocketAddr> {
        self.listen.tls
    }

    /// Address of the data plane's own port.
    #[must_use]
    pub fn rest_listen(&self) -> Option<SocketAddr> {
        self.listen.rest
    }

    /// Address of the admin port.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Heartbeat of all shards, for a watchdog.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat(self.shared.clone())
    }

    /// Stops the node: fails readiness, asks clients to reconnect, notifies app servers and closes links.
    pub async fn stop(mut self) {
        self.shared.begin_drain();
        let DrainSettings { grace, timeout: drain_timeout } = self.drain;
        if !grace.is_zero() {
            info!(
                clients = self.clients(),
                seconds = grace.as_secs(),
                "stopping: not ready, still accepting clients for --drain-grace"
            );
            sleep(grace).await;
        }
        self.shared.refuse_clients();
        info!(clients = self.clients(), "draining: refusing new clients, asking connected clients to reconnect");
        if timeout(drain_timeout, self.drain_clients()).await.is_err() {
            let (clients, relayed) = (self.clients(), self.shared.carried_gets.count());
            let left = stragglers(&self.shared).await;
            let (kinds, ids) = (left.kinds(), left.ids());
            if clients > 0 || relayed > 0 {
                warn!(
                    clients,
                    kinds, relayed, ids, "some clients did not leave within --drain-timeout: disconnecting them"
                );
            } else {
                warn!("webhooks did not accept all events within --drain-timeout: see earlier warnings about them");
            }
            let unreported = self.webhooks.clients();
            if unreported > 0 {
                warn!(clients = unreported, "webhooks were not notified in time of these disconnected clients");
            }
        }
        self.shared.end_listening();
        finish_requests(&self.shared, self.rest.as_ref()).await;
        self.shared.end_requests();
        // Clients whose ends were not reported in time are left to other nodes.
        if let Some(connections) = HubConnection::presence(&self.webhooks) {
            connections.log.close_log();
        }
        let pools: Vec<_> = self.shared.hubs.all().iter().flat_map(|hub| hub.pools().to_vec()).collect();
        // Links that may carry messages for clients of other nodes.
        let relayed = pools.iter().filter(|pool| !pool.hub.capabilities().sends_to_all_nodes);
        let relayed: Vec<_> = relayed.cloned().collect();
        close_links(&relayed).await;
        self.fleet.leave_records(graceful_stop::RECORDS_TIMEOUT).await;
        self.fleet.members().leave().await;
        if let Some(broker) = self.fleet.broker() {
            broker.flush().await;
        }
        self.background.abort_all();
        close_links(&pools).await;
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
        #[cfg(feature = "otlp")]
        self.export.stop().await;
        info!("stopped");
    }

    /// Closes all clients, spread over the drain timeout, and ends requests forwarded to other nodes. A long polling
    /// client has disconnected once a response asks it to reconnect.
    async fn drain_clients(&self) {
        let spread = self.drain.spread();
        for shard in self.shared.shards() {
            shard.give(vec![ShardCommand::Drain(spread)], 0).await;
        }
        tokio::select! {
            () = poll_until(|| self.clients() == 0 && self.shared.http_transports.is_empty()) => {}
            // Leaves the last quarter for calls of the remaining clients.
            () = release_carried(&self.shared, self.fleet.admission(), spread - spread / 4) => {}
        }
        // Back ends of webhooks are notified of the ends of these clients, too.
        poll_until(|| self.webhooks.clients() == 0).await;
        share_ends(&self.webhooks).await;
        // Other nodes don't know which clients of lost nodes this one has not reported yet.
        if let Some(connections) = HubConnection::presence(&self.webhooks) {
            poll_until(|| connections.is_done()).await;
        }
        // Other nodes would report the users of these clients.
        if self.fleet.members().all().iter().all(|member| member.is_draining())
            && let Some(presence) = HubUser::presence(&self.webhooks)
        {
            poll_until(|| presence.is_done()).await;
        }
    }

    /// Number of open client sockets, including closing ones, and of disconnected clients that may resume.
    fn clients(&self) -> u64 {
        self.shared.sockets() + self.shared.clients_away()
    }
}

/// Starts the background tasks for local state: keys, unserved hubs, and distribution of clients.
fn keep_own_state(
    shared: &Arc<Shared>,
    admission: &Arc<Admission>,
    webhooks: &Arc<Webhooks>,
    key_sources: SecretSources,
) -> JoinSet<()> {
    let mut background = JoinSet::new();
    let for_keys = admission.clone();
    background.spawn(async move { for_keys.verifier.keep_fresh().await });
    background.spawn(hub_sweep::run(shared.clone(), webhooks.clone()));
    background.spawn(end_gets_of_lost_owners(shared.clone()));
    background.spawn(key_reload::run((shared.clone(), admission.clone()), webhooks.clone(), key_sources));
    background.spawn(app_rebalancer::run(shared.clone()));
    background
}

/// Creates the state of all shards, and the state behind its seams. The second connector fetches keys of token issuers.
fn shared_state(
    settings: Settings,
    access: AccessSettings,
    (connectors, issuers): (&Connectors, &Connector),
    senders: Vec<ShardSender>,
) -> (Arc<Shared>, NodeStores) {
    let stores = NodeStores::new(&settings, access, issuers.clone());
    let mut connectors = connectors.clone();
    if let Some(broker) = &stores.broker {
        connectors.fleet = connectors.fleet.by_broker(broker.clone());
    }
    (Shared::new(settings, stores.seams(), connectors, senders), stores)
}

fn log_start(shared: &Shared, listen: &BoundAddresses, admin: SocketAddr, shards: u16) {
    info!(
        node = %shared.settings.node,
        listen = %listen.plain,
        tls = listen.tls.map(display),
        rest = listen.rest.map(display),
        %admin,
        shards,
        "node started"
    );
}

/// Logs non-default ways of reaching clients, and records them for metrics.
fn note_ways_out(shared: &Shared) {
    if !shared.settings.relay.forward {
        info!("--no-forward: clients are offered only WebSockets, and requests are not relayed to other nodes");
    }
    if shared.settings.outbox.vectored_sends {
        match SendRing::new() {
            Ok(_) => {
                shared.note_vectored_sends();
                info!("sends to many clients use one system call for several hundred of them (io_uring)");
            }
            Err(error) => info!(
                %error,
                "sends to many clients use one system call per client: io_uring is not available"
            ),
        }
    }
}

/// Creates the outgoing connectors, and the one to key servers of token issuers. TLS files are read only if a
/// configured address uses TLS.
#[cfg(feature = "tls")]
fn connectors(config: &Config) -> Result<(Connectors, Connector), StartError> {
    let connector = |is_tls: bool, settings: &ClientTls| match is_tls {
        true => Connector::with_tls(settings.clone()),
        false => Ok(Connector::default()),
    };
    let webhooks = config.settings.webhooks.rules.iter().map(|rule| rule.template.address());
    let fleet_speaks_tls =
        config.settings.advertise.iter().chain(&config.upstreams).chain(webhooks).any(Address::is_tls);
    let of_tables = config.access.tables.issuers.iter().flat_map(|issuer| &issuer.jwks);
    let issuers_speak_tls = config.access.tokens.jwks.iter().chain(of_tables).any(JwksSource::is_tls);
    // A reload of the configuration file may bring the first https:// key set.
    let issuers = connector(issuers_speak_tls || config.rules_file.is_some(), &config.issuer_tls);
    let issuers = if issuers_speak_tls { issuers? } else { issuers.unwrap_or_default() };
    let fleet = connector(fleet_speaks_tls, &config.upstream_tls)?;
    Ok((Connectors { fleet, resolver: config.resolver.clone() }, issuers))
}

#[cfg(not(feature = "tls"))]
fn connectors(config: &Config) -> Result<(Connectors, Connector), StartError> {
    Ok((Connectors { resolver: config.resolver.clone(), ..Connectors::default() }, Connector::default()))
}

/// Binds the admin port, or takes its inherited socket.
fn admin_listener(
    address: SocketAddr,
    sockets: &mut InheritedSockets,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |source| StartError::Listen { flag: "--admin", address, source };
    let listener = match sockets.take(address).pop() {
        Some(listener) => Ok(listener),
        None => shared_port::bind_alone(address),
    };
    let listener = listener.and_then(TcpListener::from_std).map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// Starts a thread for each shard, with its listeners and inbox.
fn start_shards(
    (shared, services): (&Arc<Shared>, &ShardServices),
    listeners: Vec<Vec<ShardListener>>,
    inboxes: Vec<Inbox>,
    stop: &CancellationToken,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let start = |(index, (listeners, inbox))| {
        let state = (shared.clone(), services.fleet.admission().clone(), Some(services.clone()));
        shard_thread::start(index, state, listeners, inbox, stop.clone()).map_err(StartError::Thread)
    };
    (0..).zip(listeners.into_iter().zip(inboxes)).map(start).collect()
}

/// Heartbeat of a node. It advances only while every shard does.
#[derive(Debug, Clone)]
pub struct Heartbeat(pub(super) Arc<Shared>);

impl Heartbeat {
    /// Seconds counted by the slowest shard.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.0.counters().iter().map(|counters| counters.ticks.get()).min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::key::{AccessKey, AccessKeys};

    use super::*;
    use crate::engine::shard::ShardSender;
    use crate::ground::config::Settings;

    #[test]
    fn one_hanging_shard_stops_the_heartbeat() {
        let keys = AccessKeys::new(vec![AccessKey::random()]).unwrap();
        let senders = (0..2).map(|_| ShardSender::new().0).collect();
        let shared = Shared::alone(Settings::embedded(keys, Vec::new(), true), senders);
        let heartbeat = Heartbeat(shared.clone());
        let tick = |shard| shared.counters_of(shard).ticks.increment();
        (0..2).for_each(tick);
        assert_eq!(heartbeat.ticks(), 1);
        tick(0);
        tick(0);
        assert_eq!(heartbeat.ticks(), 1);
        tick(1);
        assert_eq!(heartbeat.ticks(), 2);
    }
}
