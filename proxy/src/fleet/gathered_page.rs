//! Pages of a group's members, filled node by node.

use std::sync::Arc;

use trunkline_protocol::service::{
    Ack, AckStatus, GroupMember, GroupMemberQuery, MEMBERS_PER_PAGE_MAX, MemberPage, ServiceMessage,
};

use super::fleet_core::Fleet;
use super::fleet_member::FleetMember;
use crate::engine::upstream::{AppServerId, HubIndex};

/// Hub of a query, as this and other nodes identify it.
#[derive(Debug)]
pub(super) struct QuestionedHub {
    /// Fleet-wide key of the hub.
    pub(super) key: String,
    /// Local index, if this node should answer too.
    pub(super) here: Option<HubIndex>,
    pub(super) app: AppServerId,
}

struct GatheredPage {
    members: Vec<GroupMember>,
    max: usize,
    /// The app server wants no further page.
    is_last: bool,
}

impl GatheredPage {
    fn of(query: &GroupMemberQuery) -> Self {
        let number = |number: i64| usize::try_from(number).unwrap_or(0);
        let page = query.page_size.map_or(MEMBERS_PER_PAGE_MAX, |size| number(size).clamp(1, MEMBERS_PER_PAGE_MAX));
        let top = query.top.map_or(usize::MAX, number);
        Self { members: Vec::new(), max: page.min(top), is_last: top <= page }
    }

    fn room(&self) -> usize {
        self.max - self.members.len().min(self.max)
    }
}

/// Lists a group's members at this node, if queried, and at others. The page token names the next node. Nodes without
/// an answer are added to `missing`, or are an error without it.
pub(super) async fn page_of(
    fleet: &Fleet,
    hub: &QuestionedHub,
    query: GroupMemberQuery,
    others: Vec<Arc<FleetMember>>,
    mut missing: Option<&mut Vec<String>>,
) -> Result<MemberPage, (AckStatus, String)> {
    let own = hub.here.is_some().then_some(None);
    let mut nodes: Vec<_> = others.into_iter().map(Some).chain(own).collect();
    let boot = |node: &Option<Arc<FleetMember>>| match node {
        Some(member) => member.boot().to_owned(),
        None => fleet.shared().boot.clone(),
    };
    nodes.sort_by_key(boot);
    let mut page = GatheredPage::of(&query);
    let mut token = query.continuation_token.clone();
    if let Some(token) = &token {
        let begun = nodes.iter().position(|node| is_token_of(token, &boot(node)));
        nodes.drain(..begun.ok_or_else(|| failed("the continuation token is from a node that is not in the fleet"))?);
    }
    for node in nodes {
        loop {
            if page.room() == 0 {
                let first = || format!("{}.0.0", boot(&node)).into();
                let token = (!page.is_last).then(|| token.take().unwrap_or_else(first));
                return Ok(MemberPage { members: page.members, continuation_token: token, count: None });
            }
            let page_size = Some(i64::try_from(page.room()).unwrap_or(i64::MAX));
            let part = GroupMemberQuery { page_size, top: None, continuation_token: token.take(), ..query.clone() };
            let part = match (part_of(fleet, hub, part, node.as_ref()).await, &mut missing, &node) {
                (Err((AckStatus::Timeout, _)), Some(missing), Some(member)) => {
                    missing.push(member.name().to_owned());
                    break;
                }
                (part, ..) => part?,
            };
            page.members.extend(part.members);
            token = part.continuation_token;
            if token.is_none() {
                break;
            }
        }
    }
    Ok(MemberPage { members: page.members, ..MemberPage::default() })
}

async fn part_of(
    fleet: &Fleet,
    hub: &QuestionedHub,
    query: GroupMemberQuery,
    node: Option<&Arc<FleetMember>>,
) -> Result<MemberPage, (AckStatus, String)> {
    let question = ServiceMessage::GroupMemberQuery(query);
    let answer = match node {
        None => Ok(match hub.here {
            Some(here) => fleet.fleet_relay().ask_here((here, hub.app), question).await,
            None => None,
        }),
        Some(member) => {
            let mut answers = fleet.ask(vec![member.clone()], &hub.key, &question.to_body()).await;
            answers.pop().map_or(Ok(None), |(_, answer)| answer)
        }
    };
    match answer {
        Ok(Some(ServiceMessage::Ack(Ack { status: AckStatus::Ok, payload: Some(payload), .. }))) => {
            MemberPage::from_payload(&payload).map_err(|error| failed(&error.to_string()))
        }
        Ok(Some(ServiceMessage::Ack(ack))) => Err((ack.status, ack.message.unwrap_or_default().to_string())),
        // That node does not have the hub.
        Ok(_) => Ok(MemberPage::default()),
        Err(cause) => Err((AckStatus::Timeout, format!("a node does not answer: {cause}"))),
    }
}

fn failed(problem: &str) -> (AckStatus, String) {
    (AckStatus::InternalServerError, problem.to_owned())
}

fn is_token_of(token: &str, boot: &str) -> bool {
    token.strip_prefix(boot).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_the_node_that_it_names() {
        assert!(is_token_of("boot.0.0", "boot") && !is_token_of("boot2.0.0", "boot") && !is_token_of("boot", "boot"));
    }
}
