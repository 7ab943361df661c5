//! Warnings about valid rules that are probably mistakes, such as unreachable ones.

use super::route_condition::Condition;
use super::rule::{DEFAULT_GROUP, MessageRule, MethodRule, OnDown, RouteAction, RouteRule};
use super::ruleset::Ruleset;
use super::target_table::TargetPattern;
use crate::ground::net::address::Address;

impl Ruleset {
    /// Returns warnings about the rules, for a node with these upstreams.
    #[must_use]
    pub fn warnings(&self, upstreams: &[Address]) -> Vec<String> {
        let mut warnings = self.group_warnings(upstreams);
        for (at, rule) in self.routes.iter().enumerate() {
            let before = self.routes.iter().take(at);
            warnings.extend(route_warning(rule, before));
        }
        for (at, rule) in self.messages.iter().enumerate() {
            warnings.extend(message_warning(rule, self.messages.iter().take(at)));
        }
        self.methods.iter().for_each(|rule| method_warnings(rule, &mut warnings));
        for (at, rule) in self.mirrors.iter().enumerate() {
            let label = &rule.label;
            if rule.sample <= 0.0 {
                warnings.push(format!("mirror {label} copies nothing: its sample is 0"));
            }
            let mut before = self.mirrors.iter().take(at);
            let is_same = before.find(|other| other.group == rule.group && other.hub.covers(&rule.hub));
            warnings.extend(is_same.map(|other| {
                format!("mirror {label} copies the same messages to group {} as mirror {}", rule.group, other.label)
            }));
        }
        warnings
    }

    fn group_warnings(&self, upstreams: &[Address]) -> Vec<String> {
        let routes = self.routes.iter().filter_map(|rule| match &rule.action {
            RouteAction::Group(group) => Some(("route", &rule.label, group)),
            RouteAction::Reject(_) | RouteAction::Next => None,
        });
        let messages = self.messages.iter().map(|rule| ("message rule", &rule.label, &rule.group));
        let mirrors = self.mirrors.iter().map(|rule| ("mirror", &rule.label, &rule.group));
        let used: Vec<_> = routes.chain(messages).chain(mirrors).collect();
        let unused = self.groups.iter().filter(|group| used.iter().all(|(_, _, name)| **name != group.name));
        let mut warnings: Vec<_> = unused.map(|group| format!("no rule uses group {}", group.name)).collect();
        if upstreams.is_empty() {
            let idle = used.iter().filter(|(_, _, group)| ***group == *DEFAULT_GROUP);
            warnings.extend(idle.map(|(kind, label, _)| {
                format!("{kind} {label} uses group {DEFAULT_GROUP}, but there is no upstream")
            }));
        }
        let strange = self.default_group.weights.iter().map(|weight| &weight.address);
        let strange = strange.filter(|address| !upstreams.contains(address));
        warnings.extend(
            strange.map(|address| format!("{address} has a weight in [groups.default], but is not an upstream")),
        );
        warnings
    }
}

fn route_warning<'a>(rule: &RouteRule, mut before: impl Iterator<Item = &'a RouteRule> + Clone) -> Option<String> {
    let label = &rule.label;
    if percent_of(rule).is_some_and(|percent| percent <= 0.0) {
        return Some(format!("route {label} matches nothing: its percent is 0"));
    }
    if let Some(earlier) = before.clone().find(|earlier| takes_all_of(earlier, rule)) {
        return Some(format!("route {label} matches nothing: route {} takes all its clients", earlier.label));
    }
    let percent = percent_of(rule)?;
    before.find_map(|earlier| {
        let taken = percent_of(earlier).filter(|_| takes_all_but_percent(earlier, rule))?;
        let left = percent * (100.0 - taken) / 100.0;
        let is_shared = same_salt(earlier, rule);
        (!is_shared).then(|| {
            format!(
                "route {label} takes {percent} % of the clients left by route {}, which is {left:.2} % of all",
                earlier.label
            )
        })
    })
}

fn percent_of(rule: &RouteRule) -> Option<f64> {
    rule.conditions.iter().find_map(|condition| match condition {
        Condition::Percent { percent, .. } => Some(*percent),
        _ => None,
    })
}

fn same_salt(one: &RouteRule, other: &RouteRule) -> bool {
    let salt = |rule: &RouteRule| {
        rule.conditions.iter().find_map(|condition| match condition {
            Condition::Percent { salt, .. } => Some(salt.clone()),
            _ => None,
        })
    };
    salt(one) == salt(other)
}

/// Whether the earlier route provably takes everything from the later one.
fn takes_all_of(earlier: &RouteRule, later: &RouteRule) -> bool {
    takes(earlier) && earlier.conditions.iter().all(|condition| is_met(condition, later))
}

/// Whether only the earlier route's percentage leaves anything to the later one.
fn takes_all_but_percent(earlier: &RouteRule, later: &RouteRule) -> bool {
    let mut others = earlier.conditions.iter().filter(|condition| !matches!(condition, Condition::Percent { .. }));
    takes(earlier) && others.all(|condition| is_met(condition, later))
}

fn takes(rule: &RouteRule) -> bool {
    rule.action != RouteAction::Next && rule.on_down == OnDown::Wait
}

/// Whether everything the later route could take meets the condition.
fn is_met(condition: &Condition, later: &RouteRule) -> bool {
    // Connections always have an id, so all are included.
    let is_of_hub = || later.conditions.iter().any(|of_later| matches!(of_later, Condition::Hub(_)));
    let is_whole = matches!(condition, Condition::Percent { percent, .. } if *percent >= 100.0);
    (is_whole && is_of_hub()) || later.conditions.iter().any(|of_later| condition.covers(of_later))
}

fn message_warning<'a>(rule: &MessageRule, before: impl Iterator<Item = &'a MessageRule> + Clone) -> Option<String> {
    let earlier = |target: &TargetPattern| {
        let mut of_hub = before.clone().filter(|earlier| earlier.hub.covers(&rule.hub));
        of_hub.find(|earlier| earlier.targets.iter().any(|pattern| pattern.covers(target)))
    };
    let taken: Vec<_> = rule.targets.iter().filter_map(|target| Some((target, earlier(target)?))).collect();
    let (target, first) = taken.first()?;
    let (label, other) = (&rule.label, &first.label);
    Some(match taken.len() == rule.targets.len() {
        true => format!("message rule {label} matches nothing: message rule {other} already takes \"{target}\""),
        false => format!("message rule {label} never matches \"{target}\": message rule {other} takes it"),
    })
}

fn method_warnings(rule: &MethodRule, warnings: &mut Vec<String>) {
    let per_second = rule.per_second.iter().map(|(pattern, _)| ("per-second", pattern));
    let max_bytes = rule.max_bytes.iter().map(|(pattern, _)| ("max-bytes", pattern));
    let mut seen: Vec<(&str, &TargetPattern)> = Vec::new();
    for (key, pattern) in per_second.chain(max_bytes) {
        let label = &rule.label;
        if rule.deny.iter().any(|denied| denied.covers(pattern)) {
            warnings.push(format!("method rule {label} limits \"{pattern}\" by {key}, but denies it anyway"));
        } else if let Some((_, wide)) = seen.iter().find(|(of, wide)| *of == key && wide.covers(pattern)) {
            warnings.push(format!("method rule {label} never counts \"{pattern}\" in {key}: \"{wide}\" comes first"));
        }
        seen.push((key, pattern));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &str = "
        groups.a.upstream = 'http://a'
        groups.b.upstream = 'http://b'
    ";

    fn warnings(text: &str) -> Vec<String> {
        let upstreams = ["http://app".parse().unwrap()];
        let mut warnings = Ruleset::parse(&format!("{GROUPS}{text}")).unwrap().warnings(&upstreams);
        warnings.retain(|warning| !warning.starts_with("no rule uses group"));
        warnings
    }

    fn routes(routes: &[&str]) -> Vec<String> {
        warnings(&routes.iter().map(|route| format!("[[routes]]\n{route}\n")).collect::<String>())
    }

    #[test]
    fn routes_that_nothing_reaches_are_named_with_the_one_that_takes_all() {
        let taken = |one: &str| format!("route 2 matches nothing: route {one} takes all its clients");
        for (earlier, later) in [
            ("group = 'a'", "hub = 'chat'\nreject = 403"),
            ("hub = 'c*'\ngroup = 'a'", "hub = ['chat', 'cat']\nuser = 'ann'\ngroup = 'b'"),
            ("user = 'a*'\ngroup = 'a'", "user = 'ann'\ngroup = 'b'"),
            ("address = '10.0.0.0/8'\nreject = 403", "address = '10.1.0.0/16'\ngroup = 'b'"),
            ("percent = 10\ngroup = 'a'", "percent = 5\ngroup = 'a'"),
            ("hub = '*'\npercent = 100\ngroup = 'a'", "hub = 'chat'\ngroup = 'b'"),
            (
                "header = { name = 'x', present = true }\nreject = 403",
                "header = { name = 'x', equals = 'y' }\ngroup = 'a'",
            ),
        ] {
            assert_eq!(routes(&[earlier, later]), [taken("1")], "{earlier} {later}");
        }
    }

    #[test]
    fn routes_that_something_reaches_are_not_warned_about() {
        for (earlier, later) in [
            ("hub = 'chat'\ngroup = 'a'", "group = 'b'"),
            ("next = true", "hub = 'chat'\ngroup = 'b'"),
            ("group = 'a'\non-down = 'next'", "group = 'b'"),
            ("percent = 10\ngroup = 'a'", "percent = 20\ngroup = 'a'"),
            ("percent = 100\ngroup = 'a'", "group = 'b'"),
            ("hub = 'chat'\nuser = 'ann'\ngroup = 'a'", "hub = 'chat'\ngroup = 'b'"),
            (
                "query = { name = 'x', present = true }\nreject = 403",
                "query = { name = 'x', present = false }\ngroup = 'b'",
            ),
        ] {
            assert_eq!(routes(&[earlier, later]), [""; 0], "{earlier} {later}");
        }
    }

    #[test]
    fn percentages_of_the_rest_and_of_no_clients_are_reported() {
        assert_eq!(
            routes(&["hub = 'chat'\npercent = 20\ngroup = 'a'", "hub = 'chat'\npercent = 10\ngroup = 'b'"]),
            ["route 2 takes 10 % of the clients left by route 1, which is 8.00 % of all"]
        );
        assert_eq!(routes(&["percent = 0\ngroup = 'a'"]), ["route 1 matches nothing: its percent is 0"]);
    }

    #[test]
    fn methods_that_two_message_rules_claim_are_named() {
        let rule = |hub: &str, target: &str| format!("[[messages]]\nhub = '{hub}'\ntarget = {target}\ngroup = 'a'\n");
        let admin = rule("chat", "'Admin*'");
        assert_eq!(
            warnings(&(admin.clone() + &rule("chat", "['adminList']"))),
            ["message rule 2 matches nothing: message rule 1 already takes \"adminList\""]
        );
        assert_eq!(
            warnings(&(admin.clone() + &rule("chat", "['Say', 'AdminList']"))),
            ["message rule 2 never matches \"AdminList\": message rule 1 takes it"]
        );
        assert_eq!(warnings(&(admin + &rule("*", "'AdminList'"))), [""; 0]);
    }

    #[test]
    fn limits_that_never_count_and_idle_mirrors_are_named() {
        assert_eq!(
            warnings("[[methods]]\nhub = '*'\ndeny = 'Debug*'\nper-second = { debugAll = 1, '*' = 9, 'S*' = 5 }"),
            [
                "method rule 1 limits \"debugAll\" by per-second, but denies it anyway",
                "method rule 1 never counts \"S*\" in per-second: \"*\" comes first",
            ]
        );
        let mirror = "[[mirrors]]\nhub = '*'\ngroup = 'a'\n";
        assert_eq!(
            warnings(&format!("{mirror}{mirror}sample = 0")),
            ["mirror 2 copies nothing: its sample is 0", "mirror 2 copies the same messages to group a as mirror 1"]
        );
    }

    #[test]
    fn groups_without_rules_and_rules_without_upstreams_are_named() {
        let text = format!(
            "groups.default.weights = {{ 'http://gone' = 2 }}\n{GROUPS}[[routes]]\nhub = 'chat'\ngroup = 'default'"
        );
        assert_eq!(
            Ruleset::parse(&text).unwrap().warnings(&[]),
            [
                "no rule uses group a",
                "no rule uses group b",
                "route 1 uses group default, but there is no upstream",
                "http://gone:80 has a weight in [groups.default], but is not an upstream",
            ]
        );
    }
}
