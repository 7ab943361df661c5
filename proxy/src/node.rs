//! Composition: threads, listeners, upstreams, and the end of it all.
//!
//! ```text
//!  main thread: admin port, one watcher per upstream, signals
//!  shard threads: accept loop, inbox, ticks, client tasks, link tasks
//! ```

mod discover;
mod doors;
mod embedded;
mod handed;
mod instances;
mod listen;
mod pulse;
#[cfg(feature = "tls")]
mod reload;
pub(crate) mod thread;
pub(crate) mod upstream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use embedded::Embedded;
pub(crate) use handed::Handed;
pub(crate) use pulse::Pulse;

use doors::{Addresses, Doors};

use crate::admin::{Admin, Reach, Upstreams};
#[cfg(feature = "tls")]
use crate::auth::JwksSource;
#[cfg(feature = "tls")]
use crate::config::{Address, ClientTls};
use crate::config::{Config, DrainSettings};
#[cfg(feature = "tls")]
use crate::net::connector::Connector;
use crate::shard::delivery::Order;
use crate::shard::{ShardSender, Shared, Ways};

/// How long links may take to send what is queued when the node stops.
const LINKS_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a stopping node looks whether all have left.
const LEAVING_POLL: Duration = Duration::from_millis(20);

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address can't be listened on.
    #[error("{flag} {address}: {source}{}", advice(flag, source))]
    Listen {
        /// The flag that names it.
        flag: &'static str,
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A socket was handed over that no flag names.
    #[error(
        "a socket at {0} was handed over, but none of --listen, --tls-listen and --admin is {0}: name it by one of these, \
         or have it not handed over (`ListenStream=` of systemd's socket unit)"
    )]
    Stray(SocketAddr),
    /// TLS can't be spoken.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Tls(#[from] crate::net::tls::TlsError),
    /// No thread could be started.
    #[error("a thread can't be started: {0}")]
    Thread(#[source] io::Error),
}

fn advice(flag: &str, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => format!(" - something listens there already; choose another address with {flag}"),
        _ => String::new(),
    }
}

/// The ways out. What TLS needs is read only where somebody is known to speak it.
#[cfg(feature = "tls")]
fn ways(config: &Config) -> Result<Ways, StartError> {
    let way = |is_tls: bool, settings: &ClientTls| match is_tls {
        true => Connector::with_tls(settings.clone()),
        false => Ok(Connector::default()),
    };
    let fleet_speaks_tls = config.settings.advertise.iter().chain(&config.upstreams).any(Address::is_tls);
    let issuers_speak_tls = config.settings.tokens.jwks.iter().any(JwksSource::is_tls);
    Ok(Ways {
        fleet: way(fleet_speaks_tls, &config.upstream_tls)?,
        issuers: way(issuers_speak_tls, &config.issuer_tls)?,
    })
}

#[cfg(not(feature = "tls"))]
fn ways(_config: &Config) -> Result<Ways, StartError> {
    Ok(Ways::default())
}

/// A running proxy node: its shards, admin port and upstream watchers.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    listen: Addresses,
    admin: SocketAddr,
    drain: DrainSettings,
    threads: Vec<std::thread::JoinHandle<()>>,
    watchers: JoinSet<()>,
    stop: CancellationToken,
}

impl Node {
    /// Starts a node: when this returns, both ports are served.
    ///
    /// # Errors
    /// When an address is taken, or the system refuses a thread.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_on(Handed::default(), config).await
    }

    /// The same, on sockets that are open already as far as they have been handed over.
    ///
    /// # Errors
    /// When an address is taken, a socket has none of the addresses that are configured, or the system refuses a thread.
    pub async fn start_on(mut handed: Handed, config: Config) -> Result<Self, StartError> {
        let (doors, listen) = Doors::open(&config, &mut handed)?;
        let ways = ways(&config)?;
        let refused = |source| StartError::Listen { flag: "--admin", address: config.admin, source };
        let admin_listener = match handed.take(config.admin).pop() {
            Some(listener) => TcpListener::from_std(listener),
            None => TcpListener::bind(config.admin).await,
        }
        .map_err(refused)?;
        handed.none_is_left()?;
        let admin = admin_listener.local_addr().map_err(refused)?;
        let Config { upstreams, resolve_interval, resolver, shards, drain, settings, observer, .. } = config;
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..shards).map(|_| ShardSender::new()).unzip();
        let shared = Shared::new(settings, ways.clone(), senders);
        let stop = CancellationToken::new();
        let mut threads = Vec::new();
        for (index, (doors, inbox)) in (0..).zip(doors.of_shards.into_iter().zip(inboxes)) {
            threads.push(thread::start(index, shared.clone(), doors, inbox, stop.clone()).map_err(StartError::Thread)?);
        }
        let problems = Arc::new(Upstreams::default());
        let mut watchers = JoinSet::new();
        let fresh = shared.clone();
        watchers.spawn(async move { fresh.verifier.keep_fresh().await });
        for address in upstreams {
            watchers.spawn(discover::follow(
                shared.clone(),
                problems.clone(),
                address,
                resolver.clone(),
                resolve_interval,
            ));
        }
        #[cfg(feature = "tls")]
        watchers.spawn(reload::watch(shared.clone(), ways, doors.certificates));
        let reach = if admin.ip().is_loopback() { Reach::Machine } else { Reach::Network };
        let router = Admin { shared: shared.clone(), upstreams: problems, settings: observer, reach }.into_router();
        watchers.spawn(async move {
            if let Err(error) = axum::serve(admin_listener, router).await {
                warn!(%error, "the admin port is not served any more");
            }
        });
        if !shared.settings.relay.forward {
            info!("--no-forward: clients are offered WebSockets only, and no request is carried to another node");
        }
        info!(node = %shared.settings.node, listen = %listen.plain, tls = ?listen.tls, %admin, shards, "node started");
        Ok(Self { shared, listen, admin, drain, threads, watchers, stop })
    }

    #[must_use]
    /// Returns the address of the plain client listener.
    pub fn listen(&self) -> SocketAddr {
        self.listen.plain
    }

    /// Where clients connect with TLS.
    #[must_use]
    pub fn tls_listen(&self) -> Option<SocketAddr> {
        self.listen.tls
    }

    /// Where health, counters and metrics are served.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// By what it is seen that its threads live.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        Pulse(self.shared.clone())
    }

    /// Stops the node: load balancers turn away, clients are told to connect again, app servers learn that they left,
    /// links are closed.
    pub async fn stop(mut self) {
        self.shared.leave();
        let DrainSettings { grace, timeout: drain_timeout } = self.drain;
        if !grace.is_zero() {
            info!(
                clients = self.clients(),
                seconds = grace.as_secs(),
                "stopping: not ready, but serving for --drain-grace"
            );
            sleep(grace).await;
        }
        self.shared.drain();
        info!(
            clients = self.clients(),
            "stopping: no client is taken in any more, those here are told to connect again"
        );
        if timeout(drain_timeout, self.send_clients_away()).await.is_err() {
            warn!(clients = self.clients(), "some clients did not leave within --drain-timeout and are cut");
        }
        let pools: Vec<_> = self.shared.hubs.all().iter().flat_map(|hub| hub.pools().to_vec()).collect();
        self.watchers.abort_all();
        pools.iter().for_each(|pool| pool.retire());
        drop(timeout(LINKS_TIMEOUT, self.until(|_| pools.iter().all(|pool| pool.open() == 0))).await);
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
        info!("stopped");
    }

    /// Returns when all have left. Those that long polls carry have when they were told so by an answer.
    async fn send_clients_away(&self) {
        let spread = self.drain.spread();
        for shard in self.shared.shards() {
            shard.give(vec![Order::Drain(spread)], 0).await;
        }
        self.until(|node| node.clients() == 0 && node.shared.carried.is_empty()).await;
    }

    /// Sockets that have not ended, those of closing clients included.
    fn clients(&self) -> u64 {
        self.shared.sockets()
    }

    async fn until(&self, is_done: impl Fn(&Self) -> bool) {
        while !is_done(self) {
            sleep(LEAVING_POLL).await;
        }
    }
}
