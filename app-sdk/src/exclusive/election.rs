//! Selects the app server that runs a task from the proxies' lists. Pure logic: time is an argument.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_protocol::service::TaskCandidate;

/// Time without a socket after which a proxy's list no longer allows a task to continue. A live proxy has dialled
/// again by then, and no proxy declares an app server crashed sooner.
const AWAY_MAX: Duration = Duration::from_secs(2);

/// Time without a socket after which a proxy's list no longer counts against this app server: a live proxy has dialled
/// again several times by then.
const DISREGARDED_AFTER: Duration = Duration::from_secs(5);

/// Lists of all proxies. `N` identifies a proxy.
#[derive(Debug)]
pub(super) struct Election<N> {
    me: Arc<str>,
    lists: Vec<CandidateList<N>>,
}

#[derive(Debug)]
struct CandidateList<N> {
    node: N,
    candidates: Vec<TaskCandidate>,
    /// Since when the proxy has had no socket to this app server.
    away_since: Option<Instant>,
}

impl<N: PartialEq + Clone> Election<N> {
    pub(super) fn new(me: Arc<str>) -> Self {
        Self { me, lists: Vec::new() }
    }

    pub(super) fn update(&mut self, node: &N, candidates: Vec<TaskCandidate>) {
        match self.lists.iter_mut().find(|list| list.node == *node) {
            Some(list) => list.candidates = candidates,
            None => self.lists.push(CandidateList { node: node.clone(), candidates, away_since: None }),
        }
    }

    /// Removes a proxy after its links have closed.
    pub(super) fn forget(&mut self, node: &N) {
        self.lists.retain(|list| list.node != *node);
    }

    /// Records which proxies have a socket to this app server.
    pub(super) fn note_links(&mut self, is_linked: impl Fn(&N) -> bool, now: Instant) {
        for list in &mut self.lists {
            list.away_since = (!is_linked(&list.node)).then(|| list.away_since.unwrap_or(now));
        }
    }

    /// Whether this app server is selected, and a linked proxy lists it.
    pub(super) fn may_start(&self, task: &str, now: Instant) -> bool {
        let is_listed = self.lists.iter().any(|list| list.away_since.is_none() && list.names(task, &self.me));
        is_listed && self.is_chosen(task, now)
    }

    pub(super) fn may_go_on(&self, task: &str, now: Instant) -> bool {
        let is_listed = self.lists.iter().any(|list| list.away_for(now) <= AWAY_MAX && list.names(task, &self.me));
        is_listed && self.is_chosen(task, now)
    }

    /// Whether this app server started first of all listed ones.
    fn is_chosen(&self, task: &str, now: Instant) -> bool {
        let lists = self.lists.iter().filter(|list| list.away_for(now) <= DISREGARDED_AFTER);
        let first = lists.flat_map(|list| list.of(task)).min_by_key(|it| (it.since_ms, &it.instance));
        first.is_some_and(|first| *first.instance == *self.me)
    }
}

impl<N> CandidateList<N> {
    fn of<'a>(&'a self, task: &'a str) -> impl Iterator<Item = &'a TaskCandidate> {
        self.candidates.iter().filter(move |candidate| candidate.task == task)
    }

    fn names(&self, task: &str, instance: &str) -> bool {
        self.of(task).any(|candidate| candidate.instance == instance)
    }

    fn away_for(&self, now: Instant) -> Duration {
        self.away_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(instance: &'static str, since_ms: i64) -> TaskCandidate {
        TaskCandidate { task: "clock".into(), instance: instance.into(), since_ms }
    }

    fn election(lists: &[(&'static str, &[TaskCandidate])]) -> Election<&'static str> {
        let mut election = Election::new("me".into());
        lists.iter().for_each(|(node, candidates)| election.update(node, candidates.to_vec()));
        election
    }

    #[test]
    fn the_app_server_that_started_first_is_selected_from_any_list() {
        let (now, me) = (Instant::now(), candidate("me", 5));
        let is_chosen = |lists: &[(&'static str, &[TaskCandidate])]| election(lists).may_start("clock", now);
        assert!(is_chosen(&[("a", &[me.clone(), candidate("later", 6)])]));
        assert!(!is_chosen(&[("a", std::slice::from_ref(&me)), ("b", &[candidate("earlier", 4)])]));
        assert!(is_chosen(&[("a", &[me.clone(), candidate("with", 5)])]), "the name decides");
        assert!(!is_chosen(&[("a", &[me.clone(), candidate("another", 5)])]));
        assert!(!is_chosen(&[("a", &[candidate("later", 6)])]), "nobody lists it");
        assert!(!election(&[("a", &[me])]).may_start("another task", now));
    }

    #[test]
    fn without_a_socket_a_task_continues_for_a_while_but_does_not_start() {
        let (mut election, now) = (election(&[("a", &[candidate("me", 5)])]), Instant::now());
        election.note_links(|_| false, now);
        assert!(!election.may_start("clock", now));
        assert!(election.may_go_on("clock", now + AWAY_MAX));
        election.note_links(|_| false, now + AWAY_MAX);
        assert!(!election.may_go_on("clock", now + AWAY_MAX * 2), "the first look counts");
        election.note_links(|_| true, now + AWAY_MAX);
        assert!(election.may_start("clock", now + AWAY_MAX));
    }

    #[test]
    fn an_absent_or_removed_proxy_does_not_count() {
        let now = Instant::now();
        let lists: [(&str, &[TaskCandidate]); 2] = [("a", &[candidate("me", 5)]), ("b", &[candidate("earlier", 4)])];
        let mut stale = election(&lists);
        stale.note_links(|node| *node == "a", now);
        assert!(!stale.may_start("clock", now + DISREGARDED_AFTER), "the earlier one may run at the other proxy");
        assert!(stale.may_start("clock", now + DISREGARDED_AFTER + AWAY_MAX));
        let mut lost = election(&lists);
        lost.forget(&"b");
        assert!(lost.may_start("clock", now));
    }
}
