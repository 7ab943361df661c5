//! Route of connections and requests: conditions that all have to hold, and what happens then.

use std::sync::Arc;

use http::StatusCode;

use super::condition::{Condition, RouteFacts};
use super::path_reading::Doubt;
use crate::metrics::Counter;

/// Refusal of a connection or request by a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub status: StatusCode,
    /// Text of the answer, and its content type.
    pub body: Arc<str>,
    pub content_type: &'static str,
}

/// Action of a route whose conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RouteAction {
    /// The app servers of this group take it.
    Group(Arc<str>),
    Reject(Rejection),
    /// It is counted, and the next rules are tried.
    Next,
}

/// Choice for connections whose group has no app server that can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum OnDown {
    /// They wait for one, as without routes.
    #[default]
    Wait,
    /// The next rules are tried.
    Next,
}

/// Route of connections and requests.
#[derive(Debug, Clone)]
pub(crate) struct RouteRule {
    /// Name in metrics, logs and on the observer page.
    pub label: Arc<str>,
    /// Conditions that all have to hold; without any the route takes everything.
    pub conditions: Vec<Condition>,
    pub action: RouteAction,
    pub on_down: OnDown,
    /// How often its conditions held.
    pub matches: Arc<Counter>,
}

impl RouteRule {
    /// Whether all conditions hold.
    #[must_use]
    pub(crate) fn holds(&self, facts: &RouteFacts<'_>) -> bool {
        self.first_failing(facts).is_none()
    }

    /// First condition that does not hold; `None` if all do.
    #[must_use]
    pub(crate) fn first_failing(&self, facts: &RouteFacts<'_>) -> Option<&Condition> {
        // Else an odd spelling of a path would lead around a rejection, or to what another route lets through.
        let doubt = match &self.action {
            RouteAction::Reject(_) => Doubt::Holds,
            RouteAction::Group(_) | RouteAction::Next => Doubt::Fails,
        };
        self.conditions.iter().find(|condition| !condition.holds(facts, doubt))
    }

    /// Whether it ends the search for a route once its conditions hold; `is_up` tells whether any app server of a group
    /// can be reached.
    #[must_use]
    pub(crate) fn decides(&self, is_up: impl Fn(&str) -> bool) -> bool {
        match (&self.action, self.on_down) {
            (RouteAction::Next, _) => false,
            (RouteAction::Group(group), OnDown::Next) => is_up(group),
            (RouteAction::Group(_) | RouteAction::Reject(_), _) => true,
        }
    }
}
