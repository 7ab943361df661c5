//! Queries between nodes: pending queries of this node, and answers to queries from others.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use bytes::{Bytes, BytesMut};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use trunkline_link::LinkClock;
use trunkline_protocol::fleet::{NodeMessage, encode_ask};
use trunkline_protocol::service::ServiceMessage;

use super::fleet_member::FleetMember;
use super::fleet_relay::FleetRelay;
use super::peer_request::{PeerRequest, PeerResponse};
use super::question::{NoAnswer, OpenQuestion, QUESTIONS_MAX, Questions};
use crate::ground::auth::Signer;
use crate::ground::bounded::{Permit, Permits};
use crate::ground::limits::SignerShare;

/// Answers of members, or the reason for a missing one.
pub(crate) type Answers<T> = Vec<(Arc<FleetMember>, Result<T, NoAnswer>)>;

/// Timeout for a node's answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of concurrent requests answered for other nodes. Further ones fail as busy.
const ANSWERING_MAX: usize = 256;

#[derive(Debug)]
pub(crate) struct NodeQuestions {
    pub(super) asks: Questions<Option<ServiceMessage>>,
    /// Permits for queries about connections, by signer.
    asking: Permits<Signer>,
    pub(super) requests: Questions<PeerResponse>,
    /// Requests to take over client connections.
    pub(super) moves: Questions<Option<Bytes>>,
    /// Results of clients at other nodes, which arrive after the first answer.
    pub(super) results: Questions<ServiceMessage>,
    api: OnceLock<Router>,
    /// Concurrent requests from other nodes.
    answering: Semaphore,
}

impl Default for NodeQuestions {
    fn default() -> Self {
        Self {
            asks: Questions::default(),
            asking: Permits::new(QUESTIONS_MAX, QUESTIONS_MAX),
            requests: Questions::default(),
            moves: Questions::default(),
            results: Questions::default(),
            api: OnceLock::new(),
            answering: Semaphore::new(ANSWERING_MAX),
        }
    }
}

impl NodeQuestions {
    pub(crate) fn serve_api(&self, api: Router) {
        drop(self.api.set(api));
    }

    pub(crate) fn api(&self) -> Option<Router> {
        self.api.get().cloned()
    }

    /// Sends a query to these members, queued immediately to preserve order, with a permit of the hub's owner. Members
    /// have this long to answer.
    pub(super) fn ask(
        &self,
        (fleet_relay, clock): (&FleetRelay, LinkClock),
        asked: Vec<Arc<FleetMember>>,
        (hub, share): (&str, &SignerShare),
        (body, within): (&[u8], Duration),
    ) -> impl Future<Output = Answers<Option<ServiceMessage>>> + use<> {
        let question = self.open_question(share);
        let (sent, unsent) = match &question {
            Some((_, question)) => {
                let mut frame = BytesMut::new();
                encode_ask(question.number(), hub, body, &mut frame);
                let sent = asked
                    .into_iter()
                    .partition::<Vec<_>, _>(|member| fleet_relay.pass_to(member, &share.signer, &frame));
                watch(&sent.0);
                sent
            }
            None => (Vec::new(), asked),
        };
        async move {
            let is_overdue = |member: &FleetMember| member.links.is_overdue(clock.now_ms());
            let answers = match question {
                Some((_permit, question)) => question.answers(sent, within, is_overdue).await,
                None => Vec::new(),
            };
            with_missing(answers, unsent)
        }
    }

    /// Opens a query about connections with a permit of this share; `None` if the share is used up.
    fn open_question(&self, share: &SignerShare) -> Option<(Permit<Signer>, OpenQuestion<Option<ServiceMessage>>)> {
        let permit = share.take(&self.asking).ok()?;
        Some((permit, self.asks.open_question()?))
    }

    pub(super) async fn request(
        &self,
        clock: LinkClock,
        asked: Vec<Arc<FleetMember>>,
        request: &PeerRequest,
        within: Duration,
    ) -> Answers<PeerResponse> {
        let Some(question) = self.requests.open_question() else { return with_missing(Vec::new(), asked) };
        let PeerRequest { method, target, body } = request.clone();
        let message = NodeMessage::Request { question: question.number(), method, target, body };
        let frame = message.to_frame();
        let (sent, unsent): (Vec<_>, _) =
            asked.into_iter().partition(|member| member.links.send(&Signer::Fleet, &frame).is_ok());
        watch(&sent);
        let is_overdue = |member: &FleetMember| member.links.is_overdue(clock.now_ms());
        with_missing(question.answers(sent, within, is_overdue).await, unsent)
    }

    pub(super) async fn answer_request(&self, request: PeerRequest) -> PeerResponse {
        match (self.answering.try_acquire(), self.api.get()) {
            (Ok(_turn), Some(api)) => request.answer_by(api.clone()).await,
            (Err(_), _) => PeerResponse::busy(),
            (_, None) => PeerResponse::starting(),
        }
    }

    /// Fails pending answers of an unreachable node.
    pub(super) fn lost(&self, boot: &str) {
        self.asks.lost(boot);
        self.requests.lost(boot);
        self.moves.lost(boot);
    }
}

fn watch(asked: &[Arc<FleetMember>]) {
    asked.iter().filter_map(|member| member.links.outgoing()).for_each(|link| link.watch());
}

fn with_missing<T>(mut answers: Answers<T>, missing: Vec<Arc<FleetMember>>) -> Answers<T> {
    answers.extend(missing.into_iter().map(|member| (member, Err(NoAnswer::Unlinked))));
    answers
}

/// Bodies of successful responses, and the names of nodes without one.
pub(crate) fn parts_of<T: DeserializeOwned>(answers: Answers<PeerResponse>) -> (Vec<T>, Vec<String>) {
    let (mut parts, mut missing) = (Vec::new(), Vec::new());
    for (member, answer) in answers {
        match answer.ok().and_then(|answer| answer.read_body().ok()) {
            Some(part) => parts.push(part),
            None => missing.push(member.name().to_owned()),
        }
    }
    (parts, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_about_hubs_of_one_app_leave_a_half_of_the_places_to_others() {
        let questions = NodeQuestions::default();
        let share = |app: &str| SignerShare::new(Signer::App(app.into()), true);
        let of_shop: Vec<_> = std::iter::from_fn(|| questions.open_question(&share("shop"))).collect();
        assert_eq!(of_shop.len(), QUESTIONS_MAX / 2);
        assert!(questions.open_question(&share("news")).is_some());
        drop(of_shop);
        let alone = SignerShare::new(Signer::Fleet, false);
        let of_all: Vec<_> = std::iter::from_fn(|| questions.open_question(&alone)).collect();
        assert_eq!(of_all.len(), QUESTIONS_MAX, "without keys of apps there is nobody to leave any to");
    }
}
