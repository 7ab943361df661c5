//! All rules of a configuration file.

use std::sync::Arc;

use super::condition::RouteFacts;
use super::group_rule::{DefaultGroup, GroupRule};
use super::hub_rules::HubRules;
use super::message_rule::MessageRule;
use super::method_rule::MethodRule;
use super::mirror_rule::MirrorRule;
use super::route_rule::RouteRule;

/// Rules of a node; none by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ruleset {
    /// Groups beside the default one.
    pub groups: Vec<GroupRule>,
    /// Settings of the default group that differ from the node's own.
    pub default_group: DefaultGroup,
    pub routes: Vec<RouteRule>,
    pub messages: Vec<MessageRule>,
    pub methods: Vec<MethodRule>,
    pub mirrors: Vec<MirrorRule>,
}

impl Ruleset {
    /// First route whose conditions hold, of those that decide; `None` for the default group. `is_up` tells whether any
    /// app server of a group can be reached. `passed` sees each rule that holds, with those that only count.
    #[must_use]
    pub(crate) fn choose_route(
        &self,
        facts: &RouteFacts<'_>,
        is_up: impl Fn(&str) -> bool,
        mut passed: impl FnMut(&RouteRule),
    ) -> Option<&RouteRule> {
        let holding = self.routes.iter().filter(|rule| rule.holds(facts));
        holding.inspect(|rule| passed(rule)).find(|rule| rule.decides(&is_up))
    }

    /// Whether a group gets copies alone.
    #[must_use]
    pub(crate) fn is_mirror(&self, group: &str) -> bool {
        self.mirrors.iter().any(|rule| *rule.group == *group)
    }

    /// Rules of a hub for the messages of its connections; `None` if there are none.
    #[must_use]
    pub(crate) fn of_hub(&self, path: &str) -> Option<Arc<HubRules>> {
        let rules = HubRules::new(
            self.messages.iter().filter(|rule| rule.hub.matches(path)),
            self.methods.iter().filter(|rule| rule.hub.matches(path)),
            self.mirrors.iter().filter(|rule| rule.hub.matches(path)),
        );
        (!rules.is_empty()).then(|| Arc::new(rules))
    }
}
