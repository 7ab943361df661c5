//! Texts of rules for people, as printed by `trunkline check`.

use std::fmt::{self, Display};

use super::route_condition::{Condition, ValueTest};
use super::rule::{GroupRule, MessageRule, MethodRule, MirrorRule, OnDown, RouteAction, RouteRule};

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
