//! Choice of the group of a client connection or a request by the routes in force.

use std::net::SocketAddr;
use std::sync::Arc;

use trunkline_protocol::service::{OpenConnection, header};
use trunkline_protocol::wire::REMOTE_HEADER;

use super::{Hub, HubRegistry, ServerGroup};
use crate::routing::{DEFAULT_GROUP, Rejection, RouteAction, RouteFacts, RouteRule};

/// Outcome of the routes for a client connection or a request.
#[derive(Debug, Clone)]
pub(crate) enum RouteChoice {
    /// App servers of this group take it; `None` stands for the default group.
    Group(Option<Arc<ServerGroup>>),
    Rejected(Rejection),
}

impl RouteChoice {
    /// Name of a chosen group.
    #[must_use]
    pub(crate) fn group_name(group: Option<&Arc<ServerGroup>>) -> &str {
        group.map_or(DEFAULT_GROUP, |group| group.name())
    }
}

impl HubRegistry {
    /// Whether there is any route to ask.
    #[must_use]
    pub(crate) fn has_routes(&self) -> bool {
        !self.rules().routes.is_empty()
    }

    /// Asks the routes; `passed` sees each rule that holds.
    pub(crate) fn choose_route(&self, facts: &RouteFacts<'_>, passed: impl FnMut(&RouteRule)) -> RouteChoice {
        let rules = self.rules();
        let is_up = |group: &str| self.is_up(facts, group);
        match rules.choose_route(facts, is_up, passed).map(|rule| &rule.action) {
            Some(RouteAction::Group(name)) => RouteChoice::Group(self.groups().find(name)),
            Some(RouteAction::Reject(rejection)) => RouteChoice::Rejected(rejection.clone()),
            Some(RouteAction::Next) | None => RouteChoice::Group(None),
        }
    }

    /// Asks the routes about a client connection that is open, by the frame that has opened it; `None` where they
    /// refuse it by now, which is no reason to end it.
    #[must_use]
    pub(crate) fn route_of(
        &self,
        hub: &Hub,
        open: &OpenConnection,
        user: Option<&str>,
    ) -> Option<Option<Arc<ServerGroup>>> {
        let path = hub.rule_path();
        match self.choose_route(&facts_of(&path, open, user), |_| {}) {
            RouteChoice::Group(group) => Some(group),
            RouteChoice::Rejected(_) => None,
        }
    }

    /// Whether any app server of a group can be reached: of a hub, or for a request any.
    fn is_up(&self, facts: &RouteFacts<'_>, group: &str) -> bool {
        match facts.hub {
            Some(path) => self.all().iter().any(|hub| hub.rule_path() == path && hub.is_served_by(group)),
            None => !self.linked_app_servers(group).is_empty(),
        }
    }
}

/// Facts of a client connection, from the frame that opens it.
#[must_use]
pub(crate) fn facts_of<'a>(path: &'a str, open: &'a OpenConnection, user: Option<&'a str>) -> RouteFacts<'a> {
    let remote = header(&open.headers, REMOTE_HEADER).and_then(|remote| remote.parse::<SocketAddr>().ok());
    RouteFacts {
        hub: Some(path),
        path,
        query: open.query.as_deref(),
        headers: &open.headers,
        claims: &open.claims,
        user,
        address: remote.map(|remote| remote.ip()),
        connection_id: Some(&open.connection_id).filter(|id| !id.is_empty()).map(|id| &**id),
    }
}
