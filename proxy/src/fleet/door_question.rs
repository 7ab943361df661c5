//! Questions of app servers that dial in: what this node and others answer becomes one answer.
//!
//! ```text
//!  question ─┬─► this node ───────────────┐
//!            └─► nodes that its link reaches ─┴─► one Ok is certain, a NotFound needs all ─► one ack, over the same link
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use bytestring::ByteString;
use tokio::sync::oneshot;
use trunkline_protocol::service::{
    Ack, AckStatus, GroupMember, GroupMemberQuery, MEMBERS_PER_PAGE_MAX, MemberPage, ServiceMessage,
};

use super::fleet_member::FleetMember;
use super::question::NoAnswer;
use super::{Answers, Fleet};
use crate::link::{FrameSource, RoutedBatch, route};
use crate::shard::SendOrigin;
use crate::upstream::{AppServerId, Asker, Hub, HubIndex, LinkHandle};

/// Asker that is answered once the other nodes know whom the answer is about: sends that follow it find them anywhere.
#[derive(Debug)]
pub(super) struct SettledAsker {
    fleet: Fleet,
    link: Arc<LinkHandle>,
}

impl SettledAsker {
    pub(super) fn new(fleet: Fleet, link: Arc<LinkHandle>) -> Self {
        Self { fleet, link }
    }
}

impl Asker for SettledAsker {
    fn hub(&self) -> HubIndex {
        self.link.hub()
    }

    fn app(&self) -> AppServerId {
        self.link.app()
    }

    fn answer(&self, message: &ServiceMessage) {
        let (link, message) = (self.link.clone(), message.clone());
        self.fleet.when_settled(move || link.send(&message));
    }
}

/// Asker that takes this node's answer for another one.
#[derive(Debug)]
struct OwnAnswer {
    hub: HubIndex,
    app: AppServerId,
    answer: Mutex<Option<oneshot::Sender<ServiceMessage>>>,
}

impl OwnAnswer {
    fn of(link: &LinkHandle) -> (Arc<dyn Asker>, oneshot::Receiver<ServiceMessage>) {
        let (sender, answer) = oneshot::channel();
        (Arc::new(Self { hub: link.hub(), app: link.app(), answer: Mutex::new(Some(sender)) }), answer)
    }
}

impl Asker for OwnAnswer {
    fn hub(&self) -> HubIndex {
        self.hub
    }

    fn app(&self) -> AppServerId {
        self.app
    }

    fn answer(&self, message: &ServiceMessage) {
        let sender = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It fails when nobody waits any more.
        sender.into_iter().for_each(|sender| drop(sender.send(message.clone())));
    }
}

/// Answer to one question, as it is gathered.
pub(super) struct GatheredAnswer {
    fleet: Fleet,
    link: Arc<LinkHandle>,
    ack_id: i64,
    own: oneshot::Receiver<ServiceMessage>,
}

impl GatheredAnswer {
    /// Begins to gather; with it, the asker for this node.
    pub(super) fn begin(fleet: Fleet, link: Arc<LinkHandle>, question: &ServiceMessage) -> (Arc<dyn Asker>, Self) {
        let (asker, own) = OwnAnswer::of(&link);
        (asker, Self { fleet, link, ack_id: ack_id(question), own })
    }

    /// Gives the app server its answer, once this node has answered, too.
    pub(super) async fn give(self, others: Answers<Option<ServiceMessage>>) {
        let Self { fleet, link, ack_id, own } = self;
        let mut answers = vec![Ok(own.await.ok())];
        answers.extend(others.into_iter().map(|(_, answer)| answer));
        let ack = combine(ack_id, answers);
        fleet.when_settled(move || link.send(&ServiceMessage::Ack(ack)));
    }
}

/// Puts the answers of nodes together.
fn combine(ack_id: i64, answers: Vec<Result<Option<ServiceMessage>, NoAnswer>>) -> Ack {
    let (mut problem, mut missing, mut is_ok, mut count) = (None, None, false, None);
    for answer in answers {
        match answer {
            Ok(Some(ServiceMessage::Ack(ack))) => match ack.status {
                AckStatus::Ok => {
                    is_ok = true;
                    let page = ack.payload.and_then(|payload| MemberPage::from_payload(&payload).ok());
                    let counted = page.and_then(|page| page.count);
                    count = counted.map(|more| count.unwrap_or(0) + more).or(count);
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
        (true, _, _) => (AckStatus::Ok, text("")),
        (false, Some(problem), _) => (problem.status, problem.message),
        (false, None, Some(cause)) => (AckStatus::Timeout, text(&format!("a node gives no answer: {cause}"))),
        (false, None, None) => (AckStatus::NotFound, text("")),
    };
    Ack { ack_id, status, message, payload: count.map(|count| MemberPage::counted(count).to_payload()) }
}

fn ack_id(question: &ServiceMessage) -> i64 {
    use ServiceMessage as M;
    match question {
        M::JoinGroupWithAck(change) | M::LeaveGroupWithAck(change) => change.ack_id,
        M::UserJoinGroupWithAck(change) | M::UserLeaveGroupWithAck(change) => change.ack_id,
        M::CheckUserInGroupWithAck(check) => check.ack_id,
        M::CheckGroupExistenceWithAck(check)
        | M::CheckConnectionExistenceWithAck(check)
        | M::CheckUserExistenceWithAck(check) => check.ack_id,
        M::CloseConnectionWithAck(close)
        | M::CloseConnectionsWithAck(close)
        | M::CloseUserConnectionsWithAck(close)
        | M::CloseGroupConnectionsWithAck(close) => close.ack_id,
        M::GroupMemberQuery(query) => query.ack_id,
        _ => 0,
    }
}

/// Page of a group's members, filled by one node after the other in the order of their boot ids.
struct GatheredPage {
    members: Vec<GroupMember>,
    max: usize,
    /// The app server wants no more than this page.
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

impl Fleet {
    /// Lists the members of a group at this node and at others; a token of a page names the node that has the next one.
    pub(super) async fn list_members(
        &self,
        link: &Arc<LinkHandle>,
        hub: &Hub,
        query: GroupMemberQuery,
        others: Vec<Arc<FleetMember>>,
    ) {
        let ack_id = query.ack_id;
        let ack = match self.page_of(link, hub, query, others).await {
            Ok(page) => {
                let payload = Some(page.to_payload());
                Ack { ack_id, status: AckStatus::Ok, message: Some(ByteString::new()), payload }
            }
            Err((status, problem)) => Ack { ack_id, status, message: Some(problem.into()), payload: None },
        };
        link.send(&ServiceMessage::Ack(ack));
    }

    async fn page_of(
        &self,
        link: &Arc<LinkHandle>,
        hub: &Hub,
        query: GroupMemberQuery,
        others: Vec<Arc<FleetMember>>,
    ) -> Result<MemberPage, (AckStatus, String)> {
        let own = self.reach(link).is_for_us.then_some(None);
        let mut nodes: Vec<_> = others.into_iter().map(Some).chain(own).collect();
        let boot = |node: &Option<Arc<FleetMember>>| match node {
            Some(member) => member.boot().to_owned(),
            None => self.shared().boot.clone(),
        };
        nodes.sort_by_key(boot);
        let mut page = GatheredPage::of(&query);
        let mut token = query.continuation_token.clone();
        if let Some(token) = &token {
            let begun = nodes.iter().position(|node| is_token_of(token, &boot(node)));
            nodes.drain(..begun.ok_or_else(|| failed("the continuation token is of no node that is here"))?);
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
                let part = self.part_of(link, hub, part, node.as_ref()).await?;
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
        &self,
        link: &Arc<LinkHandle>,
        hub: &Hub,
        query: GroupMemberQuery,
        node: Option<&Arc<FleetMember>>,
    ) -> Result<MemberPage, (AckStatus, String)> {
        let question = ServiceMessage::GroupMemberQuery(query);
        let answer = match node {
            None => Ok(self.ask_here(link, question).await),
            Some(member) => {
                let mut answers = self.ask_members(vec![member.clone()], hub.key(), &question.to_body()).await;
                answers.pop().map_or(Ok(None), |(_, answer)| answer)
            }
        };
        match answer {
            Ok(Some(ServiceMessage::Ack(Ack { status: AckStatus::Ok, payload: Some(payload), .. }))) => {
                MemberPage::from_payload(&payload).map_err(|error| failed(&error.to_string()))
            }
            Ok(Some(ServiceMessage::Ack(ack))) => Err((ack.status, ack.message.unwrap_or_default().to_string())),
            // The hub is not known there.
            Ok(_) => Ok(MemberPage::default()),
            Err(cause) => Err((AckStatus::Timeout, format!("a node gives no answer: {cause}"))),
        }
    }

    /// Asks the shards of this node.
    async fn ask_here(&self, link: &LinkHandle, question: ServiceMessage) -> Option<ServiceMessage> {
        let (asker, answer) = OwnAnswer::of(link);
        self.route_here(&asker, SendOrigin::OtherNode, question).await.ok()?;
        drop(asker);
        answer.await.ok()
    }

    /// Routes a message to the shards of this node.
    pub(super) async fn route_here(
        &self,
        asker: &Arc<dyn Asker>,
        origin: SendOrigin,
        message: ServiceMessage,
    ) -> Result<(), String> {
        let shared = self.shared();
        let mut batch = RoutedBatch::of(shared);
        route(FrameSource { shared, counters: self.relayed(), hub: asker.hub(), asker, origin }, message, &mut batch)?;
        for (commands, shard) in batch.into_commands().into_iter().zip(shared.shards()) {
            if !commands.is_empty() {
                shard.give(commands, 0).await;
            }
        }
        Ok(())
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
        let ack = combine(7, answers);
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
    fn members_are_counted_over_all_nodes() {
        let counted = |count| {
            let payload = Some(MemberPage::counted(count).to_payload());
            Ok(Some(ServiceMessage::Ack(Ack { payload, ..Ack::default() })))
        };
        let ack = combine(7, vec![counted(3), Ok(None), counted(0), counted(4)]);
        assert_eq!(MemberPage::from_payload(&ack.payload.unwrap()).unwrap().count, Some(7));
    }

    #[test]
    fn a_token_is_of_the_node_that_it_names() {
        assert!(is_token_of("boot.0.0", "boot") && !is_token_of("boot2.0.0", "boot") && !is_token_of("boot", "boot"));
    }
}
