//! Endpoint of one shard: what requests are answered from, and whether a hub takes new clients.

use std::sync::Arc;

use axum::response::Response;
use http::{Extensions, HeaderName, HeaderValue, StatusCode};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::NODE_HEADER;

use super::path_rule::is_private;
use super::plain_response::{because, plain, unavailable};
use super::proxy_client::ProxyClient;
use super::routed::Routed;
use crate::fleet::{Fleet, FleetEntry};
use crate::metrics::Counters;
use crate::net::connector::Connector;
use crate::net::http_client::HttpClient;
use crate::rest::Rest;
use crate::shard::{ShardSender, Shared};
use crate::upstream::{Authorizer, Hub, RouteChoice, ServerGroup};

pub(super) const STOPPING: &str = "this node is stopping: connect again, to another one";

/// State of one shard that requests are answered from.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<Counters>,
    pub(super) shard: ShardSender,
    pub(super) authorizer: Authorizer,
    pub(super) proxy_client: ProxyClient,
    /// REST data plane, if this endpoint answers it.
    pub(super) rest: Option<Rest>,
    /// Way to connections wherever they are; `None` if this endpoint only opens connections.
    pub(super) fleet: Option<FleetEntry>,
}

impl Endpoint {
    #[must_use]
    pub(crate) fn new(shared: Arc<Shared>, counters: Arc<Counters>, shard: ShardSender) -> Self {
        let connect_timeout = shared.settings.relay.upstream_connect_timeout;
        let app_servers = HttpClient::new(shared.ways.connector.for_clients(), connect_timeout).for_others();
        let in_channels = HttpClient::new(Connector::default(), connect_timeout).for_others();
        let authorizer = Authorizer::new(in_channels, shared.settings.negotiate_timeout);
        let proxy_client = ProxyClient::new(&shared, app_servers);
        Self { shared, counters, shard, authorizer, proxy_client, rest: None, fleet: None }
    }

    /// Reaches the connections of this fleet.
    #[must_use]
    pub(crate) fn with_fleet(self, fleet: &Fleet) -> Self {
        Self { fleet: Some(FleetEntry::of(fleet)), ..self }
    }

    /// Answers requests to the REST data plane, too, if there is one.
    #[must_use]
    pub(crate) fn with_rest(self, rest: Option<Rest>) -> Self {
        Self { rest, ..self }
    }

    /// Returns the refusal for the client of a routed request, if a route rejects it, or its group takes none now.
    pub(super) fn refuse_new_client(&self, hub: &Hub, routed: &Extensions) -> Option<Response> {
        if self.shared.refuses_clients() {
            return Some(unavailable(Cause::Drained, STOPPING));
        }
        if let Some(refusal) = Routed::refusal_in(routed) {
            return Some(refusal);
        }
        let group = Routed::group_in(routed);
        let is_served = hub.is_served_by(RouteChoice::group_name(group.as_ref()));
        let may_come = is_served || self.shared.settings.rehoming.holds_new;
        (!may_come).then(|| unavailable(Cause::NoAppServer, "no app server serves this hub at the moment"))
    }

    /// Waits for a link of the request's group that was lost a moment ago, unless clients without an app server are
    /// taken anyway.
    pub(super) async fn wait_for_link(&self, hub: &Hub, group: Option<Arc<ServerGroup>>) {
        if !self.shared.settings.rehoming.holds_new {
            self.shared.wait_for_link(hub, RouteChoice::group_name(group.as_ref())).await;
        }
    }

    /// Names the node on an answer, unless another node answered and has done so.
    pub(super) fn name_on(&self, answer: &mut Response) {
        if let Ok(name) = HeaderValue::from_str(&self.shared.settings.node) {
            answer.headers_mut().entry(HeaderName::from_static(NODE_HEADER)).or_insert(name);
        }
    }

    /// Finds the hub of a path.
    ///
    /// # Errors
    /// The refusal, if there is none.
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
                let answer = plain(StatusCode::NOT_FOUND, "no hub is served at this path");
                Err(because(Cause::PathUnknown, answer))
            }
        }
    }
}
