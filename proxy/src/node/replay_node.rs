//! Node of a replay: without a listener or admin port, with one link per hub, and clients that are in-process pipes.
//!
//! Its clients start with a ready open frame, so no token or user is verified. With a single link, the order of
//! messages from the app server is as deterministic as the app.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::service::OpenConnection;

use super::graceful_stop::close_links;
use super::shard_thread;
use super::start_error::StartError;
use super::upstream_set::UpstreamSet;
use crate::auth::ClientTerms;
use crate::config::Settings;
use crate::fleet::NodeStores;
use crate::net::address::Address;
use crate::net::connector::Connector;
use crate::net::resolver::Resolver;
use crate::net::tls::ClientTls;
use crate::observer::UpstreamProblems;
use crate::shard::{ClientStream, Connectors, PendingConnection, ShardMessage, ShardSender, Shared};
use crate::upstream::Hub;

/// Buffer of a client's pipe in each direction, in bytes.
const PIPE_BYTES: usize = 256 * 1024;

/// Poll interval while waiting for a hub to be served.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Running node without listeners, for one upstream.
#[derive(Debug)]
pub struct ReplayNode {
    shared: Arc<Shared>,
    shard: ShardSender,
    upstream: Address,
    problems: Arc<UpstreamProblems>,
    background: JoinSet<()>,
    stop: CancellationToken,
}

/// Opening of a client, as sent to its app server.
#[derive(Debug)]
pub struct ReplayedOpening {
    /// Id of the connection.
    pub connection: String,
    /// User of the connection.
    pub user: Option<String>,
    /// Claims of the user.
    pub claims: Vec<(String, String)>,
    /// Headers of the first request.
    pub headers: Vec<(String, Vec<String>)>,
    /// Query of the first request.
    pub query: Option<String>,
}

/// Reason why no client can connect to a hub.
#[derive(Debug, thiserror::Error)]
pub enum ReplayHubError {
    /// No link opened in time.
    #[error("no app server at {upstream} in {} s: {problem}", .limit.as_secs())]
    Unreachable {
        /// Address of the app server.
        upstream: Address,
        /// Time limit for the link.
        limit: Duration,
        /// Error of the last attempt.
        problem: String,
    },
    /// The app server has only other hubs.
    #[error("the app server has no hub {hub:?}, only {known}")]
    Unknown {
        /// Requested name of the hub.
        hub: String,
        /// Existing names, separated by commas.
        known: String,
    },
}

impl ReplayNode {
    /// Starts a node that dials this upstream.
    ///
    /// # Errors
    /// If TLS can't be set up, or a thread can't be created.
    pub fn start(settings: Settings, upstream: Address) -> Result<Self, StartError> {
        let fleet = match upstream.is_tls() {
            true => Connector::with_tls(ClientTls::default())?,
            false => Connector::default(),
        };
        let (shard, inbox) = ShardSender::new();
        let connectors = Connectors { fleet, ..Connectors::default() };
        let stores = NodeStores::with_keys_alone(&settings);
        let shared =
            Shared::new(Settings { pool_size: 1, ..settings }, stores.seams(), connectors, vec![shard.clone()]);
        let stop = CancellationToken::new();
        drop(
            shard_thread::start(0, (shared.clone(), stores.admission, None), Vec::new(), inbox, stop.clone())
                .map_err(StartError::Thread)?,
        );
        let problems = Arc::new(UpstreamProblems::default());
        let mut background = JoinSet::new();
        let wanted = vec![(shared.hubs.groups().default_one(), upstream.clone())];
        let mut upstreams = UpstreamSet::new(shared.clone(), problems.clone(), Resolver::default(), Duration::ZERO);
        background.spawn(async move {
            upstreams.want(wanted);
            loop {
                upstreams.next_end().await;
            }
        });
        Ok(Self { shared, shard, upstream, problems, background, stop })
    }

    /// Finds a hub by name, once its app server is linked.
    ///
    /// # Errors
    /// If the app server is unreachable within `limit` or has no such hub.
    pub async fn hub(&self, name: &str, limit: Duration) -> Result<Arc<Hub>, ReplayHubError> {
        let until = Instant::now() + limit;
        loop {
            let hub = self.shared.hubs.named(name);
            if let Some(hub) = hub.as_ref().filter(|hub| hub.is_served()) {
                return Ok(hub.clone());
            }
            if hub.is_none() && !self.shared.hubs.is_empty() {
                let hubs = self.shared.hubs.all();
                let known: Vec<_> = hubs.iter().map(|hub| hub.name()).collect();
                return Err(ReplayHubError::Unknown { hub: name.into(), known: known.join(", ") });
            }
            if Instant::now() >= until {
                let problem =
                    self.problems.list().pop().map_or_else(|| "no link opens".into(), |(_, problem)| problem.text);
                return Err(ReplayHubError::Unreachable { upstream: self.upstream.clone(), limit, problem });
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Connects a client to a hub; returns the client's end of a WebSocket. `None` if the id was used before.
    #[must_use]
    pub fn connect(&self, hub: &Arc<Hub>, opening: ReplayedOpening) -> Option<DuplexStream> {
        self.shared.routes.reserve(&opening.connection).ok()?;
        let (near, far) = duplex(PIPE_BYTES);
        let text = ByteString::from;
        let pair = |(name, value): (String, String)| (text(name), text(value));
        let header = |(name, all): (String, Vec<String>)| (text(name), all.into_iter().map(text).collect());
        let open = OpenConnection {
            connection_id: opening.connection.into(),
            claims: opening.claims.into_iter().map(pair).collect(),
            headers: opening.headers.into_iter().map(header).collect(),
            query: opening.query.map(text),
            protocol: None,
        };
        let pending = PendingConnection {
            stream: Some(ClientStream::Memory(near)),
            // The original transport is irrelevant; the app server reads it from the headers.
            transport: Transport::WebSockets,
            hub: hub.clone(),
            open,
            is_negotiated: false,
            user: opening.user,
            permit: None,
            head: None,
            expires_s: None,
            terms: ClientTerms::default(),
            wants_stateful: false,
            verified_at: None,
            restores: None,
            claimed: None,
            group: None,
            trace: None,
        };
        self.shard.put(ShardMessage::Accept(Box::new(pending)));
        Some(far)
    }

    /// Stops the node and notifies the app server of the clients' ends.
    pub async fn stop(mut self) {
        self.background.abort_all();
        let pools: Vec<_> = self.shared.hubs.all().iter().flat_map(|hub| hub.pools().to_vec()).collect();
        close_links(&pools).await;
        self.stop.cancel();
    }
}
