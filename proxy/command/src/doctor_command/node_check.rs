//! Checks routing of an id to its node: repeated negotiations and connects, each over a new connection.

use std::collections::BTreeMap;

use trunkline_protocol::manifest::{NODE_HEADER, Transport};

use super::finding::Finding;
use super::hub_connection::HubConnection;
use super::negotiate_check::{Negotiated, check_negotiate, transport_name};
use super::probe_client::{AnswerSeen, ProbeClient};

const NODES: &str = "nodes";
const PAIRS: usize = 8;

/// Maximum number of listed nodes; more are only counted.
const NAMED_MAX: usize = 8;

/// Result of one pair: the negotiating node, and the error of the connect, if any.
#[derive(Debug)]
struct PairSeen {
    node: Option<String>,
    problem: Option<String>,
}

/// Negotiates and connects several times, over the transport most sensitive to routing.
pub(super) async fn check_nodes(client: &ProbeClient, offered: &[Transport]) -> Option<Finding> {
    let order = [Transport::LongPolling, Transport::ServerSentEvents, Transport::WebSockets];
    let transport = order.into_iter().find(|transport| offered.contains(transport))?;
    let mut pairs = Vec::new();
    for number in 0..PAIRS {
        if number % 2 == 1 {
            // Varying the number of requests avoids synchrony with a round-robin balancer.
            drop(client.negotiate().await);
        }
        pairs.push(try_pair(client, transport).await);
    }
    Some(judge_pairs(&pairs, transport))
}

async fn try_pair(client: &ProbeClient, transport: Transport) -> PairSeen {
    let negotiation = check_negotiate(client).await;
    let node = negotiation.answer.as_ref().and_then(|answer| answer.header(NODE_HEADER)).map(str::to_owned);
    let Some(Negotiated { id, .. }) = negotiation.negotiated else {
        let problem = negotiation.findings.last().map(|finding| finding.seen.clone());
        return PairSeen { node, problem: Some(problem.unwrap_or_default()) };
    };
    let problem = match HubConnection::open(&negotiation.client, &id, transport).await {
        Ok(connection) => {
            connection.close().await;
            None
        }
        Err(error) => Some(error.to_string()),
    };
    PairSeen { node, problem }
}

fn judge_pairs(pairs: &[PairSeen], transport: Transport) -> Finding {
    let by = named(pairs);
    let problems: Vec<_> = pairs.iter().filter_map(|pair| pair.problem.as_deref()).collect();
    match problems.first() {
        None => Finding::ok(NODES, format!("{} of {} connections reached their node; {by}", pairs.len(), pairs.len())),
        Some(first) => Finding::failed(
            NODES,
            format!(
                "{} of {} connections failed by {}: {first}; {by}",
                problems.len(),
                pairs.len(),
                transport_name(transport)
            ),
            "give all nodes the same --access-key, and check that they reach each other at their --advertise \
             addresses, or give them --no-forward; a server without connection tokens needs stickiness in the load \
             balancer",
        ),
    }
}

fn named(pairs: &[PairSeen]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for node in pairs.iter().filter_map(|pair| pair.node.as_deref()) {
        *counts.entry(node).or_default() += 1;
    }
    let shown: Vec<_> = counts.iter().take(NAMED_MAX).map(|(node, count)| format!("{node} ({count})")).collect();
    match counts.len() {
        0 => "no response names a node".to_owned(),
        1 => format!("all negotiated by {}", shown.concat()),
        count => format!("negotiated by {count} nodes: {}", shown.join(", ")),
    }
}

pub(super) fn judge_node_name(answer: &AnswerSeen) -> Option<Finding> {
    match answer.header(NODE_HEADER) {
        Some(_) => None,
        None => Some(Finding::warning(
            NODES,
            "the response does not name the node (X-Trunkline-Node)",
            "let the load balancer forward this header, which names the node. Servers other than Trunkline don't send \
             it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn pair(node: &str, problem: Option<&str>) -> PairSeen {
        PairSeen { node: Some(node.to_owned()).filter(|node| !node.is_empty()), problem: problem.map(str::to_owned) }
    }

    #[test]
    fn ids_that_find_their_nodes_are_counted_by_node() {
        let finding = judge_pairs(&[pair("b", None), pair("a", None), pair("b", None)], Transport::LongPolling);
        assert_eq!(finding.verdict, Verdict::Ok);
        assert_eq!(finding.seen, "3 of 3 connections reached their node; negotiated by 2 nodes: a (1), b (2)");
        assert!(judge_pairs(&[pair("", None)], Transport::LongPolling).seen.ends_with("no response names a node"));
    }

    #[test]
    fn one_id_that_is_lost_fails_with_its_answer() {
        let finding = judge_pairs(&[pair("a", None), pair("a", Some("the response is 404"))], Transport::LongPolling);
        assert_eq!(finding.verdict, Verdict::Failed);
        assert!(finding.seen.starts_with("1 of 2 connections failed by LongPolling: the response is 404"), "{finding}");
    }
}
