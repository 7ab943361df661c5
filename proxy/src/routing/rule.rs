//! Rules of the operator, as plain values: groups of app servers; routes of connections, requests and messages;
//! mirrors; and the method firewall.

use std::path::PathBuf;
use std::sync::Arc;

use http::StatusCode;
use trunkline_protocol::key::AccessKeys;

use super::condition::{Condition, PathPattern, RouteFacts};
use super::path_reading::Doubt;
use super::share::Share;
use super::target_table::TargetPattern;
use crate::metrics::{Counter, MirrorCounters};
use crate::net::address::Address;

/// Name of the group of `upstream`, which takes what no rule claims.
pub(crate) const DEFAULT_GROUP: &str = "default";

/// App server of a group, or several behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WeightedUpstream {
    pub address: Address,
    /// Share of new connections in proportion to the others', 1 by default.
    pub weight: u32,
}

/// Group of app servers with one duty.
#[derive(Debug, Clone)]
pub(crate) struct GroupRule {
    pub name: Arc<str>,
    pub upstreams: Vec<WeightedUpstream>,
    /// Links to each app server for each hub; `None` for the node's own number.
    pub pool_size: Option<usize>,
    /// Access keys of its app servers; `None` for the node's own.
    pub keys: Option<AccessKeys>,
    /// PEM files of the authorities that may have signed its certificates; empty for the node's own.
    pub roots: Vec<PathBuf>,
    /// PEM files of the client certificate and its key; `None` for the node's own.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Settings of the default group that differ from the node's own. Its addresses are those of `upstream`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DefaultGroup {
    /// Weights of some of its upstreams, 1 for all others.
    pub weights: Vec<WeightedUpstream>,
    /// Links to each app server for each hub; `None` for the node's own number.
    pub pool_size: Option<usize>,
}

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

/// Route of the invocations of some methods of a hub, which go to another group than the rest of their connection.
#[derive(Debug, Clone)]
pub(crate) struct MessageRule {
    /// Name in the output of `trunkline check` and on the observer page.
    pub label: Arc<str>,
    pub hub: PathPattern,
    pub targets: Vec<TargetPattern>,
    pub group: Arc<str>,
}

/// Mirror of a hub's connections: another group gets copies of their messages.
#[derive(Debug, Clone)]
pub(crate) struct MirrorRule {
    /// Name in metrics, logs and on the observer page.
    pub label: Arc<str>,
    pub hub: PathPattern,
    pub group: Arc<str>,
    /// Share of the hub's connections that are copied, from 0 to 1.
    pub sample: f64,
    /// Whether its answers are compared with those of the primary app server.
    pub is_diff: bool,
    /// Whether messages to the clients are copied, too.
    pub copies_down: bool,
    pub counters: Arc<MirrorCounters>,
}

impl MirrorRule {
    /// Whether it is another reading of the same rule, so that its copies can go on.
    #[must_use]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let is_same = |one: &Self| (one.label.clone(), one.group.clone(), one.is_diff, one.copies_down);
        is_same(self) == is_same(other)
    }

    /// Whether the messages of this connection are copied. The same ones are at each node and after a restart.
    #[must_use]
    pub(crate) fn samples(&self, connection_id: &str) -> bool {
        Share::of(&self.group, connection_id).is_in_first(self.sample)
    }
}

/// Methods that are refused or limited.
#[derive(Debug, Clone)]
pub(crate) struct MethodRule {
    /// Name in metrics, logs and on the observer page.
    pub label: Arc<str>,
    pub hub: PathPattern,
    /// Methods that are refused.
    pub deny: Vec<TargetPattern>,
    /// Methods beside which all others are refused; `None` refuses none.
    pub allow: Option<Vec<TargetPattern>>,
    /// Calls per second of one user; all methods of one pattern count together.
    pub per_second: Vec<(TargetPattern, u32)>,
    /// Largest messages, in bytes.
    pub max_bytes: Vec<(TargetPattern, usize)>,
    /// Calls that were refused.
    pub refused: Arc<Counter>,
}
