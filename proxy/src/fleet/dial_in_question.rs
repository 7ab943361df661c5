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
use super::fleet_core::Fleet;
use super::fleet_member::FleetMember;
use super::gathered_page::{QuestionedHub, page_of};
use super::node_question::Answers;
use super::own_answer::OwnAnswer;
use crate::upstream::{Asker, LinkHandle};

/// Answer to one question, as it is gathered.
pub(super) struct GatheredAnswer {
    link: Arc<LinkHandle>,
    terms: AnswerTerms,
    own: oneshot::Receiver<ServiceMessage>,
}

impl GatheredAnswer {
    /// Begins to gather; with it, the asker for this node.
    pub(super) fn begin(link: Arc<LinkHandle>, question: &ServiceMessage) -> (Arc<dyn Asker>, Self) {
        let (asker, own) = OwnAnswer::of(link.hub(), link.app());
        (asker, Self { link, terms: AnswerTerms::of(question), own })
    }

    /// Gives the app server its answer, once this node has answered, too.
    pub(super) async fn give(self, others: Answers<Option<ServiceMessage>>) {
        let Self { link, terms, own } = self;
        let mut answers = vec![Ok(own.await.ok())];
        answers.extend(others.into_iter().map(|(_, answer)| answer));
        link.send(&ServiceMessage::Ack(terms.combine(answers)));
    }
}

/// Gives an app server a page of the members of a group at this node and at others.
pub(super) async fn list_members(
    fleet: &Fleet,
    link: &Arc<LinkHandle>,
    query: GroupMemberQuery,
    others: Vec<Arc<FleetMember>>,
) {
    let ack_id = query.ack_id;
    let here = fleet.presence().reach(fleet.members(), link).is_for_us.then(|| link.hub());
    let hub = QuestionedHub { key: link.hub_identity().key().into(), here, app: link.app() };
    let ack = match page_of(fleet, &hub, query, others).await {
        Ok(page) => {
            let payload = Some(page.to_payload());
            Ack { ack_id, status: AckStatus::Ok, message: Some(ByteString::new()), payload }
        }
        Err((status, problem)) => Ack { ack_id, status, message: Some(problem.into()), payload: None },
    };
    link.send(&ServiceMessage::Ack(ack));
}
