//! Questions of app servers that dial in: what this node and others answer becomes one answer.
//!
//! ```text
//!  question ─┬─► this node ───────────────┐
//!            └─► nodes that its link reaches ─┴─► one Ok is certain of most, a NotFound needs all ─► one ack, over the same link
//! ```

use std::sync::Arc;

use bytestring::ByteString;
use tokio::sync::oneshot;
use trunkline_protocol::service::{Ack, AckStatus, GroupMemberQuery, ServiceMessage};

use super::combined_answer::AnswerTerms;
use super::fleet_member::FleetMember;
use super::gathered_page::QuestionedHub;
use super::own_answer::OwnAnswer;
use super::{Answers, Fleet};
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

/// Answer to one question, as it is gathered.
pub(super) struct GatheredAnswer {
    fleet: Fleet,
    link: Arc<LinkHandle>,
    terms: AnswerTerms,
    own: oneshot::Receiver<ServiceMessage>,
}

impl GatheredAnswer {
    /// Begins to gather; with it, the asker for this node.
    pub(super) fn begin(fleet: Fleet, link: Arc<LinkHandle>, question: &ServiceMessage) -> (Arc<dyn Asker>, Self) {
        let (asker, own) = OwnAnswer::of(link.hub(), link.app());
        (asker, Self { fleet, link, terms: AnswerTerms::of(question), own })
    }

    /// Gives the app server its answer, once this node has answered, too.
    pub(super) async fn give(self, others: Answers<Option<ServiceMessage>>) {
        let Self { fleet, link, terms, own } = self;
        let mut answers = vec![Ok(own.await.ok())];
        answers.extend(others.into_iter().map(|(_, answer)| answer));
        let ack = terms.combine(answers);
        fleet.when_settled(move || link.send(&ServiceMessage::Ack(ack)));
    }
}

impl Fleet {
    /// Gives an app server a page of the members of a group at this node and at others.
    pub(super) async fn list_members(
        &self,
        link: &Arc<LinkHandle>,
        hub: &Hub,
        query: GroupMemberQuery,
        others: Vec<Arc<FleetMember>>,
    ) {
        let ack_id = query.ack_id;
        let here = self.reach(link).is_for_us.then(|| link.hub());
        let hub = QuestionedHub { key: hub.key().into(), here, app: link.app() };
        let ack = match self.page_of(&hub, query, others).await {
            Ok(page) => {
                let payload = Some(page.to_payload());
                Ack { ack_id, status: AckStatus::Ok, message: Some(ByteString::new()), payload }
            }
            Err((status, problem)) => Ack { ack_id, status, message: Some(problem.into()), payload: None },
        };
        link.send(&ServiceMessage::Ack(ack));
    }
}
