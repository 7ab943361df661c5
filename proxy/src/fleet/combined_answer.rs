//! Combination of the answers of several nodes to one query.

use bytestring::ByteString;
use trunkline_protocol::service::{Ack, AckStatus, MemberPage, ServiceMessage};

use super::question::NoAnswer;
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
    pub(super) fn of(question: &ServiceMessage) -> Self {
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
        assert_eq!(AnswerTerms::of(&question).rule, AnswerRule::NoRefusal);
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
}
