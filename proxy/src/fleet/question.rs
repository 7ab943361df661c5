//! Queries to other nodes that wait for answers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout, timeout_at};

use super::fleet_member::FleetMember;
use crate::ground::bounded::{Lease, Leases};

/// Maximum number of pending queries, each a message to every node. If apps have keys, half is for the hubs of one app.
pub(crate) const QUESTIONS_MAX: usize = 1_024;

/// Interval for re-evaluating the timeouts of members.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("it did not answer in time")]
    Timeout,
    #[error("it is late: it sends nothing")]
    Late,
    #[error("there is no link to it, or its queue is full")]
    Unlinked,
    #[error("its link was lost")]
    Lost,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NodeAnswer<T> {
    Given(T),
    Missing(NoAnswer),
}

#[derive(Debug)]
struct WaitingQuestion<T> {
    answers: UnboundedSender<(String, NodeAnswer<T>)>,
    /// Boot ids of nodes that have answered; each may answer once.
    answered: HashSet<String>,
}

/// Pending queries of one kind, by number.
#[derive(Debug)]
pub(super) struct Questions<T>(Leases<WaitingQuestion<T>>);

/// Pending query. Dropping it cancels the wait.
#[derive(Debug)]
pub(super) struct OpenQuestion<T> {
    lease: Lease<WaitingQuestion<T>>,
    answers: UnboundedReceiver<(String, NodeAnswer<T>)>,
}

impl<T> Default for Questions<T> {
    fn default() -> Self {
        Self(Leases::default())
    }
}

impl<T> Questions<T> {
    /// Opens a query; `None` at the limit.
    pub(super) fn open_question(&self) -> Option<OpenQuestion<T>> {
        let (sender, answers) = unbounded_channel();
        let question = WaitingQuestion { answers: sender, answered: HashSet::new() };
        Some(OpenQuestion { lease: self.0.take(QUESTIONS_MAX, question)?, answers })
    }

    /// Passes a node's answer to its query. Returns `false` if the query is gone or the node has already answered.
    pub(super) fn take_answer(&self, number: u64, boot: &str, answer: T) -> bool {
        let mut waiting = self.0.lock();
        waiting.get_mut(number).is_some_and(|question| question.take_answer(boot, NodeAnswer::Given(answer)))
    }

    pub(super) fn lost(&self, boot: &str) {
        for question in self.0.lock().iter_mut() {
            question.take_answer(boot, NodeAnswer::Missing(NoAnswer::Lost));
        }
    }
}

impl<T> WaitingQuestion<T> {
    fn take_answer(&mut self, boot: &str, answer: NodeAnswer<T>) -> bool {
        self.answered.insert(boot.into()) && self.answers.send((boot.into(), answer)).is_ok()
    }
}

impl<T> OpenQuestion<T> {
    pub(super) fn number(&self) -> u64 {
        self.lease.number
    }

    /// Waits for the first answer of any node.
    pub(super) async fn first(mut self, within: Duration) -> Option<T> {
        match timeout(within, self.answers.recv()).await {
            Ok(Some((_, NodeAnswer::Given(answer)))) => Some(answer),
            _ => None,
        }
    }

    /// Waits until each member has answered or failed. Overdue members are skipped.
    pub(super) async fn answers(
        mut self,
        asked: Vec<Arc<FleetMember>>,
        within: Duration,
        is_overdue: impl Fn(&FleetMember) -> bool,
    ) -> Vec<(Arc<FleetMember>, Result<T, NoAnswer>)> {
        let until = Instant::now() + within;
        let mut open: HashMap<String, Arc<FleetMember>> =
            asked.into_iter().map(|member| (member.boot().to_owned(), member)).collect();
        let mut answers = Vec::with_capacity(open.len());
        loop {
            let overdue: Vec<_> = open.extract_if(|_, member| is_overdue(member)).collect();
            answers.extend(overdue.into_iter().map(|(_, member)| (member, Err(NoAnswer::Late))));
            if open.is_empty() || Instant::now() >= until {
                break;
            }
            let check_at = until.min(Instant::now() + LOOK_AGAIN);
            let (boot, answer) = match timeout_at(check_at, self.answers.recv()).await {
                Ok(Some(answer)) => answer,
                Ok(None) => break,
                Err(_) => continue,
            };
            // A duplicate answer, or one from an unqueried node, is ignored.
            if let Some(member) = open.remove(&boot) {
                let answer = match answer {
                    NodeAnswer::Given(answer) => Ok(answer),
                    NodeAnswer::Missing(cause) => Err(cause),
                };
                answers.push((member, answer));
            }
        }
        answers.extend(open.into_values().map(|member| (member, Err(NoAnswer::Timeout))));
        answers.sort_by(|(one, _), (other, _)| (one.name(), one.boot()).cmp(&(other.name(), other.boot())));
        answers
    }
}

/// First useful answer of several members.
#[derive(Debug)]
pub(super) enum FirstAnswer<T> {
    Found(Arc<FleetMember>, T),
    /// All have answered, without a result.
    NotFound,
    /// No result, but some answers are missing.
    Unclear,
}

impl<T> OpenQuestion<Option<T>> {
    /// Waits for the first result, or for an empty answer from all. `time` is each member's timeout and may shrink
    /// during the wait.
    pub(super) async fn first_some(
        mut self,
        mut asked: Vec<Arc<FleetMember>>,
        time: impl Fn(&FleetMember) -> Duration,
    ) -> FirstAnswer<T> {
        let (begun, mut are_missing) = (Instant::now(), false);
        while let Some(longest) = asked.iter().map(|member| time(member)).max() {
            let (now, until) = (Instant::now(), begun + longest);
            if now >= until {
                return FirstAnswer::Unclear;
            }
            let Ok(answer) = timeout_at(until.min(now + LOOK_AGAIN), self.answers.recv()).await else { continue };
            let Some((boot, answer)) = answer else { return FirstAnswer::Unclear };
            let Some(place) = asked.iter().position(|member| member.boot() == boot) else { continue };
            let member = asked.swap_remove(place);
            match answer {
                NodeAnswer::Given(Some(found)) => return FirstAnswer::Found(member, found),
                NodeAnswer::Given(None) => {}
                NodeAnswer::Missing(_) => are_missing = true,
            }
        }
        if are_missing { FirstAnswer::Unclear } else { FirstAnswer::NotFound }
    }
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::fleet::Greeting;

    use super::*;

    fn member(name: &str) -> Arc<FleetMember> {
        let greeting = Greeting { name: name.into(), boot: format!("boot of {name}"), ..Greeting::default() };
        Arc::new(FleetMember::new(&greeting, None))
    }

    fn told(answers: &[(Arc<FleetMember>, Result<u32, NoAnswer>)]) -> Vec<(&str, Result<u32, NoAnswer>)> {
        answers.iter().map(|(member, answer)| (member.name(), *answer)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_node_answers_once_and_the_missing_ones_are_named() {
        let questions = Questions::<u32>::default();
        let question = questions.open_question().unwrap();
        let number = question.number();
        assert!(questions.take_answer(number, "boot of b", 2) && !questions.take_answer(number, "boot of b", 3));
        assert!(questions.take_answer(number, "boot of a stranger", 4));
        questions.lost("boot of c");
        let asked = ["c", "b", "a"].map(member).to_vec();
        let answers = question.answers(asked, Duration::from_secs(5), |_| false).await;
        let expected = [("a", Err(NoAnswer::Timeout)), ("b", Ok(2)), ("c", Err(NoAnswer::Lost))];
        assert_eq!(told(&answers), expected);
        assert!(!questions.take_answer(number, "boot of a", 1), "nobody waits any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_member_is_reported_immediately_and_others_are_waited_for() {
        let (questions, begun) = (Questions::<u32>::default(), Instant::now());
        let question = questions.open_question().unwrap();
        let asked = ["a", "b"].map(member).to_vec();
        let is_overdue = |member: &FleetMember| member.name() == "a" && begun.elapsed() >= Duration::from_secs(1);
        let answers = question.answers(asked.clone(), Duration::from_secs(5), is_overdue).await;
        assert_eq!(told(&answers), [("a", Err(NoAnswer::Late)), ("b", Err(NoAnswer::Timeout))]);
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        let question = questions.open_question().unwrap();
        let answers = question.answers(asked, Duration::from_secs(5), |_| true).await;
        assert_eq!(told(&answers), [("a", Err(NoAnswer::Late)), ("b", Err(NoAnswer::Late))]);
        assert_eq!(begun.elapsed(), Duration::from_secs(5), "at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_does_not_wait_long_for_late_members() {
        let questions = Questions::<Option<u32>>::default();
        let (long, short, begun) = (Duration::from_secs(2), Duration::from_millis(300), Instant::now());
        let time = |member: &FleetMember| if member.name() == "b" { short } else { long };
        let question = questions.open_question().unwrap();
        assert!(questions.take_answer(question.number(), "boot of a", None));
        let asked = || ["a", "b"].map(member).to_vec();
        assert!(matches!(question.first_some(asked(), time).await, FirstAnswer::Unclear));
        assert_eq!(begun.elapsed(), short);
        let question = questions.open_question().unwrap();
        assert!(matches!(question.first_some(asked(), time).await, FirstAnswer::Unclear));
        assert_eq!(begun.elapsed(), short + long, "a is not late");
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_turns_out_to_be_dead_is_waited_for_no_longer() {
        let (questions, begun) = (Questions::<Option<u32>>::default(), Instant::now());
        let question = questions.open_question().unwrap();
        let time = |_: &FleetMember| Duration::from_secs(if begun.elapsed().as_millis() < 100 { 2 } else { 0 });
        assert!(matches!(question.first_some(vec![member("a")], time).await, FirstAnswer::Unclear));
        assert_eq!(begun.elapsed(), Duration::from_millis(100));
    }

    #[tokio::test]
    async fn a_query_has_no_result_only_when_all_members_have_answered() {
        let questions = Questions::<Option<u32>>::default();
        for is_lost in [false, true] {
            let question = questions.open_question().unwrap();
            let number = question.number();
            assert!(questions.take_answer(number, "boot of a", None));
            if is_lost {
                questions.lost("boot of b");
            } else {
                assert!(questions.take_answer(number, "boot of b", None));
            }
            let time = |_: &FleetMember| Duration::from_secs(1);
            let answer = question.first_some(["a", "b"].map(member).to_vec(), time).await;
            assert_eq!(matches!(answer, FirstAnswer::NotFound), !is_lost, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn so_many_questions_wait_and_no_more() {
        let questions = Questions::<u32>::default();
        let open: Vec<_> = (0..QUESTIONS_MAX).map(|_| questions.open_question().unwrap()).collect();
        assert!(questions.open_question().is_none());
        drop(open);
        assert!(questions.open_question().is_some());
    }
}
