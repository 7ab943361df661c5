//! Clients that were asked for a result, and who waits for it: a method here, or another app server.
//!
//! ```text
//!  a client that is here ──── the question ──────────────────────────► its completion
//!  one that isn't ─────────── the question to every proxy ─┬─────────► 35: its completion, by way of its app server
//!                                                          └─────────► 36: from all of them: it does not exist
//!  asked by another app server ── its completion ──► 35 to the asker; its end ──► 36
//! ```

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::oneshot;
use tokio::time::Instant;
use trunkline_protocol::hub::{Completion, HubProtocol, Outcome};
use trunkline_protocol::limits::FOREIGN_QUESTION_TIMEOUT_MS;

use crate::node::Node;
use crate::sync::lock;

/// Before the numbers of our questions, so that none is ever taken for a stream of the client, whose ids are numbers.
const PREFIX: &str = "s";

/// The questions of one hub.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    latest: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_id: HashMap<ByteString, Question>,
    /// Pairs of a connection and a question to it.
    of_connections: BTreeSet<(ByteString, ByteString)>,
    /// Those of other app servers, oldest first; some of them are answered already.
    foreign: VecDeque<(Instant, ByteString)>,
}

#[derive(Debug)]
struct Question {
    connection_id: ByteString,
    asker: Asker,
}

#[derive(Debug)]
enum Asker {
    /// A method here; with the proxies that may still have the client, if it isn't here.
    Here { answer: oneshot::Sender<Answer>, asked: Vec<Arc<Node>> },
    /// Another app server.
    Elsewhere { server: ByteString },
}

/// What became of a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The client has answered, in its protocol.
    Given(HubProtocol, Outcome),
    /// No proxy has the client.
    DoesNotExist,
    /// The client has gone.
    Disconnected,
    /// The client's app server says why not.
    Refused(ByteString),
}

/// What a client's completion turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// An answer that somebody here waited for.
    Here,
    /// The answer to a question of this app server.
    For { server: ByteString },
    /// Nobody waits for it: it is late, or for nothing.
    Unknown,
    /// Another client was asked.
    WrongClient,
}

/// A question of another app server that will not be answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub(crate) id: ByteString,
    pub(crate) server: ByteString,
}

/// As many questions are open as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

/// An answer to come; the question is forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct ExpectedAnswer<'a> {
    questions: &'a Questions,
    id: ByteString,
    answer: oneshot::Receiver<Answer>,
}

impl Questions {
    /// Expects an answer of a client that is here.
    pub(crate) fn expect(&self, connection_id: &ByteString, max: usize) -> Result<ExpectedAnswer<'_>, TooMany> {
        self.open(self.next_id("").into(), connection_id, Vec::new(), max)
    }

    /// Expects an answer of a client that one of these proxies may have; the id is like no other in the fleet.
    pub(crate) fn expect_from_afar(
        &self,
        connection_id: &ByteString,
        instance: &str,
        asked: Vec<Arc<Node>>,
        max: usize,
    ) -> Result<ExpectedAnswer<'_>, TooMany> {
        self.open(self.next_id(instance).into(), connection_id, asked, max)
    }

    /// Notes that another app server asks a client that is here.
    pub(crate) fn expect_for(
        &self,
        id: ByteString,
        connection_id: ByteString,
        server: ByteString,
        max: usize,
        now: Instant,
    ) -> Result<(), TooMany> {
        let mut open = lock(&self.open);
        open.forget_old(now);
        open.foreign.push_back((now, id.clone()));
        open.insert(id, Question { connection_id, asker: Asker::Elsewhere { server } }, max)
    }

    /// A client has completed something that is no stream of its own.
    pub(crate) fn answer(&self, connection_id: &str, protocol: HubProtocol, completion: &Completion) -> Taken {
        let id = &*completion.invocation_id;
        let mut open = lock(&self.open);
        match open.by_id.get(id) {
            None => return Taken::Unknown,
            Some(question) if question.connection_id != connection_id => return Taken::WrongClient,
            Some(_) => {}
        }
        match open.remove(id).map(|question| question.asker) {
            Some(Asker::Here { answer, .. }) => {
                drop(open);
                // Whoever has dropped its end in this moment wants no answer.
                let _ = answer.send(Answer::Given(protocol, completion.outcome.clone()));
                Taken::Here
            }
            Some(Asker::Elsewhere { server }) => Taken::For { server },
            None => Taken::Unknown,
        }
    }

    /// A proxy does not have the client that it was asked for; it does not exist when all of them say so.
    pub(crate) fn deny(&self, id: &str, node: &Arc<Node>) {
        lock(&self.open).strike_out(id, node, Answer::DoesNotExist);
    }

    /// The client's app server says that there will be no answer.
    pub(crate) fn refuse(&self, id: &str, connection_id: &str, refusal: Answer) {
        let mut open = lock(&self.open);
        let is_ours = |question: &Question| {
            question.connection_id == connection_id && matches!(question.asker, Asker::Here { .. })
        };
        if open.by_id.get(id).is_some_and(is_ours)
            && let Some(Question { asker: Asker::Here { answer, .. }, .. }) = open.remove(id)
        {
            let _ = answer.send(refusal);
        }
    }

    /// The connection is over. Returns the questions of others, who are to be told.
    pub(crate) fn fail_of_connection(&self, connection_id: &ByteString) -> Vec<Orphan> {
        let mut open = lock(&self.open);
        let first = (connection_id.clone(), ByteString::new());
        let of_it = open.of_connections.range(first..).take_while(|(connection, _)| connection == connection_id);
        let ids: Vec<_> = of_it.map(|(_, id)| id.clone()).collect();
        let mut orphans = Vec::new();
        for id in ids {
            match open.remove(&id).map(|question| question.asker) {
                Some(Asker::Here { answer, .. }) => drop(answer.send(Answer::Disconnected)),
                Some(Asker::Elsewhere { server }) => orphans.push(Orphan { id, server }),
                None => {}
            }
        }
        orphans
    }

    /// The proxy has no more links: if it had the client, that is lost with it.
    pub(crate) fn fail_of_node(&self, node: &Arc<Node>) {
        let mut open = lock(&self.open);
        let ids: Vec<_> = open.by_id.keys().cloned().collect();
        ids.iter().for_each(|id| open.strike_out(id, node, Answer::Disconnected));
    }

    /// How many are open.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let open = lock(&self.open);
        assert_eq!(open.by_id.len(), open.of_connections.len());
        open.by_id.len()
    }

    fn next_id(&self, instance: &str) -> String {
        let number = self.latest.fetch_add(1, Ordering::Relaxed) + 1;
        if instance.is_empty() { format!("{PREFIX}{number}") } else { format!("{instance}-{number}") }
    }

    fn open(
        &self,
        id: ByteString,
        connection_id: &ByteString,
        asked: Vec<Arc<Node>>,
        max: usize,
    ) -> Result<ExpectedAnswer<'_>, TooMany> {
        let (sender, answer) = oneshot::channel();
        let asker = Asker::Here { answer: sender, asked };
        lock(&self.open).insert(id.clone(), Question { connection_id: connection_id.clone(), asker }, max)?;
        Ok(ExpectedAnswer { questions: self, id, answer })
    }
}

impl Open {
    fn insert(&mut self, id: ByteString, question: Question, max: usize) -> Result<(), TooMany> {
        if self.by_id.len() >= max {
            return Err(TooMany);
        }
        self.of_connections.insert((question.connection_id.clone(), id.clone()));
        if let Some(before) = self.by_id.insert(id.clone(), question)
            && self.by_id.get(&id).is_some_and(|now| now.connection_id != before.connection_id)
        {
            self.of_connections.remove(&(before.connection_id, id));
        }
        Ok(())
    }

    fn remove(&mut self, id: &str) -> Option<Question> {
        let (id, question) = self.by_id.remove_entry(id)?;
        let pair = (question.connection_id, id);
        self.of_connections.remove(&pair);
        Some(Question { connection_id: pair.0, asker: question.asker })
    }

    /// This proxy is no longer asked; with the last one the question is over.
    fn strike_out(&mut self, id: &str, node: &Arc<Node>, last: Answer) {
        let Some(Question { asker: Asker::Here { asked, .. }, .. }) = self.by_id.get_mut(id) else { return };
        let before = asked.len();
        asked.retain(|other| !Arc::ptr_eq(other, node));
        if asked.is_empty()
            && before > 0
            && let Some(Question { asker: Asker::Here { answer, .. }, .. }) = self.remove(id)
        {
            let _ = answer.send(last);
        }
    }

    /// A client may never answer, and its asker has given up long ago.
    fn forget_old(&mut self, now: Instant) {
        let timeout = Duration::from_millis(FOREIGN_QUESTION_TIMEOUT_MS);
        while let Some((_, id)) = self.foreign.pop_front_if(|(since, _)| now.duration_since(*since) >= timeout) {
            if let Some(Question { asker: Asker::Elsewhere { .. }, .. }) = self.by_id.get(&id) {
                self.remove(&id);
            }
        }
    }
}

impl ExpectedAnswer<'_> {
    /// The id to ask with.
    pub(crate) fn id(&self) -> &ByteString {
        &self.id
    }

    /// Waits for it.
    pub(crate) async fn received(&mut self) -> Answer {
        // The sender is dropped only with the whole hub.
        (&mut self.answer).await.unwrap_or(Answer::Disconnected)
    }
}

impl Drop for ExpectedAnswer<'_> {
    fn drop(&mut self) {
        lock(&self.questions.open).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 3;

    fn text(text: &'static str) -> ByteString {
        ByteString::from_static(text)
    }

    fn node(name: &str) -> Arc<Node> {
        Arc::new(Node::new(name, "boot", true))
    }

    fn complete(questions: &Questions, connection_id: &str, id: &'static str) -> Taken {
        let completion = Completion { headers: Vec::new(), invocation_id: text(id), outcome: Outcome::Void };
        questions.answer(connection_id, HubProtocol::Json, &completion)
    }

    fn answer(expected: &mut ExpectedAnswer<'_>) -> Option<Answer> {
        expected.answer.try_recv().ok()
    }

    #[test]
    fn an_answer_reaches_who_asked_and_a_second_one_nobody() {
        let questions = Questions::default();
        let mut expected = questions.expect(&text("c1"), MAX).unwrap();
        assert_eq!(*expected.id(), "s1");
        assert_eq!(complete(&questions, "c1", "s1"), Taken::Here);
        assert_eq!(complete(&questions, "c1", "s1"), Taken::Unknown);
        assert_eq!(answer(&mut expected), Some(Answer::Given(HubProtocol::Json, Outcome::Void)));
        drop(expected);
        assert_eq!(questions.len(), 0);
    }

    #[test]
    fn only_the_client_that_was_asked_may_answer() {
        let questions = Questions::default();
        let mut expected = questions.expect(&text("c1"), MAX).unwrap();
        assert_eq!(complete(&questions, "c2", "s1"), Taken::WrongClient);
        assert_eq!(answer(&mut expected), None);
    }

    #[test]
    fn who_no_longer_waits_is_forgotten() {
        let questions = Questions::default();
        drop(questions.expect(&text("c1"), MAX).unwrap());
        assert_eq!(questions.len(), 0);
        assert_eq!(complete(&questions, "c1", "s1"), Taken::Unknown);
    }

    #[test]
    fn a_client_does_not_exist_when_every_proxy_says_so() {
        let questions = Questions::default();
        let (a, b) = (node("a"), node("b"));
        let asked = vec![Arc::clone(&a), Arc::clone(&b)];
        let mut expected = questions.expect_from_afar(&text("c1"), "me", asked, MAX).unwrap();
        let id = expected.id().clone();
        assert_eq!(id, "me-1");
        questions.deny(&id, &a);
        questions.deny(&id, &a);
        assert_eq!(answer(&mut expected), None);
        questions.deny(&id, &b);
        assert_eq!(answer(&mut expected), Some(Answer::DoesNotExist));
    }

    #[test]
    fn a_proxy_that_is_lost_may_have_had_the_client() {
        let questions = Questions::default();
        let (a, b) = (node("a"), node("b"));
        let asked = vec![Arc::clone(&a), Arc::clone(&b)];
        let mut expected = questions.expect_from_afar(&text("c1"), "me", asked, MAX).unwrap();
        let id = expected.id().clone();
        questions.deny(&id, &a);
        questions.fail_of_node(&b);
        assert_eq!(answer(&mut expected), Some(Answer::Disconnected));
    }

    #[test]
    fn the_end_of_a_connection_fails_its_questions_and_no_others() {
        let questions = Questions::default();
        let mut of_it = questions.expect(&text("c1"), MAX).unwrap();
        let mut of_another = questions.expect(&text("c10"), MAX).unwrap();
        let now = Instant::now();
        questions.expect_for(text("other-7"), text("c1"), text("other"), MAX, now).unwrap();
        let orphans = questions.fail_of_connection(&text("c1"));
        assert_eq!(orphans, [Orphan { id: text("other-7"), server: text("other") }]);
        assert_eq!(answer(&mut of_it), Some(Answer::Disconnected));
        assert_eq!(answer(&mut of_another), None);
    }

    #[test]
    fn what_another_app_server_asked_is_answered_to_it() {
        let questions = Questions::default();
        questions.expect_for(text("other-7"), text("c1"), text("other"), MAX, Instant::now()).unwrap();
        let taken = complete(&questions, "c1", "other-7");
        assert_eq!(taken, Taken::For { server: text("other") });
        assert_eq!(questions.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_app_server_asked_long_ago_is_forgotten() {
        let questions = Questions::default();
        let ask = |id| questions.expect_for(text(id), text("c1"), text("other"), 1, Instant::now());
        ask("other-1").unwrap();
        assert_eq!(ask("other-2"), Err(TooMany));
        tokio::time::advance(Duration::from_millis(FOREIGN_QUESTION_TIMEOUT_MS)).await;
        ask("other-3").unwrap();
        assert_eq!(questions.len(), 1);
    }

    #[test]
    fn there_are_only_so_many() {
        let questions = Questions::default();
        let open: Vec<_> = (0..MAX).map(|_| questions.expect(&text("c1"), MAX).unwrap()).collect();
        assert_eq!(questions.expect(&text("c1"), MAX).unwrap_err(), TooMany);
        drop(open);
        assert!(questions.expect(&text("c1"), MAX).is_ok());
    }
}
