//! Checks what the nodes report themselves: conditions, before any symptom, and the answers to the hub's webhook.

use std::time::Duration;

use serde::de::DeserializeOwned;
use trunkline_proxy::parts::{ConditionSnapshot, FleetConditions, FleetSnapshot, WebhookSnapshot};

use super::finding::{Finding, Verdict, milliseconds_text};
use crate::admin_client::{ADMIN_DEFAULT, AdminPort, AdminTokenArgs};
use crate::quantity::duration_text;

const CONDITIONS: &str = "conditions";
const WEBHOOK: &str = "webhook";

const WEBHOOK_ADVICE: &str = "check that the back end runs, that its URL is correct (--upstream-webhook), and what it \
                              answers; a 401 is about --webhook-secret";

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

async fn read<T: DeserializeOwned>(port: &ReportingNode<'_>, path: &'static str) -> anyhow::Result<T> {
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

/// Reads the state of the hub's webhook at each node. Called last, because the checks of clients send events.
pub(super) async fn check_webhooks(port: &ReportingNode<'_>, hub: &str) -> Vec<Finding> {
    let fleet = read::<FleetSnapshot>(port, "/api/fleet?fresh=1").await.unwrap_or_default();
    judge_webhooks(&fleet, hub)
}

fn judge_webhooks(fleet: &FleetSnapshot, hub: &str) -> Vec<Finding> {
    let pools = fleet.nodes.iter().flat_map(|node| node.links.iter().map(move |pool| (node, pool)));
    let of_hub = pools.filter(|(_, pool)| pool.hub.eq_ignore_ascii_case(hub));
    let webhooks = of_hub.filter_map(|(node, pool)| Some((node, pool, pool.webhook.as_ref()?)));
    webhooks.map(|(node, pool, webhook)| judge_webhook(&node.name, &pool.address, webhook, fleet.at_ms)).collect()
}

fn judge_webhook(node: &str, address: &str, webhook: &WebhookSnapshot, at_ms: u64) -> Finding {
    let WebhookSnapshot { requests, failures, latency_us, failing_since_ms, problem, .. } = webhook;
    match failing_since_ms {
        Some(since_ms) => {
            let time = Duration::from_secs(at_ms.saturating_sub(*since_ms) / 1000);
            let problem = problem.as_deref().unwrap_or_default();
            let seen = format!("no valid answer at {node} for {}: {problem}", duration_text(time));
            Finding::failed(WEBHOOK, seen, WEBHOOK_ADVICE)
        }
        None if *requests == 0 => Finding::ok(WEBHOOK, format!("no request of {node} yet: {address}")),
        None => {
            let latency = milliseconds_text(Duration::from_micros(*latency_us));
            let seen = format!("the back end answers {node} in {latency}: {requests} requests, {failures} failed");
            match failures < requests {
                true => Finding::ok(WEBHOOK, seen),
                false => Finding::warning(WEBHOOK, seen, WEBHOOK_ADVICE),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use trunkline_proxy::parts::{NodeSnapshot, PoolSnapshot};

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

    #[test]
    fn a_webhook_that_fails_is_a_failure_with_its_problem_and_other_hubs_are_left_out() {
        let pool = |hub: &str, webhook| PoolSnapshot { hub: hub.into(), webhook, ..PoolSnapshot::default() };
        let fails = WebhookSnapshot {
            failing_since_ms: Some(5_000),
            problem: Some("connected: connection refused".into()),
            ..WebhookSnapshot::default()
        };
        let answers = WebhookSnapshot { requests: 7, latency_us: 12_000, ..WebhookSnapshot::default() };
        let refuses = WebhookSnapshot { requests: 1, failures: 1, ..WebhookSnapshot::default() };
        let links = vec![
            pool("chat", Some(fails)),
            pool("Chat", Some(answers)),
            pool("chat", Some(refuses)),
            pool("news", None),
        ];
        let node = NodeSnapshot { name: "n1".into(), links, ..NodeSnapshot::default() };
        let found =
            judge_webhooks(&FleetSnapshot { at_ms: 65_000, nodes: vec![node], ..FleetSnapshot::default() }, "chat");
        assert_eq!(
            found.iter().map(|one| one.verdict).collect::<Vec<_>>(),
            [Verdict::Failed, Verdict::Ok, Verdict::Warning]
        );
        assert_eq!(found[0].seen, "no valid answer at n1 for 1m: connected: connection refused");
        assert_eq!(found[1].seen, "the back end answers n1 in 12 ms: 7 requests, 0 failed");
    }
}
