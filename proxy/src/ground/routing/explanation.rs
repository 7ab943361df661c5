//! Explains how the rules treat a sample: which rules match, and why earlier ones do not. Also the texts of rules,
//! as printed by `trunkline check`.

use std::fmt::{self, Display};

use super::hub_rules::{HubRules, MethodVerdict};
use super::route_condition::{Condition, RouteFacts, Share, ValueTest};
use super::rule::{
    DEFAULT_GROUP, GroupRule, HistoryRule, HistoryTerms, MessageRule, MethodRule, MirrorRule, OnDown, RecordedSets,
    RouteAction, RouteRule,
};
use super::ruleset::Ruleset;
use super::sample::RuleSample;

/// Explanation of the rules' effect on a sample, line by line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation(Vec<String>);

impl Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n  "))
    }
}

impl Ruleset {
    /// Explains the effect on a sample if all app servers are up.
    #[must_use]
    pub fn explain(&self, sample: &RuleSample) -> Explanation {
        let mut lines = vec![sample.text.clone()];
        let is_let_in = self.explain_routes(&sample.facts(), &mut lines);
        if let Some(hub) = sample.facts().hub.filter(|_| is_let_in) {
            if let Some(target) = &sample.target {
                self.explain_message(hub, target, sample.bytes.unwrap_or_default(), &mut lines);
            }
            self.explain_mirrors(hub, sample.facts().connection_id, &mut lines);
        }
        Explanation(lines)
    }

    /// Explains the routes; returns whether the connection or request is accepted.
    fn explain_routes(&self, facts: &RouteFacts<'_>, lines: &mut Vec<String>) -> bool {
        let kind = if facts.hub.is_some() { "connection" } else { "request" };
        for rule in &self.routes {
            let label = &rule.label;
            if let Some(failing) = rule.first_failing(facts) {
                lines.push(format!("route {label} does not hold: {failing}{}", reason(failing, facts)));
                continue;
            }
            lines.push(match (&rule.action, rule.on_down) {
                (RouteAction::Group(_), OnDown::Next) => {
                    format!("route {label} holds: {}, while any app server of it is up", rule.action)
                }
                _ => format!("route {label} holds: {}", rule.action),
            });
            match &rule.action {
                RouteAction::Next => {}
                RouteAction::Group(group) => {
                    lines.push(format!("=> {kind}: group {group}"));
                    return true;
                }
                RouteAction::Reject(rejection) => {
                    lines.push(format!("=> {kind}: refused with {}", rejection.status.as_u16()));
                    return false;
                }
            }
        }
        lines.push(format!("=> {kind}: group {DEFAULT_GROUP}, as no route takes it"));
        true
    }

    fn explain_message(&self, hub: &str, target: &str, bytes: usize, lines: &mut Vec<String>) {
        let mut refusal = None;
        for rule in &self.methods {
            let label = &rule.label;
            lines.push(match HubRules::new([], [rule], [], []).judge(target, bytes) {
                _ if !rule.hub.matches(hub) => {
                    format!("method rule {label} does not hold: hub is \"{}\"", rule.hub)
                }
                MethodVerdict::Allowed => format!("method rule {label} allows it"),
                MethodVerdict::Limited { method, per_second, .. } => {
                    format!("method rule {label} allows it: {per_second} calls of \"{method}\" a second for each user")
                }
                MethodVerdict::Refused { text, .. } => {
                    refusal.get_or_insert(text);
                    format!("method rule {label} refuses it")
                }
            });
        }
        if let Some(text) = refusal {
            lines.push(format!("=> message: refused. {text}"));
            return;
        }
        for rule in &self.messages {
            let label = &rule.label;
            if !rule.hub.matches(hub) {
                lines.push(format!("message rule {label} does not hold: hub is \"{}\"", rule.hub));
            } else if rule.targets.iter().any(|pattern| pattern.matches(target)) {
                lines.push(format!("message rule {label} holds"));
                lines.push(format!("=> message: group {}", rule.group));
                return;
            } else {
                lines.push(format!("message rule {label} does not hold: target is {}", any_of(&rule.targets)));
            }
        }
        lines.push("=> message: the app server of its connection".to_owned());
    }

    fn explain_mirrors(&self, hub: &str, connection_id: Option<&str>, lines: &mut Vec<String>) {
        for mirror in &self.mirrors {
            let label = &mirror.label;
            lines.push(match mirror.hub.matches(hub) {
                true => format!("mirror {label} {}", copies(mirror, connection_id)),
                false => format!("mirror {label} does not hold: hub is \"{}\"", mirror.hub),
            });
        }
    }
}

fn copies(mirror: &MirrorRule, connection_id: Option<&str>) -> String {
    let (group, sample) = (&mirror.group, mirror.sample);
    match connection_id {
        _ if sample >= 1.0 => format!("holds: copies to group {group}"),
        Some(id) if mirror.samples(id) => format!("holds: copies to group {group}"),
        Some(id) => format!("does not hold: sample is {sample}{}", place(&mirror.group, "connection", id, 1.0)),
        None => format!(
            "copies a share of {sample} to group {group}; add connection=ID to see whether this connection is copied"
        ),
    }
}

/// Reason why a condition fails, unless it is obvious.
fn reason(failing: &Condition, facts: &RouteFacts<'_>) -> String {
    let is_unknown = match failing {
        Condition::Hub(_) => facts.hub.is_none(),
        Condition::User(_) => facts.user.is_none(),
        Condition::Address(_) => facts.address.is_none(),
        Condition::Percent { .. } => facts.user.or(facts.connection_id).is_none(),
        Condition::Path(_) | Condition::Value { .. } => false,
    };
    match (failing, facts.user, facts.connection_id) {
        _ if is_unknown => " (not known)".to_owned(),
        (Condition::Percent { salt, .. }, Some(user), _) => place(salt, "user", user, 100.0),
        (Condition::Percent { salt, .. }, None, Some(id)) => place(salt, "connection", id, 100.0),
        _ => String::new(),
    }
}

/// Position of a user or connection, scaled to `whole`.
fn place(salt: &str, kind: &str, key: &str, whole: f64) -> String {
    format!(" ({kind} {key} is at {:.3})", Share::of(salt, key).of_whole(whole))
}

/// Joins quoted texts as alternatives.
pub(super) fn any_of<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| format!("\"{item}\"")).collect();
    items.join(" or ")
}

impl Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(patterns) => write!(f, "hub is {}", any_of(patterns)),
            Self::Path(patterns) => write!(f, "path is {}", any_of(patterns)),
            Self::User(patterns) => write!(f, "user is {}", any_of(patterns)),
            Self::Address(networks) => write!(f, "address is in {}", any_of(networks)),
            Self::Percent { percent, .. } => write!(f, "percent is {percent}"),
            Self::Value { source, name, test } => {
                write!(f, "{} {name:?} ", source.key())?;
                match test {
                    ValueTest::Equals(text) => write!(f, "equals {text:?}"),
                    ValueTest::Prefix(text) => write!(f, "begins with {text:?}"),
                    ValueTest::Present => f.write_str("is present"),
                    ValueTest::Absent => f.write_str("is absent"),
                }
            }
        }
    }
}

impl Display for RouteAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(group) => write!(f, "group {group}"),
            Self::Reject(rejection) => write!(f, "rejection with {}", rejection.status.as_u16()),
            Self::Next => f.write_str("counted, then the next routes apply"),
        }
    }
}

impl Display for RouteRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions: Vec<_> = self.conditions.iter().map(ToString::to_string).collect();
        let conditions = if conditions.is_empty() { "anything".to_owned() } else { conditions.join(", ") };
        write!(f, "route {}: {conditions} -> {}", self.label, self.action)?;
        match self.on_down {
            OnDown::Wait => Ok(()),
            OnDown::Next => f.write_str(", or the next routes while the group is down"),
        }
    }
}

impl Display for GroupRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.upstreams.iter().map(|upstream| match upstream.weight {
            1 => upstream.address.to_string(),
            weight => format!("{} (weight {weight})", upstream.address),
        });
        write!(f, "group {}: {}", self.name, shown.collect::<Vec<_>>().join(", "))?;
        self.pool_size.map_or(Ok(()), |size| write!(f, ", pool-size {size}"))?;
        f.write_str(if self.keys.is_some() { ", own access keys" } else { "" })?;
        let has_tls = !self.roots.is_empty() || self.identity.is_some();
        f.write_str(if has_tls { ", own TLS" } else { "" })
    }
}

impl Display for MessageRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, hub, targets, group } = self;
        write!(f, "message rule {label}: hub is \"{hub}\", target is {} -> group {group}", any_of(targets))
    }
}

impl Display for MirrorRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mirror {}: hub is \"{}\", sample {} -> group {}", self.label, self.hub, self.sample, self.group)?;
        f.write_str(if self.copies_down { ", messages down, too" } else { "" })
    }
}

impl Display for MethodRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "method rule {}: hub is \"{}\" ->", self.label, self.hub)?;
        let mut parts = Vec::new();
        if !self.deny.is_empty() {
            parts.push(format!("deny {}", any_of(&self.deny)));
        }
        parts.extend(self.allow.as_ref().map(|allow| format!("allow only {}", any_of(allow))));
        parts.extend(self.per_second.iter().map(|(method, most)| format!("\"{method}\" {most} times a second")));
        parts.extend(self.max_bytes.iter().map(|(method, most)| format!("\"{method}\" with at most {most} bytes")));
        write!(f, " {}", parts.join("; "))
    }
}

impl Display for HistoryRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, hub, sets: RecordedSets { of_users, names, terms } } = self;
        let HistoryTerms { messages, age } = terms;
        let sets = if *of_users { "users" } else { "groups" };
        let age = humantime::format_duration(*age);
        write!(
            f,
            "history rule {label}: hub is \"{hub}\" -> record {sets} {}, {messages} messages for {age}",
            any_of(names)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "
        groups.canary.upstream = 'http://canary'
        groups.admin.upstream = 'http://admin'
        groups.audit.upstream = 'http://audit'
        [[routes]]
        hub = 'chat'
        percent = 10
        group = 'canary'
        on-down = 'next'
        [[routes]]
        name = 'count'
        next = true
        [[routes]]
        name = 'closed'
        header = { name = 'x-tenant', equals = 'acme' }
        reject = 403
        [[messages]]
        hub = 'chat'
        target = ['Admin*', 'Ban']
        group = 'admin'
        [[mirrors]]
        hub = 'chat'
        group = 'audit'
        sample = 0.5
        [[methods]]
        hub = 'chat'
        deny = 'Debug*'
        per-second = { Say = 20 }
        max-bytes = { '*' = 100 }
    ";

    fn explained(sample: &str) -> Vec<String> {
        Ruleset::parse(RULES).unwrap().explain(&sample.parse().unwrap()).0.split_off(1)
    }

    #[test]
    fn an_explanation_names_the_matching_rules_and_why_earlier_ones_do_not_match() {
        assert_eq!(
            explained("hub=chat user=ann target=Say"),
            [
                "route 1 does not hold: percent is 10 (user ann is at 93.255)",
                "route count holds: counted, then the next routes apply",
                "route closed does not hold: header \"x-tenant\" equals \"acme\"",
                "=> connection: group default, as no route takes it",
                "method rule 1 allows it: 20 calls of \"Say\" a second for each user",
                "message rule 1 does not hold: target is \"Admin*\" or \"Ban\"",
                "=> message: the app server of its connection",
                "mirror 1 copies a share of 0.5 to group audit; add connection=ID to see whether this connection is \
                 copied",
            ]
        );
        let bob = explained("hub=chat user=bob target=ban connection=id");
        assert_eq!(
            bob[..4],
            [
                "route 1 holds: group canary, while any app server of it is up",
                "=> connection: group canary",
                "method rule 1 allows it",
                "message rule 1 holds",
            ]
        );
        assert_eq!(bob[4], "=> message: group admin");
    }

    #[test]
    fn refusals_contain_the_text_for_the_client() {
        let refused = explained("hub=chat user=bob target=DebugAll");
        assert_eq!(
            refused[2..4],
            [
                "method rule 1 refuses it",
                "=> message: refused. The method 'DebugAll' can't be called: the server's rules refuse it.",
            ]
        );
        let large = explained("hub=chat user=bob target=Move bytes=101");
        assert!(large.iter().any(|line| line.contains("with a message of more than 100 bytes")), "{large:?}");
        let request = explained("path=/page header:X-Tenant=acme");
        assert_eq!(
            request,
            [
                "route 1 does not hold: hub is \"/chat\" (not known)",
                "route count holds: counted, then the next routes apply",
                "route closed holds: rejection with 403",
                "=> request: refused with 403",
            ]
        );
    }
}
