//! Combination of the answers of several nodes to one query, and pages of a group's members, filled node by node.

use std::sync::Arc;

use bytestring::ByteString;
use trunkline_protocol::service::{
    Ack, AckStatus, GroupMember, GroupMemberQuery, MEMBERS_PER_PAGE_MAX, MemberPage, ServiceMessage,
};

use super::fleet_core::Fleet;
use super::fleet_member::FleetMember;
use super::question::NoAnswer;
use crate::engine::upstream::{AppServerId, HubIndex};
use crate::features::store::StoreAway;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnswerRule {
    /// One positive answer is final: the subject is at one node only.
    AnyYes,
    /// Every node must do it, so one refusal is final.
    NoRefusal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AnswerTerms {
    pub(super) ack_id: i64,
    rule: AnswerRule,
}

impl AnswerTerms {
    pub(super) fn from_question(question: &ServiceMessage) -> Self {
        // All nodes store the membership for future connections.
        let rule = match question {
            ServiceMessage::UserJoinGroupWithAck(_) => AnswerRule::NoRefusal,
            _ => AnswerRule::AnyYes,
        };
        Self { ack_id: question.ack_id().unwrap_or_default(), rule }
    }

    /// Answer to a change that the store doesn't have.
    pub(super) fn unstored(self, away: &StoreAway) -> Ack {
        let message = Some(away.to_string().into());
        Ack { ack_id: self.ack_id, status: AckStatus::InternalServerError, message, payload: None }
    }

    pub(super) fn combine(self, answers: Vec<Result<Option<ServiceMessage>, NoAnswer>>) -> Ack {
        let (mut problem, mut missing, mut is_ok, mut count, mut content) = (None, None, false, None, None);
        for answer in answers {
            match answer {
                Ok(Some(ServiceMessage::Ack(ack))) => match ack.status {
                    AckStatus::Ok => {
                        is_ok = true;
                        let page = ack.payload.as_ref().and_then(|payload| MemberPage::from_payload(payload).ok());
                        let counted = page.and_then(|page| page.count);
                        count = counted.map(|more| count.unwrap_or(0) + more).or(count);
                        content = ack.payload.or(content);
                    }
                    AckStatus::NotFound => {}
                    _ => problem = Some(ack),
                },
                Ok(_) => {}
                Err(cause) => missing = Some(cause),
            }
        }
        let text = |text: &str| Some(ByteString::from(text));
        let (status, message) = match (is_ok, problem, missing) {
            (true, Some(problem), _) if self.rule == AnswerRule::NoRefusal => (problem.status, problem.message),
            (true, _, _) => (AckStatus::Ok, text("")),
            (false, Some(problem), _) => (problem.status, problem.message),
            (false, None, Some(cause)) => (AckStatus::Timeout, text(&format!("a node does not answer: {cause}"))),
            (false, None, None) => (AckStatus::NotFound, text("")),
        };
        // A non-numeric payload comes from the one node that has the connection.
        let payload = count.map(|count| MemberPage::counted(count).to_payload()).or(content);
        Ack { ack_id: self.ack_id, status, message, payload }
    }
}

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
    fn from_query(query: &GroupMemberQuery) -> Self {
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
    let mut page = GatheredPage::from_query(&query);
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

    fn ack(status: AckStatus, text: &'static str) -> Result<Option<ServiceMessage>, NoAnswer> {
        Ok(Some(ServiceMessage::Ack(Ack { ack_id: 9, status, message: Some(text.into()), payload: None })))
    }

    fn outcome(answers: Vec<Result<Option<ServiceMessage>, NoAnswer>>) -> (AckStatus, String) {
        outcome_by(AnswerRule::AnyYes, answers)
    }

    fn outcome_by(rule: AnswerRule, answers: Vec<Result<Option<ServiceMessage>, NoAnswer>>) -> (AckStatus, String) {
        let ack = AnswerTerms { ack_id: 7, rule }.combine(answers);
        assert_eq!((ack.ack_id, ack.payload), (7, None));
        (ack.status, ack.message.unwrap().to_string())
    }

    #[test]
    fn one_yes_is_certain_and_a_no_needs_all() {
        let (yes, no) = (|| ack(AckStatus::Ok, ""), || ack(AckStatus::NotFound, ""));
        let late = || Err(NoAnswer::Timeout);
        assert_eq!(outcome(vec![no(), yes(), late()]), (AckStatus::Ok, String::new()));
        assert_eq!(outcome(vec![no(), Ok(None), no()]), (AckStatus::NotFound, String::new()));
        assert_eq!(outcome(vec![no(), late()]).0, AckStatus::Timeout);
        let full = || ack(AckStatus::InternalServerError, "in too many groups");
        assert_eq!(outcome(vec![full(), late(), no()]), (AckStatus::InternalServerError, "in too many groups".into()));
        assert_eq!(outcome(vec![full(), yes()]), (AckStatus::Ok, String::new()));
    }

    #[test]
    fn a_membership_that_one_node_does_not_keep_is_refused() {
        let question = ServiceMessage::UserJoinGroupWithAck(Default::default());
        assert_eq!(AnswerTerms::from_question(&question).rule, AnswerRule::NoRefusal);
        let (yes, full) = (|| ack(AckStatus::Ok, ""), || ack(AckStatus::InternalServerError, "too many"));
        let refused = (AckStatus::InternalServerError, "too many".to_owned());
        assert_eq!(outcome_by(AnswerRule::NoRefusal, vec![full(), yes()]), refused);
        assert_eq!(outcome_by(AnswerRule::NoRefusal, vec![yes(), full(), ack(AckStatus::NotFound, "")]), refused);
        assert_eq!(outcome_by(AnswerRule::NoRefusal, vec![yes(), Ok(None)]).0, AckStatus::Ok);
    }

    #[test]
    fn members_are_counted_over_all_nodes() {
        let counted = |count| {
            let payload = Some(MemberPage::counted(count).to_payload());
            Ok(Some(ServiceMessage::Ack(Ack { payload, ..Ack::default() })))
        };
        let ack = AnswerTerms { ack_id: 7, rule: AnswerRule::AnyYes }.combine(vec![
            counted(3),
            Ok(None),
            counted(0),
            counted(4),
        ]);
        assert_eq!(MemberPage::from_payload(&ack.payload.unwrap()).unwrap().count, Some(7));
    }

    #[test]
    fn a_token_is_of_the_node_that_it_names() {
        assert!(is_token_of("boot.0.0", "boot") && !is_token_of("boot2.0.0", "boot") && !is_token_of("boot", "boot"));
    }
}
