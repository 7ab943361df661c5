//! Checks the webhook of the hub: what the nodes report about the answers of its back end.

use trunkline_proxy::parts::{FleetSnapshot, WebhookSnapshot};

use super::condition_check::{ReportingNode, read};
use super::finding::Finding;
use crate::quantity::duration_text;

const WEBHOOK: &str = "webhook";

const ADVICE: &str = "check that the back end runs, that its URL is correct (--upstream-webhook), and what it \
                      answers; a 401 is about --webhook-secret";

/// Reads the state of the hub's webhook at each node. Called last, because the checks of clients send events.
pub(super) async fn check_webhooks(port: &ReportingNode<'_>, hub: &str) -> Vec<Finding> {
    let fleet = read::<FleetSnapshot>(port, "/api/fleet?fresh=1").await.unwrap_or_default();
    judge_webhooks(&fleet, hub)
}

fn judge_webhooks(fleet: &FleetSnapshot, hub: &str) -> Vec<Finding> {
    let pools = fleet.nodes.iter().flat_map(|node| node.links.iter().map(move |pool| (node, pool)));
    let of_hub = pools.filter(|(_, pool)| pool.hub.eq_ignore_ascii_case(hub));
    let webhooks = of_hub.filter_map(|(node, pool)| Some((node, pool, pool.webhook.as_ref()?)));
    webhooks.map(|(node, pool, webhook)| judge(&node.name, &pool.address, webhook, fleet.at_ms)).collect()
}

fn judge(node: &str, address: &str, webhook: &WebhookSnapshot, at_ms: u64) -> Finding {
    let WebhookSnapshot { requests, failures, latency_us, failing_since_ms, problem, .. } = webhook;
    match failing_since_ms {
        Some(since_ms) => {
            let time = std::time::Duration::from_secs(at_ms.saturating_sub(*since_ms) / 1000);
            let problem = problem.as_deref().unwrap_or_default();
            let seen = format!("no valid answer at {node} for {}: {problem}", duration_text(time));
            Finding::failed(WEBHOOK, seen, ADVICE)
        }
        None if *requests == 0 => Finding::ok(WEBHOOK, format!("no request of {node} yet: {address}")),
        None => {
            let latency = super::finding::milliseconds_text(std::time::Duration::from_micros(*latency_us));
            let seen = format!("the back end answers {node} in {latency}: {requests} requests, {failures} failed");
            match failures < requests {
                true => Finding::ok(WEBHOOK, seen),
                false => Finding::warning(WEBHOOK, seen, ADVICE),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use trunkline_proxy::parts::{NodeSnapshot, PoolSnapshot};

    use super::super::finding::Verdict;
    use super::*;

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
