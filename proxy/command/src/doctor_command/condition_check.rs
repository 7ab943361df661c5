//! Checks the conditions that the nodes report themselves, before any symptom.

use serde::de::DeserializeOwned;
use trunkline_proxy::parts::{ConditionSnapshot, FleetConditions};

use super::finding::{Finding, Verdict};
use crate::admin_client::{ADMIN_DEFAULT, AdminTokenArgs};
use crate::admin_port::AdminPort;

const CONDITIONS: &str = "conditions";

/// Maximum answer size: a thousand conditions of several nodes.
const ANSWER_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Node that reports its state at its admin port.
#[derive(Debug)]
pub(super) struct ReportingNode<'a> {
    url: &'a str,
    is_given: bool,
    token: &'a AdminTokenArgs,
}

impl<'a> ReportingNode<'a> {
    /// The given port. Without `--admin`, only a hub on this machine has a known one.
    pub(super) fn new(admin: Option<&'a str>, is_local: bool, token: &'a AdminTokenArgs) -> Option<Self> {
        let url = admin.or(is_local.then_some(ADMIN_DEFAULT))?;
        Some(Self { url, is_given: admin.is_some(), token })
    }
}

/// Reads the conditions from an admin port. A missing answer is a finding only if the port is given.
pub(super) async fn check_conditions(port: &ReportingNode<'_>) -> Vec<Finding> {
    match read(port, "/api/conditions").await {
        Ok(conditions) => judge_conditions(&conditions),
        Err(problem) if port.is_given => {
            let advice = "give the admin port of a node by --admin, and its token by --admin-token";
            vec![Finding::warning(CONDITIONS, format!("no list of conditions: {problem}"), advice)]
        }
        Err(_) => Vec::new(),
    }
}

pub(super) async fn read<T: DeserializeOwned>(port: &ReportingNode<'_>, path: &'static str) -> anyhow::Result<T> {
    AdminPort::new(port.url, port.token, ANSWER_MAX_BYTES)?.get(path).await
}

fn judge_conditions(FleetConditions { conditions, missing }: &FleetConditions) -> Vec<Finding> {
    let active = conditions.iter().filter(|condition| condition.ended_ms.is_none());
    let mut findings: Vec<_> = active.map(judge).collect();
    if !missing.is_empty() {
        let seen = format!("no answer from: {}", missing.join(", "));
        findings.push(Finding::warning(CONDITIONS, seen, "check that these nodes run"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CONDITIONS, "the nodes report no condition"));
    }
    findings
}

fn judge(condition: &ConditionSnapshot) -> Finding {
    let ConditionSnapshot { node, name, subject, text, detail, remedy, .. } = condition;
    let finding = Finding::warning(CONDITIONS, format!("{name} at {node}: {subject}: {text}: {detail}"), remedy);
    let verdict = if condition.severity == "error" { Verdict::Failed } else { finding.verdict };
    Finding { verdict, ..finding }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_conditions_are_findings_by_severity_and_ended_ones_are_not() {
        let condition = |severity: &str, ended_ms| ConditionSnapshot {
            severity: severity.into(),
            name: "hub-without-app-server".into(),
            ended_ms,
            ..ConditionSnapshot::default()
        };
        let verdicts = |conditions| {
            let findings = judge_conditions(&FleetConditions { conditions, missing: Vec::new() });
            findings.into_iter().map(|finding| finding.verdict).collect::<Vec<_>>()
        };
        let all = vec![condition("error", None), condition("warning", None), condition("error", Some(1))];
        assert_eq!(verdicts(all), [Verdict::Failed, Verdict::Warning]);
        assert_eq!(verdicts(vec![condition("error", Some(1))]), [Verdict::Ok]);
    }
}
