//! All rules of a configuration file.

use std::sync::Arc;

use super::{DefaultGroup, GroupRule, HubRules, MirrorRule, RouteFacts, RouteRule};

/// Rules of a node; none by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ruleset {
    /// Groups beside the default one.
    pub groups: Vec<GroupRule>,
    pub default_group: DefaultGroup,
    pub routes: Vec<RouteRule>,
    pub mirrors: Vec<MirrorRule>,
}

impl Ruleset {
    pub(crate) fn parse(_text: &str) -> Result<Self, String> {
        Ok(Self::default())
    }

    /// Whether a group gets copies alone.
    #[must_use]
    pub(crate) fn is_mirror(&self, group: &str) -> bool {
        self.mirrors.iter().any(|rule| *rule.group == *group)
    }

    /// First route whose conditions hold, of those that decide; `None` for the default group. `passed` sees each rule
    /// that holds, with those that only count.
    #[must_use]
    pub(crate) fn choose_route(
        &self,
        _facts: &RouteFacts<'_>,
        _is_up: impl Fn(&str) -> bool,
        _passed: impl FnMut(&RouteRule),
    ) -> Option<&RouteRule> {
        None
    }

    /// Rules of a hub for the messages of its connections; `None` if there are none.
    #[must_use]
    pub(crate) fn of_hub(&self, _path: &str) -> Option<Arc<HubRules>> {
        None
    }
}
