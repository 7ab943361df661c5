//! The observer: snapshots of this node and the fleet, client lists and taps, served on the admin port.
//!
//! ```text
//!  page, top, curl ──► fleet ─┬─► this node: counters, and shards in short steps
//!                             └─► other nodes, over node links: the request with scope=node
//! ```
//!
//! Apart from timeline samples, data is gathered only on request. Concurrent callers share one snapshot.

mod act;
mod announcement;
mod api_error;
mod client_tap;
mod condition_list;
mod connection_events;
mod fleet_trace;
mod group_order;
mod list_page;
mod node_inspector;
mod node_snapshot;
mod node_trace;
mod node_watch;
mod peer;
mod process_stats;
mod readiness;
mod rebalance_board;
mod rebalance_plan;
mod rebalancer;
mod record_editor;
mod revoker;
mod rule_snapshot;
mod snapshot;
mod snapshot_cache;
mod timeline;
mod timeline_mark;
mod timeline_sampler;
mod trace_line;

use std::sync::Arc;

use axum::http::Response;
use bytes::Bytes;
use http::StatusCode;
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::fleet::{Fleet, PeerRequest};
use crate::ground::clock::unix_ms;

use announcement::Announcer;
use group_order::GroupEditor;
use list_page::{ClientCursor, NameSum};
use node_inspector::NodeInspector;
use peer::Peers;
use rebalance_board::RebalanceBoard;
use rebalancer::Rebalancer;
use record_editor::RecordEditor;
use revoker::Revoker;
use snapshot_cache::SnapshotCache;
use timeline::SAMPLE_INTERVAL_MS;
use timeline_sampler::TimelineKeeper;

pub(crate) use announcement::Announcement;
pub use announcement::AnnouncementReport;
pub(crate) use api_error::ApiError;
pub(crate) use client_tap::ClientTap;
pub use condition_list::{ConditionSnapshot, FleetConditions};
pub(crate) use fleet_trace::FleetTrace;
#[cfg(test)]
pub(crate) use group_order::GroupReport;
pub(crate) use group_order::{GroupOrder, GroupStep};
pub use list_page::ListPage;
pub(crate) use list_page::{ClientFilter, NameKind, NamePage};
pub(crate) use node_snapshot::unassigned_clients;
pub(crate) use node_trace::NodeTrace;
pub use node_trace::{TRACE_SECONDS_DEFAULT, TRACE_SECONDS_MAX};
pub(crate) use node_watch::{PayloadView, WatchChoice, WatchError, WatchLines};
pub(crate) use readiness::{Readiness, UpstreamProblem, UpstreamProblems};
pub(crate) use rebalance_plan::RebalanceGoal;
pub(crate) use rebalancer::{RebalanceRequest, SHED_PATH, SHED_PER_SECOND_MAX, STOP_PATH, ShedAnswer};
pub(crate) use record_editor::RecordOrder;
pub use record_editor::{RecordReport, RecordRow};
pub(crate) use revoker::{REVOKE_OWN_PATH, RevocationOrder, RevokedAnswer};
pub use revoker::{RevocationList, RevocationReport, RevokedTokens};
pub(crate) use snapshot::{ClientDetails, ClientSummary};
pub use snapshot::{
    FleetSnapshot, HubSnapshot, MissingCount, NodeSnapshot, PoolSnapshot, Rates, RebalanceReport, RebalanceState,
    StoreSnapshot, UnreachablePeer, WebhookSnapshot,
};
pub(crate) use snapshot_cache::Freshness;
pub use timeline::{FleetTimeline, NodeTimeline};
pub use timeline_mark::{PartyChange, TimelineMark, TimelineParty};
pub use trace_line::{
    TraceConnectionLine, TraceHeader, TraceHopLine, TraceLine, TraceMessageLine, TraceNodeLine, TraceNodeState,
};

/// Maximum number of event streams open on a node.
pub(crate) const STREAMS_MAX: usize = 32;

/// Request target of a peer's own timeline.
const TIMELINE_OF_NODE: &str = "/api/timeline?scope=node";

#[derive(Debug, Clone)]
pub(crate) struct Observer {
    pub(crate) node: Arc<NodeInspector>,
    peers: Arc<Peers>,
    pub(crate) announcer: Announcer,
    pub(crate) groups: GroupEditor,
    pub(crate) rebalancer: Rebalancer,
    pub(crate) records: RecordEditor,
    pub(crate) revoker: Revoker,
    fleet: SnapshotCache<FleetSnapshot>,
    timeline: Arc<TimelineKeeper>,
    streams: Arc<Semaphore>,
}

impl Observer {
    /// Starts the snapshot caches and the timeline. Needs a runtime.
    pub(crate) fn new(readiness: Readiness, fleet: Fleet) -> Self {
        let (shared, board) = (readiness.shared.clone(), RebalanceBoard::default());
        let announcer = Announcer::new(fleet.clone());
        let groups = GroupEditor::new(&fleet, shared.settings.groups.name_max_bytes);
        let records = RecordEditor::new(&fleet);
        let timeline = Arc::new(TimelineKeeper::start(shared.clone(), fleet.clone()));
        let revocations = fleet.admission().revocations.clone();
        let peers = Arc::new(Peers::new(fleet));
        let node = Arc::new(NodeInspector::new(readiness, board.clone()));
        let sources = (node.clone(), peers.clone());
        let fleet =
            SnapshotCache::new(sources, |(node, peers)| Box::pin(peer::gather_fleet(node, peers, Freshness::Recent)));
        let revoker = Revoker::new(revocations, node.clone(), peers.clone());
        let rebalancer = Rebalancer::new(shared, (node.clone(), peers.clone()), fleet.clone(), board);
        let streams = Arc::new(Semaphore::new(STREAMS_MAX));
        Self { node, peers, announcer, groups, rebalancer, records, revoker, fleet, timeline, streams }
    }

    /// Returns a snapshot of this node and its peers; `None` during shutdown.
    pub(crate) async fn fleet(&self) -> Option<Arc<FleetSnapshot>> {
        self.fleet.get(Freshness::Recent).await
    }

    /// Queries current numbers from all nodes. Takes some seconds if nodes are new or do not answer.
    pub(crate) async fn fresh_fleet(&self) -> FleetSnapshot {
        peer::gather_fleet(&self.node, &self.peers, Freshness::Asked).await
    }

    /// Returns the conditions of all nodes: active ones, and ended ones of the last day.
    pub(crate) async fn conditions(&self) -> FleetConditions {
        let request = PeerRequest::get("/api/conditions?scope=node");
        let (parts, missing) = self.peers.gather::<FleetConditions>(&request).await;
        let mut all = FleetConditions { missing, ..self.own_conditions() };
        all.conditions.extend(parts.into_iter().flat_map(|part| part.conditions));
        all.sort();
        all
    }

    pub(crate) fn own_conditions(&self) -> FleetConditions {
        let shared = &self.node.shared;
        FleetConditions::of_node(&shared.settings.node, &shared.reports.conditions)
    }

    /// Returns the timelines of all nodes since a time in milliseconds since 1970.
    pub(crate) async fn timeline(&self, since_ms: u64) -> FleetTimeline {
        let request = PeerRequest::get(format!("{TIMELINE_OF_NODE}&since={since_ms}"));
        let (parts, missing) = self.peers.gather::<FleetTimeline>(&request).await;
        let mut all = FleetTimeline { missing, ..self.own_timeline(since_ms) };
        all.nodes.extend(parts.into_iter().flat_map(|part| part.nodes));
        all.nodes.sort_by(|one, other| (&one.name, &one.instance).cmp(&(&other.name, &other.instance)));
        all
    }

    pub(crate) fn own_timeline(&self, since_ms: u64) -> FleetTimeline {
        let nodes = vec![self.timeline.since(since_ms)];
        FleetTimeline { at_ms: unix_ms(), step_ms: SAMPLE_INTERVAL_MS, nodes, missing: Vec::new() }
    }

    /// Returns a permit for an event stream; `None` at the limit.
    #[must_use]
    pub(crate) fn stream(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }

    /// Lists client connections of all nodes, node by node; `None` if no node has the hub.
    pub(crate) async fn clients(&self, filter: &ClientFilter) -> Option<ListPage<ClientSummary>> {
        let (fleet, after) = (self.fleet().await?, filter.after.clone().unwrap_or_default());
        let (mut page, mut is_known) = (ListPage::default(), false);
        for node in &fleet.nodes {
            let is_behind = (&node.name, &node.instance) < (&after.node, &after.instance);
            if is_behind || filter.node.as_ref().is_some_and(|name| *name != node.name) {
                continue;
            }
            let start = ClientCursor::start_of(&node.name, &node.instance);
            if page.items.len() >= filter.limit {
                page.next.get_or_insert_with(|| start.to_string());
                break;
            }
            let limit = filter.limit - page.items.len();
            let part = ClientFilter { after: Some(after.clone().max(start)), limit, ..filter.clone() };
            let found = match node.instance == self.node.shared.boot {
                true => self.node.clients(&part).await,
                false => self.clients_of(&node.instance, &part).await,
            };
            let Some(mut found) = found else { continue };
            is_known = true;
            page.items.append(&mut found.items);
            page.next = found.next;
            if page.next.is_some() {
                break;
            }
        }
        is_known.then_some(page)
    }

    async fn clients_of(&self, instance: &str, filter: &ClientFilter) -> Option<ListPage<ClientSummary>> {
        let after = filter.after.as_ref().map(ClientCursor::to_string);
        let given = [
            ("hub", filter.hub.as_deref()),
            ("group", filter.group.as_deref()),
            ("user", filter.user.as_deref()),
            ("after", after.as_deref()),
        ];
        let request = PeerRequest::get(list_target("clients", filter.limit, &given));
        self.peers.ask(instance, &request).await?.read_body().ok()
    }

    /// Lists groups or users of a hub across all nodes; `None` if no node has the hub.
    pub(crate) async fn names(
        &self,
        kind: NameKind,
        hub: &str,
        after: Option<String>,
        limit: usize,
    ) -> Option<NamePage> {
        // One extra row shows whether there is another page.
        let target = list_target(kind.path(), limit + 1, &[("hub", Some(hub)), ("after", after.as_deref())]);
        let request = PeerRequest::get(target);
        let others = self.peers.gather::<NamePage>(&request);
        let (own, (others, _)) = tokio::join!(self.node.names(kind, hub, after, limit + 1), others);
        let pages: Vec<NamePage> = own.into_iter().chain(others).collect();
        if pages.is_empty() {
            return None;
        }
        let mut sum = NameSum::default();
        pages.into_iter().for_each(|page| sum.add_names(page.items));
        Some(sum.into_page(limit))
    }

    pub(crate) async fn client(&self, id: &str) -> Option<ClientDetails> {
        if let Some(details) = self.node.client(id).await {
            return Some(details);
        }
        self.peers.first_answer(&PeerRequest::get(format!("/api/clients/{}?scope=node", quoted(id)))).await
    }

    /// Closes a client connection at any node; `false` if not found.
    pub(crate) async fn close_client(&self, id: &str, reason: Option<String>) -> bool {
        if self.node.close_client(id, reason.clone()).await {
            return true;
        }
        let target = format!("/api/clients/{}/close?scope=node", quoted(id));
        let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
        let request = PeerRequest::post(target, Bytes::from(body.to_string()));
        let answers = self.peers.ask_all(&request).await;
        answers.iter().flat_map(|(_, answer)| answer).any(|answer| answer.status == StatusCode::OK)
    }

    /// Returns any node's record of a connection: open, or how it ended.
    pub(crate) async fn past(&self, id: &str) -> Option<Value> {
        if let Some(past) = self.node.past(id) {
            return Some(past);
        }
        self.peers.first_answer(&PeerRequest::get(format!("/api/why/{}?scope=node", quoted(id)))).await
    }

    /// Opens a tap on a client connection of this node, with a stream permit. Fails if the connection is not here, or a
    /// limit is reached.
    pub(crate) async fn tap(
        &self,
        id: &str,
        payloads: PayloadView,
    ) -> Result<(ClientTap, OwnedSemaphorePermit), WatchError> {
        if !self.node.has(id) {
            return Err(WatchError::UnknownClient);
        }
        self.with_permit(self.node.tap(id, payloads)).await
    }

    /// Returns the event stream of the peer that taps the client.
    pub(crate) async fn tap_of_peer(&self, id: &str, payloads: PayloadView) -> Option<Response<Incoming>> {
        let target = format!("/api/clients/{}/watch?scope=node&payloads={}", quoted(id), payloads.label());
        self.peers.find(&target).await
    }

    /// Starts a live trace of this node, with a stream permit. Fails if the hub is unknown here, or a limit is reached.
    pub(crate) async fn trace_node(
        &self,
        choice: &WatchChoice,
    ) -> Result<(NodeTrace, OwnedSemaphorePermit), WatchError> {
        self.with_permit(NodeTrace::open_trace(&self.node.shared, choice)).await
    }

    /// Starts a live trace of all nodes, with a stream permit.
    ///
    /// # Errors
    /// Errors of [`trace_node`](Self::trace_node) at this node.
    pub(crate) async fn trace(&self, choice: WatchChoice) -> Result<(FleetTrace, OwnedSemaphorePermit), WatchError> {
        let (own, permit) = self.trace_node(&choice).await?;
        Ok((FleetTrace::new(self.peers.clone(), own, choice), permit))
    }

    async fn with_permit<T>(
        &self,
        open: impl Future<Output = Result<T, WatchError>>,
    ) -> Result<(T, OwnedSemaphorePermit), WatchError> {
        let too_many = || WatchError::TooMany(format!("{STREAMS_MAX} streams are already open, which is the limit"));
        let permit = self.stream().ok_or_else(too_many)?;
        Ok((open.await?, permit))
    }
}

/// Builds the target of a peer's own part of a list.
fn list_target(list: &str, limit: usize, given: &[(&str, Option<&str>)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("scope", "node").append_pair("limit", &limit.to_string());
    query.extend_pairs(given.iter().filter_map(|(name, value)| Some((name, (*value)?))));
    format!("/api/{list}?{}", query.finish())
}

fn quoted(id: &str) -> String {
    utf8_percent_encode(id, NON_ALPHANUMERIC).to_string()
}

/// Serializes a value as one line.
#[must_use]
pub fn json_line(line: &impl Serialize) -> String {
    // Strings, numbers and lists always serialize.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_asked_for_its_own_part_with_every_value_encoded() {
        let given = [("hub", Some("a b")), ("group", None), ("user", Some("&?"))];
        assert_eq!(list_target("clients", 50, &given), "/api/clients?scope=node&limit=50&hub=a+b&user=%26%3F");
        assert_eq!(quoted("a/b?"), "a%2Fb%3F");
    }
}
