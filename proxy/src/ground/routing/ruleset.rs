//! Rules of a configuration file for connections and messages.

use std::sync::Arc;

use super::hub_rules::HubRules;
use super::route_condition::RouteFacts;
use super::rule::{
    DEFAULT_GROUP, DefaultGroup, GroupRule, HistoryRule, MessageRule, MethodRule, MirrorRule, RouteRule,
};
use super::webhook_table::WebhookTable;
use crate::ground::metrics::RuleCounters;
use crate::ground::net::address::Address;

/// Rules of a node; empty by default.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    /// Groups other than the default group.
    pub(crate) groups: Vec<GroupRule>,
    pub(crate) default_group: DefaultGroup,
    pub(crate) routes: Vec<RouteRule>,
    pub(crate) messages: Vec<MessageRule>,
    pub(crate) methods: Vec<MethodRule>,
    pub(crate) mirrors: Vec<MirrorRule>,
    pub(crate) histories: Vec<HistoryRule>,
    pub(crate) webhooks: Vec<WebhookTable>,
}

impl Ruleset {
    pub(crate) fn has_group(&self, name: &str) -> bool {
        name == DEFAULT_GROUP || self.groups.iter().any(|group| *group.name == *name)
    }

    /// Returns one line per rule, for people.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let groups = self.groups.iter().map(ToString::to_string);
        let routes = self.routes.iter().map(ToString::to_string);
        let messages = self.messages.iter().map(ToString::to_string);
        let mirrors = self.mirrors.iter().map(ToString::to_string);
        let methods = self.methods.iter().map(ToString::to_string);
        let webhooks = self.webhooks.iter().map(ToString::to_string);
        let histories = self.histories.iter().map(ToString::to_string);
        groups.chain(routes).chain(messages).chain(mirrors).chain(methods).chain(histories).chain(webhooks)
    }

    /// Whether there are upstreams that may serve clients.
    #[must_use]
    pub fn has_upstreams(&self) -> bool {
        self.groups.iter().any(|group| !self.is_mirror(&group.name))
    }

    /// Addresses of groups without their own access keys, with the group names.
    pub fn keyless_upstreams(&self) -> impl Iterator<Item = (&str, &Address)> {
        let keyless = self.groups.iter().filter(|group| group.keys.is_none());
        keyless.flat_map(|group| group.upstreams.iter().map(|upstream| (&*group.name, &upstream.address)))
    }

    /// Whether a group gets copies only.
    pub(crate) fn is_mirror(&self, group: &str) -> bool {
        self.mirrors.iter().any(|rule| *rule.group == *group)
    }

    /// First deciding route with matching conditions; `None` for the default group. `is_up` returns whether a group has
    /// a reachable app server. `passed` is called for each match, including counting-only rules.
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

    /// Copy of the rules with counters for their labels.
    pub(crate) fn counted(&self, counters: &RuleCounters) -> Self {
        let mut rules = self.clone();
        rules.routes.iter_mut().for_each(|rule| rule.matches = counters.routes.of(&rule.label));
        rules.methods.iter_mut().for_each(|rule| rule.refused = counters.methods.of(&rule.label));
        rules.mirrors.iter_mut().for_each(|rule| rule.counters = counters.mirrors.of(&rule.label));
        rules
    }

    pub(crate) fn of_hub(&self, path: &str) -> Option<Arc<HubRules>> {
        let rules = HubRules::new(
            self.messages.iter().filter(|rule| rule.hub.matches(path)),
            self.methods.iter().filter(|rule| rule.hub.matches(path)),
            self.mirrors.iter().filter(|rule| rule.hub.matches(path)),
            self.histories.iter().filter(|rule| rule.hub.matches(path)),
        );
        (!rules.is_empty()).then(|| Arc::new(rules))
    }
}

#[cfg(test)]
mod tests {
    use bytestring::ByteString;

    use super::*;
    use crate::ground::routing::{MethodVerdict, RouteAction};

    const GROUPS: &str = "
        groups.a.upstream = 'http://a'
        groups.b.upstream = 'http://b'
        groups.audit.upstream = 'http://audit'
    ";

    fn ruleset(text: &str) -> Ruleset {
        Ruleset::parse(&format!("{GROUPS}{text}")).unwrap()
    }

    fn chat() -> RouteFacts<'static> {
        RouteFacts { hub: Some("/chat"), path: "/chat", connection_id: Some("id"), ..RouteFacts::default() }
    }

    fn takes(conditions: &str, facts: &RouteFacts<'_>) -> bool {
        let rules = ruleset(&format!("[[routes]]\ngroup = 'a'\n{conditions}"));
        rules.choose_route(facts, |_| true, |_| {}).is_some()
    }

    fn text(text: &str) -> ByteString {
        text.into()
    }

    #[test]
    fn the_first_route_whose_conditions_all_hold_decides_and_those_that_count_are_passed() {
        let rules = ruleset(
            "[[routes]]\nhub = 'news'\ngroup = 'a'\n[[routes]]\nnext = true\n
             [[routes]]\nhub = 'chat'\nuser = 'ann'\nreject = 403\n[[routes]]\nhub = 'chat'\ngroup = 'b'\n
             [[routes]]\ngroup = 'a'",
        );
        let labels = |facts: &RouteFacts<'_>| {
            let mut passed = Vec::new();
            let chosen = rules.choose_route(facts, |_| true, |rule| passed.push(rule.label.to_string()));
            (chosen.map(|rule| rule.label.to_string()), passed.join(" "))
        };
        assert_eq!(labels(&chat()), (Some("4".to_owned()), "2 4".to_owned()));
        let ann = RouteFacts { user: Some("ann"), ..chat() };
        assert_eq!(labels(&ann), (Some("3".to_owned()), "2 3".to_owned()));
        assert_eq!(labels(&RouteFacts::default()), (Some("5".to_owned()), "2 5".to_owned()));
        assert!(ruleset("").choose_route(&chat(), |_| true, |_| {}).is_none());
    }

    #[test]
    fn a_group_that_is_down_is_waited_for_unless_the_next_routes_may_be_tried() {
        let route = "[[routes]]\ngroup = 'b'\n";
        let group = |first: &str| {
            let rules = ruleset(&format!("[[routes]]\ngroup = 'a'\n{first}{route}"));
            let chosen = rules.choose_route(&chat(), |group| group != "a", |_| {}).map(|rule| rule.action.clone());
            let Some(RouteAction::Group(group)) = chosen else { panic!("{chosen:?}") };
            group.to_string()
        };
        assert_eq!([group(""), group("on-down = 'wait'\n"), group("on-down = 'next'\n")], ["a", "a", "b"]);
    }

    #[test]
    fn hubs_and_paths_match_without_regard_to_case_and_the_last_slash() {
        for pattern in ["chat", "/Chat/", "*", "c*t", "['news', 'ch*']"] {
            let hub = if pattern.starts_with('[') { format!("hub = {pattern}") } else { format!("hub = '{pattern}'") };
            assert!(takes(&hub, &chat()), "{pattern}");
            assert!(takes(&hub, &RouteFacts { hub: Some("/CHAT/"), ..chat() }), "{pattern}");
        }
        assert!(!takes("hub = 'cha'", &chat()) && !takes("hub = '*'", &RouteFacts { hub: None, ..chat() }));
        let page = |path| RouteFacts { path, ..RouteFacts::default() };
        assert!(takes("path = '/old/*'", &page("/Old/a/b/")) && takes("path = '/'", &page("/")));
        assert!(takes("path = '/old/*'", &page("/%6Fld/a")), "an escaped letter leads around a rejection");
        assert!(!takes("path = '/old/*'", &page("/older")));
        assert!(takes("path = '/c*'", &chat()), "the path of a connection is its hub's");
    }

    #[test]
    fn a_rejection_by_path_sees_through_all_spellings_of_it() {
        let at = |path| RouteFacts { path, ..RouteFacts::default() };
        let wall = ruleset("[[routes]]\npath = '/admin*'\nreject = 403");
        let open = ruleset("[[routes]]\npath = '/public/*'\ngroup = 'a'\n[[routes]]\nreject = 403");
        let is_let_in = |rules: &Ruleset, path| {
            let chosen = rules.choose_route(&at(path), |_| true, |_| {});
            chosen.is_none_or(|rule| !matches!(rule.action, RouteAction::Reject(_)))
        };
        for path in [
            "/admin/x",
            "/ADMIN/x",
            "/%61dmin/x",
            "/admin%2fx",
            "/admin;x",
            "//admin/x",
            "/./admin/x",
            "/x/../admin/x",
            "/%2e/admin/x",
            "/%2e%2E/admin/x",
            "/%2fadmin/x",
            "/\\admin/x",
            "/%5cadmin/x",
            "/%252e%252e/admin/x",
            "/admin/../x",
        ] {
            assert!(!is_let_in(&wall, path), "{path}");
        }
        for path in ["/", "/x//y", "/x/./y", "/x/admin", "/x%2Fadmin"] {
            assert!(is_let_in(&wall, path), "{path}");
        }
        assert!(is_let_in(&open, "/public/x") && is_let_in(&open, "/public//x"));
        for path in ["/public/../admin", "/public/%2e%2e/admin", "/x/../public/y", "/public\\..\\admin"] {
            assert!(!is_let_in(&open, path), "{path}");
        }
    }

    #[test]
    fn values_of_queries_headers_cookies_and_claims_are_compared() {
        let headers = [
            (text("X-Tenant"), vec![text("other"), text("acme")]),
            (text("cookie"), vec![text("a=1; c = x=y"), text("d")]),
        ];
        let claims = [(text("role"), text("guest")), (text("role"), text("admin"))];
        let facts = RouteFacts { query: Some("?v=1%2E2&beta&s=a+b"), headers: &headers, claims: &claims, ..chat() };
        for condition in [
            "query = { name = 'v', equals = '1.2' }",
            "query = [{ name = 'v', prefix = '1' }, { name = 'beta', present = true }]",
            "query = { name = 's', equals = 'a b' }",
            "header = { name = 'x-tenant', equals = 'acme' }",
            "header = { name = 'x-none', present = false }",
            "cookie = { name = 'c', equals = 'x=y' }",
            "cookie = { name = 'd', present = false }",
            "claim = { name = 'role', prefix = 'adm' }",
        ] {
            assert!(takes(condition, &facts), "{condition}");
        }
        for condition in [
            "query = { name = 'V', present = true }",
            "query = [{ name = 'v', prefix = '1' }, { name = 'beta', present = false }]",
            "header = { name = 'x-tenant', equals = 'Acme' }",
            "header = { name = 'x-tenant', present = false }",
            "cookie = { name = 'x', present = true }",
            "claim = { name = 'role', equals = 'adm' }",
        ] {
            assert!(!takes(condition, &facts), "{condition}");
        }
    }

    #[test]
    fn users_match_by_pattern_and_addresses_by_network() {
        let from = |user, address: &str| RouteFacts { user: Some(user), address: address.parse().ok(), ..chat() };
        assert!(takes("user = ['ann', 'test-*']", &from("test-7", "")) && !takes("user = 'Ann'", &from("ann", "")));
        let networks = "address = ['10.0.0.0/8', '::1']";
        for (address, is_in) in [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("::1", true), ("11.0.0.1", false)] {
            assert_eq!(takes(networks, &from("", address)), is_in, "{address}");
        }
    }

    #[test]
    fn an_unknown_fact_meets_no_condition() {
        for condition in [
            "hub = '*'",
            "user = '*'",
            "claim = { name = 'role', present = false }",
            "address = '0.0.0.0/0'",
            "percent = 100",
        ] {
            assert!(!takes(condition, &RouteFacts::default()), "{condition}");
        }
        assert!(takes("", &RouteFacts::default()) && takes("percent = 100", &chat()));
        assert!(!takes("percent = 0", &chat()));
    }

    #[test]
    fn a_percentage_is_of_users_and_of_connections_without_one() {
        let rules = ruleset("[[routes]]\nhub = 'chat'\npercent = 10\ngroup = 'a'");
        let is_in = |user: Option<&str>, id: &str| {
            rules.choose_route(&RouteFacts { user, connection_id: Some(id), ..chat() }, |_| true, |_| {}).is_some()
        };
        let users: Vec<_> = (0..10_000).map(|at| format!("user-{at}")).collect();
        let found = users.iter().filter(|user| is_in(Some(user), "")).count();
        assert!(found.abs_diff(1000) <= 100, "{found}");
        assert!(users.iter().take(100).all(|user| is_in(Some(user), "one") == is_in(Some(user), "another")));
        let found = users.iter().filter(|id| is_in(None, id)).count();
        assert!(found.abs_diff(1000) <= 100, "{found}");
    }

    #[test]
    fn invocations_go_to_the_group_of_the_first_rule_that_claims_their_method() {
        let rules = ruleset(
            "[[messages]]\nhub = 'chat'\ntarget = 'AdminList'\ngroup = 'b'\n
             [[messages]]\nhub = '*'\ntarget = ['Admin*', 'Ban']\ngroup = 'a'",
        );
        let chat = rules.of_hub("/chat").unwrap();
        assert!(chat.read_messages());
        for (target, group) in [("adminlist", Some("b")), ("AdminKick", Some("a")), ("BAN", Some("a")), ("Say", None)] {
            assert_eq!(chat.group_of(target).map(|group| &**group), group, "{target}");
        }
        assert_eq!(chat.message_groups().map(|group| &**group).collect::<Vec<_>>(), ["a", "b"]);
        let news = rules.of_hub("/news").unwrap();
        assert_eq!(news.group_of("AdminList").map(|group| &**group), Some("a"));
        assert_eq!(news.message_groups().count(), 1);
    }

    fn refusal(rules: &HubRules, target: &str, bytes: usize) -> Option<String> {
        match rules.judge(target, bytes) {
            MethodVerdict::Refused { text, .. } => Some(text),
            MethodVerdict::Allowed | MethodVerdict::Limited { .. } => None,
        }
    }

    #[test]
    fn methods_are_refused_by_name_and_by_size_whatever_their_case() {
        let rules = ruleset(
            "[[methods]]\nhub = 'chat'\ndeny = ['Debug*', 'Kill']\nmax-bytes = { '*' = '1KiB', Say = 10 }\n
             [[methods]]\nname = 'list'\nhub = 'chat'\nallow = ['S*', 'Debug*', 'Move']",
        );
        let chat = rules.of_hub("/chat").unwrap();
        let refused = "The method 'debugAll' can't be called: the server's rules refuse it.";
        assert_eq!(refusal(&chat, "debugAll", 1).as_deref(), Some(refused));
        assert!(refusal(&chat, "\u{212A}ill", 1).is_some(), "the Kelvin sign leads around the rule");
        assert!(refusal(&chat, "Read", 1).is_some() && refusal(&chat, "Say", 10).is_none());
        let large = "The method 'say' can't be called with a message of more than 10 bytes.";
        assert_eq!(refusal(&chat, "say", 11).as_deref(), Some(large));
        assert!(refusal(&chat, "Move", 1024).is_none() && refusal(&chat, "Move", 1025).is_some());
        let long = refusal(&chat, &format!("Debug\n{}", "a".repeat(5000)), 1).unwrap();
        assert!(long.len() < 200 && !long.contains('\n'), "{long}");
        assert!(rules.of_hub("/news").is_none());
    }

    #[test]
    fn of_several_rates_the_lowest_counts_and_a_name_wins_over_a_pattern() {
        let rules = ruleset(
            "[[methods]]\nhub = 'chat'\nper-second = { '*' = 5, Say = 20 }\n
             [[methods]]\nname = 'strict'\nhub = 'chat'\nper-second = { 'S*' = 10 }",
        );
        let chat = rules.of_hub("/chat").unwrap();
        let limited = |target: &str| match chat.judge(target, 1) {
            MethodVerdict::Limited { rule, method, per_second } => (rule.to_string(), method.to_string(), per_second),
            other => panic!("{other:?}"),
        };
        assert_eq!(limited("say"), ("strict".to_owned(), "S*".to_owned(), 10));
        assert_eq!(limited("Move"), ("1".to_owned(), "*".to_owned(), 5));
    }

    #[test]
    fn a_mirror_copies_its_share_of_the_connections_and_always_the_same_ones() {
        let rules = ruleset("[[mirrors]]\nhub = 'chat'\ngroup = 'audit'\nsample = 0.25");
        let chat = rules.of_hub("/chat").unwrap();
        assert!(!chat.read_messages(), "a mirror alone needs no reading");
        let copied = |id: &str| chat.mirrors_of(id).count() == 1;
        let ids: Vec<_> = (0..10_000).map(|at| format!("id-{at}")).collect();
        let found: Vec<_> = ids.iter().filter(|id| copied(id)).collect();
        assert!(found.len().abs_diff(2500) <= 100, "{}", found.len());
        let again =
            ruleset("[[mirrors]]\nname = 'm'\nhub = '*'\ngroup = 'audit'\nsample = 0.25").of_hub("/chat").unwrap();
        assert!(found.iter().all(|id| again.mirrors_of(id).count() == 1));
    }

    #[test]
    fn counters_of_a_label_persist_when_rules_are_reloaded() {
        let counters = RuleCounters::default();
        let text = "[[routes]]\nname = 'r'\ngroup = 'a'\n[[methods]]\nname = 'm'\nhub = '*'\ndeny = 'Kill'";
        for _ in 0..2 {
            let rules = ruleset(text).counted(&counters);
            assert!(rules.choose_route(&chat(), |_| true, |rule| rule.matches.increment()).is_some());
            let hub = rules.of_hub("/chat").unwrap();
            let MethodVerdict::Refused { rule, .. } = hub.judge("Kill", 1) else { panic!("not refused") };
            hub.count_refusal(&rule);
        }
        assert_eq!((counters.routes.of(&"r".into()).get(), counters.methods.of(&"m".into()).get()), (2, 2));
    }
}
