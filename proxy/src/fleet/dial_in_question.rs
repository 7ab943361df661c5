//! Queries from app servers that dial in: answers of this and other nodes are combined into one.
//!
//! ```text
//!  query ─┬─► this node ───────────────────┐
//!         └─► nodes that its link reaches ─┴─► one Ok decides, NotFound needs all ─► one ack over the link of the query
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
use crate::engine::upstream::{LinkHandle, ReplyTo};
use crate::features::store::StoreAway;

pub(super) struct GatheredAnswer {
    reply_to: Arc<dyn ReplyTo>,
    terms: AnswerTerms,
    own: oneshot::Receiver<ServiceMessage>,
}

impl GatheredAnswer {
    /// Starts gathering. Returns the reply handle for this node too.
    pub(super) fn begin(reply_to: Arc<dyn ReplyTo>, question: &ServiceMessage) -> (Arc<dyn ReplyTo>, Self) {
        let (own_answer, own) = OwnAnswer::of(reply_to.hub(), reply_to.app());
        (own_answer, Self { reply_to, terms: AnswerTerms::of(question), own })
    }

    /// Sends the combined answer to the app server, once this node has answered.
    pub(super) async fn give(self, others: Answers<Option<ServiceMessage>>, away: Option<StoreAway>) {
        let Self { reply_to, terms, own } = self;
        let mut answers = vec![Ok(own.await.ok())];
        answers.extend(others.into_iter().map(|(_, answer)| answer));
        let ack = terms.combine(answers);
        reply_to.answer(&ServiceMessage::Ack(away.map_or(ack, |away| terms.unstored(&away))));
    }
}

/// Sends a page of a group's members, from this and other nodes, to an app server.
pub(super) async fn list_members(
    fleet: &Fleet,
    (link, reply_to): (&Arc<LinkHandle>, &dyn ReplyTo),
    query: GroupMemberQuery,
    others: Vec<Arc<FleetMember>>,
) {
    let ack_id = query.ack_id;
    let here = fleet.presence().reach(fleet.members(), link).is_for_us.then(|| link.hub());
    let hub = QuestionedHub { key: link.hub_identity().key().into(), here, app: link.app() };
    let ack = match page_of(fleet, &hub, query, others, None).await {
        Ok(page) => {
            let payload = Some(page.to_payload());
            Ack { ack_id, status: AckStatus::Ok, message: Some(ByteString::new()), payload }
        }
        Err((status, problem)) => Ack { ack_id, status, message: Some(problem.into()), payload: None },
    };
    reply_to.answer(&ServiceMessage::Ack(ack));
}
