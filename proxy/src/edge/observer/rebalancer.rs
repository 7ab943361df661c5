//! Rebalance: an operator moves clients away from nodes that have more than others.
//!
//! ```text
//!  each second: client numbers of all nodes ──► plan ──► orders ─┬─► shards of this node ──► clients reconnect elsewhere
//!                                                                └─► other nodes: likewise
//! ```
//!
//! The node that receives the request coordinates alone. If it stops, no node sheds further clients, because an order
//! covers one second only.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;
use trunkline_protocol::id::random_bytes;

use super::api_error::ApiError;
use super::node_inspector::NodeInspector;
use super::peer;
use super::peer::{FRESH_TIMEOUT, Peers};
use super::rebalance_board::RebalanceBoard;
use super::rebalance_plan::{RebalanceGoal, RebalanceLoad, RebalancePlan, Round, ShedOrder, portions};
use super::snapshot::{FleetSnapshot, MissingCount, NodeSnapshot, RebalanceReport, RebalanceState};
use super::snapshot_cache::{Freshness, SnapshotCache};
use crate::engine::shard::Shared;
use crate::features::inspection::Inspector;
use crate::fleet::{MemberState, PeerRequest};
use crate::ground::clock::unix_ms;

/// Interval between rounds. A round's sheds finish earlier.
const ROUND: Duration = Duration::from_secs(1);

/// Maximum number of clients shed per second by all nodes together.
pub(crate) const SHED_PER_SECOND_MAX: u64 = 10_000;

/// Path of requests between nodes.
pub(crate) const SHED_PATH: &str = "/api/rebalance/shed";
pub(crate) const STOP_PATH: &str = "/api/rebalance/stop";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RebalanceRequest {
    pub(crate) goal: RebalanceGoal,
    /// Maximum number of clients shed per second by all nodes together.
    pub(crate) per_second: u64,
    /// Whether to plan only.
    pub(crate) is_dry_run: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ShedAnswer {
    /// Clients that will reconnect elsewhere within a second.
    pub(crate) clients: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Rebalancer(Arc<RebalancerParts>);

#[derive(Debug)]
struct RebalancerParts {
    shared: Arc<Shared>,
    node: Arc<NodeInspector>,
    peers: Arc<Peers>,
    fleet: SnapshotCache<FleetSnapshot>,
    board: RebalanceBoard,
}

impl Rebalancer {
    pub(super) fn new(
        shared: Arc<Shared>,
        (node, peers): (Arc<NodeInspector>, Arc<Peers>),
        fleet: SnapshotCache<FleetSnapshot>,
        board: RebalanceBoard,
    ) -> Self {
        Self(Arc::new(RebalancerParts { shared, node, peers, fleet, board }))
    }

    /// Starts or, for a dry run, only plans a rebalance; returns its plan. Fails if another rebalance is running in the
    /// fleet, or the goal is unreachable.
    pub(crate) async fn begin_rebalance(&self, request: RebalanceRequest) -> Result<RebalanceReport, ApiError> {
        self.0.clone().begin_rebalance(request).await
    }

    /// Progress of this node's rebalance; idle if there was none.
    pub(crate) fn own(&self) -> RebalanceReport {
        self.0.board.report().unwrap_or_default()
    }

    /// Progress of the fleet's current or last rebalance, as recorded by any node.
    pub(crate) async fn report(&self) -> RebalanceReport {
        let own = self.own();
        if own.state == RebalanceState::Running {
            return own;
        }
        let all = self.0.of_others().await.into_iter().chain([own]);
        all.max_by_key(|report| (report.state == RebalanceState::Running, report.begun_ms)).unwrap_or_default()
    }

    /// Stops this node's rebalance; `None` if none is running.
    pub(crate) fn stop_own(&self) -> Option<RebalanceReport> {
        let stopped = self.0.board.stop("stopped by an operator")?;
        told("stopped", &stopped);
        Some(stopped)
    }

    /// Stops the fleet's rebalance; `None` if none is running.
    pub(crate) async fn stop(&self) -> Option<RebalanceReport> {
        if let Some(stopped) = self.stop_own() {
            return Some(stopped);
        }
        let request = PeerRequest::post(STOP_PATH, Bytes::from_static(b"{}"));
        self.0.peers.first_answer(&request).await
    }

    /// Makes some clients of this node reconnect elsewhere within a second, for a rebalance coordinated by another
    /// node.
    pub(crate) async fn shed(&self, clients: u64) -> ShedAnswer {
        ShedAnswer { clients: shed(&self.0.shared, clients).await }
    }
}

impl RebalancerParts {
    async fn begin_rebalance(self: Arc<Self>, request: RebalanceRequest) -> Result<RebalanceReport, ApiError> {
        let fleet = peer::gather_fleet(&self.node, &self.peers, Freshness::Asked).await;
        let (loads, missing, goal) = (loads(&fleet), missing_nodes(&fleet), request.goal);
        let unknown = unknown(&missing);
        let plan = RebalancePlan::new(goal.clone(), request.per_second, &loads);
        let plan = plan.map_err(|problem| ApiError::field("node", problem))?;
        let report = RebalanceReport {
            id: format!("{:016x}", u64::from_ne_bytes(random_bytes())),
            node: self.shared.settings.node.clone(),
            to: goal.label().into(),
            planned: plan.planned(),
            state: if request.is_dry_run { RebalanceState::Planned } else { RebalanceState::Running },
            begun_ms: unix_ms(),
            missing: missing.into_iter().chain(missing_addresses(&fleet)).collect(),
            ..RebalanceReport::default()
        };
        if request.is_dry_run {
            return Ok(report);
        }
        // Registers before querying other nodes: two rebalances that start together see each other, and neither runs.
        let stop = self.board.claim(report.clone()).map_err(|other| running(&other))?;
        let others = self.of_others().await;
        if let Some(other) = others.into_iter().find(|report| report.state == RebalanceState::Running) {
            self.board.withdraw();
            return Err(running(&other));
        }
        told("begun", &report);
        let id = report.id.clone();
        if plan.planned() == 0 {
            let state = if unknown.is_none() { RebalanceState::Done } else { RebalanceState::Stalled };
            let ended = self.board.update(&id, |report| (report.state, report.reason) = (state, unknown));
            return Ok(ended.unwrap_or(report));
        }
        tokio::spawn(async move { self.run(&id, plan, &stop).await });
        Ok(report)
    }

    async fn run(&self, id: &str, mut plan: RebalancePlan, stop: &CancellationToken) {
        loop {
            let round = async {
                let is_over = self.round(id, &mut plan).await;
                sleep(ROUND).await;
                is_over
            };
            let is_over = tokio::select! {
                () = stop.cancelled() => true,
                is_over = round => is_over,
            };
            if is_over {
                return;
            }
        }
    }

    /// Runs one round; returns `true` after the last one.
    async fn round(&self, id: &str, plan: &mut RebalancePlan) -> bool {
        let loads = match self.loads().await {
            Some(loads) if !self.shared.has_begun_drain() => loads,
            _ => {
                self.board.stop("the coordinating node stops");
                return true;
            }
        };
        let round = plan.round(&loads);
        let is_over = matches!(round, Round::End(..));
        let progress = |report: &mut RebalanceReport| {
            (report.moved, report.failed) = (plan.moved(), plan.failed(is_over));
            if let Round::End(state, reason) = &round {
                (report.state, report.reason) = (*state, reason.clone());
            }
        };
        let report = self.board.update(id, progress);
        match round {
            Round::Shed(orders) => {
                let (clients, refusal) = self.order(&orders).await;
                plan.handle_sheds(clients, refusal);
                false
            }
            Round::End(..) => {
                report.iter().for_each(|report| told("ended", report));
                true
            }
        }
    }

    /// Sends orders to nodes; returns the number of clients they shed, and the last refusal.
    async fn order(&self, orders: &[ShedOrder]) -> (u64, Option<String>) {
        let answers = join_all(orders.iter().map(|order| self.give(order))).await;
        let mut sum = (0, None);
        for (order, answer) in orders.iter().zip(answers) {
            match answer {
                Ok(clients) => sum.0 += clients,
                Err(problem) => sum.1 = Some(format!("{} can't move clients away: {problem}", order.name)),
            }
        }
        sum
    }

    async fn give(&self, order: &ShedOrder) -> Result<u64, String> {
        if order.instance == self.shared.boot {
            return Ok(shed(&self.shared, order.clients).await);
        }
        let body = json!({ "clients": order.clients }).to_string();
        let answer = self.peers.ask(&order.instance, &PeerRequest::post(SHED_PATH, Bytes::from(body))).await;
        let answer: ShedAnswer = answer.ok_or("it does not answer")?.read_body()?;
        Ok(answer.clients.min(order.clients))
    }

    /// Loads of all nodes that accept clients; `None` during shutdown.
    async fn loads(&self) -> Option<Vec<RebalanceLoad>> {
        Some(loads(&*self.fleet.get(Freshness::Recent).await?))
    }

    /// Current or last rebalances coordinated by other nodes.
    async fn of_others(&self) -> Vec<RebalanceReport> {
        self.peers.gather(&PeerRequest::get("/api/rebalance?scope=node")).await.0
    }
}

/// Refusal of a second rebalance.
fn running(other: &RebalanceReport) -> ApiError {
    let stop = "stop it by DELETE /api/rebalance, or by Ctrl-C where it was started";
    ApiError::new(StatusCode::CONFLICT, format!("a rebalance is already running, at {}: {stop}", other.node))
}

/// Loads of the nodes that accept clients and have reported numbers.
fn loads(fleet: &FleetSnapshot) -> Vec<RebalanceLoad> {
    fleet.nodes.iter().filter(|node| is_load(node)).map(load).collect()
}

/// Whether a node accepts clients and has reported its load. A node that has never answered has no time.
fn is_load(node: &NodeSnapshot) -> bool {
    node.state == MemberState::Ready && node.at_ms > 0
}

/// Nodes without current numbers, or not accepting clients without draining.
fn missing_nodes(fleet: &FleetSnapshot) -> Vec<MissingCount> {
    let problem = |node: &NodeSnapshot| match node.state {
        MemberState::Draining => None,
        MemberState::Starting => Some("is starting, and does not accept clients yet".to_owned()),
        MemberState::Late | MemberState::Unreachable => Some(format!("is {}", node.state.label())),
        MemberState::Ready if fleet.missing.contains(&node.name) => {
            Some(format!("has not asked its clients to reconnect within {} s", FRESH_TIMEOUT.as_secs()))
        }
        MemberState::Ready => None,
    };
    let missing = |node: &NodeSnapshot| {
        let age_ms = node.age_ms.filter(|_| is_load(node));
        Some(MissingCount { node: node.name.clone(), problem: problem(node)?, age_ms })
    };
    fleet.nodes.iter().filter_map(missing).collect()
}

/// `--peers` addresses without a node; another node may still reach one there.
fn missing_addresses(fleet: &FleetSnapshot) -> impl Iterator<Item = MissingCount> {
    fleet.unreachable.iter().map(|peer| {
        let problem = format!("does not lead to a node: {}", peer.problem);
        MissingCount { node: peer.url.clone(), problem, age_ms: None }
    })
}

/// Reason why a plan without moves is not a success; `None` if all numbers are known.
fn unknown(missing: &[MissingCount]) -> Option<String> {
    let all: Vec<_> = missing.iter().map(|count| format!("{} {}", count.node, count.problem)).collect();
    (!all.is_empty())
        .then(|| format!("nodes with too many clients have not asked them to reconnect: {}", all.join("; ")))
}

fn load(node: &NodeSnapshot) -> RebalanceLoad {
    RebalanceLoad {
        name: node.name.clone(),
        instance: node.instance.clone(),
        present: node.clients.saturating_sub(node.away),
        away: node.away.min(node.clients),
        at_ms: node.at_ms,
    }
}

/// Makes the shards of this node shed clients in proportion to their numbers; returns the total.
async fn shed(shared: &Shared, clients: u64) -> u64 {
    let shards = shared.shards();
    let counts = shards.iter().map(|shard| shard.inspect(|state| Inspector::at_shard(state).census().total()));
    let counts: Vec<u64> = join_all(counts).await.into_iter().map(Option::unwrap_or_default).collect();
    let begun = shards.iter().zip(portions(clients, &counts)).map(|(shard, portion)| {
        let portion = usize::try_from(portion).unwrap_or(usize::MAX);
        shard.inspect(move |state| state.shed(portion))
    });
    join_all(begun).await.into_iter().flatten().map(|clients| clients as u64).sum()
}

fn told(what: &str, report: &RebalanceReport) {
    let RebalanceReport { id, to, planned, moved, failed, reason, .. } = report;
    info!(id, to, planned, moved, failed, reason = reason.as_deref(), "rebalance {what}");
}
