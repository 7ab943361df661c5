//! Choice of the group of a client connection or a request by the current routes.

use std::net::SocketAddr;
use std::sync::Arc;

use trunkline_protocol::service::{OpenConnection, header};
use trunkline_protocol::wire::REMOTE_HEADER;

use super::{Hub, HubRegistry, ServerGroup};
use crate::ground::routing::{DEFAULT_GROUP, Rejection, RouteAction, RouteFacts, RouteRule};

/// Result of the routes for a client connection or a request.
#[derive(Debug, Clone)]
pub(crate) enum RouteChoice {
    /// Group of app servers; `None` stands for the default group.
    Group(Option<Arc<ServerGroup>>),
    Rejected(Rejection),
}

impl RouteChoice {
    pub(crate) fn group_name(group: Option<&Arc<ServerGroup>>) -> &str {
        group.map_or(DEFAULT_GROUP, |group| &group.name)
    }
}

impl HubRegistry {
    pub(crate) fn has_routes(&self) -> bool {
        !self.rules().routes.is_empty()
    }

    /// Applies the routes. `passed` is called for each rule that matches.
    pub(crate) fn choose_route(&self, facts: &RouteFacts<'_>, passed: impl FnMut(&RouteRule)) -> RouteChoice {
        let rules = self.rules();
        // For a client connection, an app server of the hub is up; for a request, any app server.
        let is_up = |group: &str| match facts.hub {
            Some(path) => self.all().iter().any(|hub| hub.rule_path() == path && hub.is_served_by(group)),
            None => !self.linked_app_servers(group).is_empty(),
        };
        match rules.choose_route(facts, is_up, passed).map(|rule| &rule.action) {
            Some(RouteAction::Group(name)) => RouteChoice::Group(self.groups.find(name)),
            Some(RouteAction::Reject(rejection)) => RouteChoice::Rejected(rejection.clone()),
            Some(RouteAction::Next) | None => RouteChoice::Group(None),
        }
    }

    /// Applies the routes to an open client connection, based on its open frame. `None` if they would now reject the
    /// connection, which stays open.
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
}

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
