//! Rules of the operator as plain values: groups of app servers, routes, mirrors and the method firewall.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use trunkline_protocol::key::AccessKeys;
use trunkline_protocol::limits::{HISTORY_AGE_MAX, HISTORY_AGE_MIN, HISTORY_MESSAGES_MAX};
use trunkline_protocol::manifest::RecordedNames;
use trunkline_protocol::pattern::Pattern;

use super::path_reading::Doubt;
use super::route_condition::{Condition, PathPattern, RouteFacts, Share};
use super::target_table::TargetPattern;
use crate::ground::metrics::{Counter, MirrorCounters};
use crate::ground::net::address::Address;

/// Name of the group configured by `upstream`, used without a matching rule.
pub(crate) const DEFAULT_GROUP: &str = "default";

/// App server of a group, or several behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WeightedUpstream {
    pub address: Address,
    /// Relative share of new connections, 1 by default.
    pub weight: u32,
}

/// Group of app servers with a common purpose.
#[derive(Debug, Clone)]
pub(crate) struct GroupRule {
    pub name: Arc<str>,
    pub upstreams: Vec<WeightedUpstream>,
    /// Links to each app server per hub; `None` for the node's default.
    pub pool_size: Option<usize>,
    /// Access keys of its app servers; `None` for the node's keys.
    pub keys: Option<AccessKeys>,
    /// PEM files of trusted root certificates; empty for the node's.
    pub roots: Vec<PathBuf>,
    /// PEM files of the client certificate and key; `None` for the node's.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Default group's settings that override the node's. Its addresses come from `upstream`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DefaultGroup {
    /// Weights of some upstreams; 1 for the others.
    pub weights: Vec<WeightedUpstream>,
    /// Links to each app server per hub; `None` for the node's default.
    pub pool_size: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub status: StatusCode,
    /// Body of the response, and its content type.
    pub body: Arc<str>,
    pub content_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RouteAction {
    /// Routes to the app servers of this group.
    Group(Arc<str>),
    Reject(Rejection),
    /// Counts the match and tries the next rules.
    Next,
}

/// Behaviour while the group has no reachable app server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum OnDown {
    /// Connections wait for an app server, as without routes.
    #[default]
    Wait,
    /// The next rules are tried.
    Next,
}

#[derive(Debug, Clone)]
pub(crate) struct RouteRule {
    /// Name in metrics, logs and on the observer page.
    pub label: Arc<str>,
    /// Conditions that must all hold. Without conditions, the route always matches.
    pub conditions: Vec<Condition>,
    pub action: RouteAction,
    pub on_down: OnDown,
    pub matches: Arc<Counter>,
}

impl RouteRule {
    #[must_use]
    pub(crate) fn holds(&self, facts: &RouteFacts<'_>) -> bool {
        self.first_failing(facts).is_none()
    }

    /// First condition that fails; `None` if all hold.
    pub(crate) fn first_failing(&self, facts: &RouteFacts<'_>) -> Option<&Condition> {
        // Otherwise an odd spelling of a path could bypass a rejection, or match another route.
        let doubt = match &self.action {
            RouteAction::Reject(_) => Doubt::Holds,
            RouteAction::Group(_) | RouteAction::Next => Doubt::Fails,
        };
        self.conditions.iter().find(|condition| !condition.holds(facts, doubt))
    }

    /// Whether the search ends if its conditions hold. `is_up` returns whether a group has a reachable app server.
    pub(crate) fn decides(&self, is_up: impl Fn(&str) -> bool) -> bool {
        match (&self.action, self.on_down) {
            (RouteAction::Next, _) => false,
            (RouteAction::Group(group), OnDown::Next) => is_up(group),
            (RouteAction::Group(_) | RouteAction::Reject(_), _) => true,
        }
    }
}

/// Route for invocations of some methods of a hub, overriding the connection's group.
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
    pub label: Arc<str>,
    pub hub: PathPattern,
    pub group: Arc<str>,
    /// Fraction of the hub's connections to copy, from 0 to 1.
    pub sample: f64,
    /// Whether to copy messages to the clients, too.
    pub copies_down: bool,
    pub counters: Arc<MirrorCounters>,
}

impl MirrorRule {
    /// Whether both are readings of one rule, so that copies can continue.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let is_same = |one: &Self| (one.label.clone(), one.group.clone(), one.copies_down);
        is_same(self) == is_same(other)
    }

    /// Whether to copy the messages of this connection, equally at every node and after restarts.
    pub(crate) fn samples(&self, connection_id: &str) -> bool {
        Share::of(&self.group, connection_id).is_in_first(self.sample)
    }
}

/// Refused or limited methods of a hub.
#[derive(Debug, Clone)]
pub(crate) struct MethodRule {
    pub label: Arc<str>,
    pub hub: PathPattern,
    pub deny: Vec<TargetPattern>,
    /// The only methods to allow; `None` allows all.
    pub allow: Option<Vec<TargetPattern>>,
    /// Calls per second of one user; all methods of a pattern are counted together.
    pub per_second: Vec<(TargetPattern, u32)>,
    pub max_bytes: Vec<(TargetPattern, usize)>,
    pub refused: Arc<Counter>,
}

/// Recorded groups or users of a hub.
#[derive(Debug, Clone)]
pub(crate) struct HistoryRule {
    pub label: Arc<str>,
    pub hub: PathPattern,
    pub sets: RecordedSets,
}

/// Recorded groups or users.
#[derive(Debug, Clone)]
pub(crate) struct RecordedSets {
    /// Whether the patterns are of user ids rather than of group names.
    pub of_users: bool,
    pub names: Vec<Pattern>,
    pub terms: HistoryTerms,
}

impl RecordedSets {
    /// Reads what an app server records, within the limits of a rule. `None` for an invalid pattern.
    pub(super) fn of_app(recorded: &RecordedNames) -> Option<Self> {
        let RecordedNames { of_users, names, messages, age_ms } = recorded;
        let messages = usize::try_from((*messages).clamp(1, HISTORY_MESSAGES_MAX)).unwrap_or(usize::MAX);
        let age = Duration::from_millis(*age_ms).clamp(HISTORY_AGE_MIN, HISTORY_AGE_MAX);
        let names = vec![Pattern::new(names).ok()?];
        Some(Self { of_users: *of_users, names, terms: HistoryTerms { messages, age } })
    }
}

/// How much of a record is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HistoryTerms {
    pub messages: usize,
    pub age: Duration,
}
