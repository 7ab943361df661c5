//! Endpoint of one shard: state for handling requests, and acceptance of new clients by hub.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::dial_in::{CLIENT_PATH, SERVER_PATH};
use trunkline_protocol::manifest::NODE_HEADER;

use super::authorizer::Authorizer;
use super::path_rule::{is_path, is_private};
use super::plain_response::{because, plain, unavailable};
use super::{ProxyClient, Routed};
use crate::edge::rest::Rest;
use crate::engine::shard::{ShardSender, Shared};
use crate::engine::upstream::{Hub, RouteChoice, ServerGroup};
use crate::features::admission::Admission;
use crate::features::webhook::Webhooks;
use crate::fleet::{Fleet, FleetEntry};
use crate::ground::metrics::Counters;
use crate::ground::net::connector::Connector;
use crate::ground::net::http_client::HttpClient;

/// Paths of the admin port that are often requested at the port for clients.
const ADMIN_PATHS: [&str; 4] = ["/metrics", "/readyz", "/healthz", "/api/conditions"];

pub(super) const STOPPING: &str = "this node is stopping: connect again, to another one";

#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(super) shared: Arc<Shared>,
    pub(super) admission: Arc<Admission>,
    pub(super) counters: Arc<Counters>,
    pub(super) shard: ShardSender,
    pub(super) authorizer: Authorizer,
    pub(super) proxy_client: ProxyClient,
    /// REST data plane, if served by this endpoint.
    pub(super) rest: Option<Rest>,
    /// Webhooks of the node, for hubs that clients name; `None` if the node has none.
    pub(super) webhooks: Option<Arc<Webhooks>>,
    /// Access to connections at any node; `None` if this endpoint only opens connections.
    pub(super) fleet: Option<FleetEntry>,
}

impl Endpoint {
    pub(crate) fn new(
        shared: Arc<Shared>,
        admission: Arc<Admission>,
        counters: Arc<Counters>,
        shard: ShardSender,
    ) -> Self {
        let connect_timeout = shared.settings.relay.upstream_connect_timeout;
        let app_servers = HttpClient::new(shared.ways.connector.for_clients(), connect_timeout).for_others();
        let in_channels = HttpClient::new(Connector::default(), connect_timeout).for_others();
        let authorizer = Authorizer::new(in_channels, shared.settings.negotiate_timeout);
        let proxy_client = ProxyClient::new(&shared, &admission, app_servers);
        Self { shared, admission, counters, shard, authorizer, proxy_client, rest: None, webhooks: None, fleet: None }
    }

    #[must_use]
    pub(crate) fn with_fleet(self, fleet: &Fleet) -> Self {
        Self { fleet: Some(FleetEntry::from_fleet(fleet)), ..self }
    }

    #[must_use]
    pub(crate) fn with_webhooks(self, webhooks: &Arc<Webhooks>) -> Self {
        Self { webhooks: Some(webhooks.clone()), ..self }
    }

    #[must_use]
    pub(crate) fn with_rest(self, rest: Option<Rest>) -> Self {
        Self { rest, ..self }
    }

    /// Returns the refusal of a routed request, if a route rejects it or its group accepts no clients now.
    pub(super) fn refuse_new_client(&self, hub: &Hub, routed: &Routed) -> Option<Response> {
        if self.shared.refuses_clients() {
            return Some(unavailable(Cause::Drained, STOPPING));
        }
        if self.admission.is_waiting.load(Ordering::Acquire) {
            return Some(unavailable(Cause::NodeStarting, "this node is reading its store: see /readyz"));
        }
        if let Some(refusal) = routed.refusal() {
            return Some(refusal);
        }
        let group = routed.group();
        let is_served = hub.is_served_by(RouteChoice::group_name(group.as_ref()));
        let may_come = is_served || self.shared.settings.rehoming.holds_new;
        (!may_come).then(|| unavailable(Cause::NoAppServer, "no app server serves this hub at the moment"))
    }

    /// Waits for a recently lost link of the request's group, unless clients are accepted without an app server.
    pub(super) async fn wait_for_link(&self, hub: &Hub, group: Option<Arc<ServerGroup>>) {
        if !self.shared.settings.rehoming.holds_new {
            self.shared.wait_for_link(hub, RouteChoice::group_name(group.as_ref())).await;
        }
    }

    /// Adds this node's name to a response, unless another node has added its own.
    pub(super) fn name_on(&self, answer: &mut Response) {
        if let Ok(name) = HeaderValue::from_str(&self.shared.settings.node) {
            answer.headers_mut().entry(HeaderName::from_static(NODE_HEADER)).or_insert(name);
        }
    }

    pub(super) fn find_hub(&self, path: &str) -> Result<Arc<Hub>, Response> {
        if is_private(path) {
            self.counters.relay.private_paths.increment();
            return Err(because(Cause::PathUnknown, plain(StatusCode::NOT_FOUND, "not found")));
        }
        match self.shared.hubs.find(path) {
            Some(hub) => Ok(hub),
            None if self.shared.refuses_clients() => Err(unavailable(Cause::Drained, STOPPING)),
            None if self.shared.hubs.is_empty() && self.shared.settings.has_upstreams => {
                Err(unavailable(Cause::NoAppServer, "no app server has been reached yet"))
            }
            None => {
                let text = format!("no hub is served at this path: {}", self.missing_part(path));
                Err(because(Cause::PathUnknown, plain(StatusCode::NOT_FOUND, text)))
            }
        }
    }

    /// Reason why no hub is found at a path.
    fn missing_part(&self, path: &str) -> &'static str {
        let (settings, is) = (&self.shared.settings, |wanted: &str| is_path(path, wanted));
        let is_of_dial_in = is(CLIENT_PATH) || is(SERVER_PATH);
        match path {
            _ if Rest::takes(path) => "the REST data plane is off at this port (see --rest and --rest-listen)",
            _ if is_of_dial_in && settings.accepts_dial_in => "the query has to name a hub, as ?hub=NAME",
            _ if is_of_dial_in => "this node has --upstream and no --access-key, so no app server may dial in",
            _ if ADMIN_PATHS.into_iter().any(is) => "this is the port for clients, and the path is of the admin port",
            _ if self.shared.hubs.living().is_empty() => "no app server has reached this node",
            _ => "no app server of this node has a hub with this path",
        }
    }
}
