//! Peers: the other nodes of the fleet, queried over node links.
//!
//! Each is queried for its own data (`scope=node`), so requests don't loop. A late node is shown with its last data.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use trunkline_protocol::fleet::SharedRevocation;

use super::node_inspector::NodeInspector;
use super::snapshot::{FleetSnapshot, NodeSnapshot, UnreachablePeer};
use super::snapshot_cache::Freshness;
use crate::fleet::{ANSWER_TIMEOUT, Answers, Fleet, FleetMember, MemberState, PeerRequest, PeerResponse, parts_of};
use crate::ground::clock::unix_ms;
use crate::ground::net::http_client::HttpClient;

/// Timeout for a node's snapshot. It keeps the page at most a second behind.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_millis(500);

/// Timeout for current numbers, used for decisions.
pub(super) const FRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of concurrent queries to all peers; further ones wait. On a loopback address, any local user may send
/// them.
const QUESTIONS_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Peers {
    pub(super) fleet: Fleet,
    /// Client for unbounded responses.
    client: HttpClient,
    /// Limits concurrent queries, each a request to every peer.
    questions: Semaphore,
    /// Last snapshot of each current member, by boot id.
    last: Mutex<HashMap<String, ReportedSnapshot>>,
}

/// Snapshot received from a peer, with its arrival time.
#[derive(Debug, Clone)]
struct ReportedSnapshot {
    node: NodeSnapshot,
    at: Instant,
}

impl ReportedSnapshot {
    /// Current age of the numbers.
    fn age_ms(&self) -> u64 {
        let since = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.node.age_ms.unwrap_or_default().saturating_add(since)
    }
}

#[derive(Debug, Default)]
pub(super) struct PeerSnapshots {
    pub(super) nodes: Vec<NodeSnapshot>,
    /// Names of nodes without an answer, shown with their last data.
    pub(super) missing: Vec<String>,
    /// Addresses without a node.
    pub(super) unreachable: Vec<UnreachablePeer>,
}

impl Peers {
    pub(super) fn new(fleet: Fleet) -> Self {
        let client = HttpClient::without_pool(fleet.members().channels());
        Self { fleet, client, questions: Semaphore::new(QUESTIONS_MAX), last: Mutex::default() }
    }

    pub(super) async fn snapshots(&self, freshness: Freshness) -> PeerSnapshots {
        let answers = match freshness {
            Freshness::Recent => self.fleet.request_all(&own_part(), SNAPSHOT_TIMEOUT).await,
            Freshness::Asked => self.fresh_answers().await,
        };
        let (mut last, mut missing) = (self.last(), Vec::new());
        last.retain(|boot, _| answers.iter().any(|(member, _)| member.boot() == boot));
        for (member, answer) in &answers {
            let fleet = answer.as_ref().ok().and_then(|answer| answer.read_body::<FleetSnapshot>().ok());
            match fleet.and_then(|fleet| fleet.nodes.into_iter().next()) {
                Some(node) => drop(last.insert(member.boot().into(), ReportedSnapshot { node, at: Instant::now() })),
                None => missing.push(member.name().to_owned()),
            }
        }
        let nodes = answers.iter().map(|(member, _)| self.shown(member, last.get(member.boot()))).collect();
        let unreachable = self.fleet.members().unreachable().into_iter();
        let unreachable =
            unreachable.map(|problem| UnreachablePeer { url: problem.address, problem: problem.text }).collect();
        PeerSnapshots { nodes, missing, unreachable }
    }

    /// Queries current numbers from all peers, including new ones.
    async fn fresh_answers(&self) -> Answers<PeerResponse> {
        // The semaphore is never closed.
        let _turn = self.questions.acquire().await;
        self.fleet.members().settled().await;
        let fresh = PeerRequest::get("/api/fleet?scope=node&fresh=1");
        self.fleet.request_all(&fresh, FRESH_TIMEOUT).await
    }

    fn shown(&self, member: &Arc<FleetMember>, last: Option<&ReportedSnapshot>) -> NodeSnapshot {
        let now_ms = self.fleet.members().now_ms();
        let age_ms = last.map(ReportedSnapshot::age_ms);
        NodeSnapshot {
            name: member.name().into(),
            instance: member.boot().into(),
            version: member.version().into(),
            state: match (member.state(now_ms), last) {
                (state @ (MemberState::Late | MemberState::Unreachable), _) => state,
                // The node's own recent snapshot is newer than its last broadcast state.
                (_, Some(told)) if told.at.elapsed() < SNAPSHOT_TIMEOUT => told.node.state,
                (state, _) => state,
            },
            lag_ms: member.links.lag_ms(now_ms),
            age_ms,
            ..last.map(|told| told.node.clone()).unwrap_or_default()
        }
    }

    /// Queries the peer with this boot id; `None` if it is unknown or does not answer.
    pub(super) async fn ask(&self, boot: &str, request: &PeerRequest) -> Option<PeerResponse> {
        let _turn = self.questions.acquire().await;
        let asked = vec![self.fleet.members().find(boot)?];
        let (_, answer) = self.fleet.request(asked, request, ANSWER_TIMEOUT).await.pop()?;
        answer.ok()
    }

    pub(super) async fn ask_all(&self, request: &PeerRequest) -> Answers<PeerResponse> {
        // The semaphore is never closed.
        let _turn = self.questions.acquire().await;
        self.fleet.request_all(request, ANSWER_TIMEOUT).await
    }

    /// Queries all peers; returns the parts of those that answer, and the names of the others.
    pub(super) async fn gather<T: DeserializeOwned>(&self, request: &PeerRequest) -> (Vec<T>, Vec<String>) {
        parts_of(self.ask_all(request).await)
    }

    /// Queries all peers; returns the part of one that has the resource.
    pub(super) async fn first_answer<T: DeserializeOwned>(&self, request: &PeerRequest) -> Option<T> {
        self.ask_all(request).await.iter().find_map(|(_, answer)| answer.as_ref().ok()?.read_body().ok())
    }

    /// Writes a revocation to the store. Returns whether the store has it; `None` without a store.
    pub(super) async fn keep_revocation(&self, told: &SharedRevocation) -> Option<bool> {
        match self.fleet.store() {
            Some(store) => Some(store.keep_revocation(told).await),
            None => None,
        }
    }

    /// Sends a request to one peer over its own channel; returns the response with a streaming body. Fails if there is
    /// no response; the text states why.
    pub(super) async fn open_stream(&self, member: &FleetMember, target: &str) -> Result<Response<Incoming>, String> {
        let address = member.address().ok_or("its address is unknown")?;
        let request = Request::get(target).body(Body::empty()).map_err(|error| error.to_string())?;
        self.client.send(&address, request).await.map_err(|error| error.to_string())
    }

    /// Sends a request to all peers concurrently, each over its own channel; returns the streaming response of the peer
    /// that has the resource.
    pub(super) async fn find(&self, target: &str) -> Option<Response<Incoming>> {
        let _turn = self.questions.acquire().await;
        let members = self.fleet.members().all();
        let answers = members.iter().map(async |member| {
            let request = Request::get(target).body(Body::from(Bytes::new())).ok()?;
            self.client.send(&*member.address()?, request).await.ok()
        });
        let answers = timeout(ANSWER_TIMEOUT, join_all(answers)).await.unwrap_or_default();
        let knows = |status| matches!(status, StatusCode::OK | StatusCode::TOO_MANY_REQUESTS);
        answers.into_iter().flatten().find(|answer| knows(answer.status()))
    }

    fn last(&self) -> MutexGuard<'_, HashMap<String, ReportedSnapshot>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn own_part() -> PeerRequest {
    PeerRequest::get("/api/fleet?scope=node")
}

pub(super) async fn gather_fleet(own: &NodeInspector, peers: &Peers, freshness: Freshness) -> FleetSnapshot {
    let others = peers.snapshots(freshness).await;
    // Last, so that its numbers are at least as recent as the others'.
    merge(own.snapshot(freshness).await, others, peers.fleet.members().agrees())
}

/// Sorts the snapshots and removes duplicates of an instance.
fn merge(own: Option<NodeSnapshot>, others: PeerSnapshots, agree: bool) -> FleetSnapshot {
    let PeerSnapshots { nodes: others, missing, unreachable } = others;
    let mut nodes: Vec<NodeSnapshot> = own.into_iter().collect();
    for other in others {
        if nodes.iter().all(|known| known.instance != other.instance) {
            nodes.push(other);
        }
    }
    nodes.sort_by(|one, other| (&one.name, &one.instance).cmp(&(&other.name, &other.instance)));
    FleetSnapshot { at_ms: unix_ms(), nodes, agree, unreachable, missing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::observer::snapshot::UnreachablePeer;

    #[test]
    fn nodes_are_sorted_by_name_and_an_instance_is_shown_once() {
        let node = |name: &str, instance: &str| NodeSnapshot {
            name: name.into(),
            instance: instance.into(),
            ..NodeSnapshot::default()
        };
        let others = vec![node("c", "3"), node("b", "2"), node("a", "1"), node("c", "3")];
        let others =
            PeerSnapshots { nodes: others, missing: Vec::new(), unreachable: vec![UnreachablePeer::default()] };
        let fleet = merge(Some(node("b", "2")), others, true);
        let shown: Vec<_> = fleet.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!((shown, fleet.unreachable.len()), (vec!["a", "b", "c"], 1));
    }
}
