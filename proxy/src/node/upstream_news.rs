//! Log messages and problem list of one upstream: its problem, its links and its shutdown, each reported once.
//!
//! Graceful shutdowns and brief absences are part of every roll-out, so they are logged as warnings only if they last.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::link_notice::{LinkNews, LinkNotice};
use crate::link::{hub_names, warn_of_lost_app_server};
use crate::net::address::Address;
use crate::observer::UpstreamProblems;
use crate::shard::Shared;
use crate::upstream::{Pool, ReadManifestError};

/// Absence after which an app server is reported as missing; longer than a restart with a new image.
const ABSENCE_MAX: Duration = Duration::from_secs(30);

/// Change of an upstream's problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProblemNews {
    Unexpected,
    /// Normal during a roll-out.
    Expected,
    /// Expected, but lasting too long.
    Lasting,
}

/// Kind of a problem: its text without digits, which may be times.
fn kind(problem: &str) -> String {
    problem.replace(|c: char| c.is_ascii_digit(), "")
}

#[derive(Debug)]
pub(super) struct UpstreamNews {
    address: Address,
    problems: Arc<UpstreamProblems>,
    problem: Option<String>,
    /// Start of an absence that is not yet a warning.
    away_since: Option<Instant>,
    /// The app server has announced its shutdown.
    is_stopping: bool,
    links: LinkNotice,
}

impl UpstreamNews {
    pub(super) fn new(address: Address, problems: Arc<UpstreamProblems>) -> Self {
        Self { address, problems, problem: None, away_since: None, is_stopping: false, links: LinkNotice::default() }
    }

    /// Reports that the manifest is unreadable. This is `expected` if the name has addresses of both families.
    pub(super) fn tell_unreadable(&mut self, error: &ReadManifestError, expected: bool) {
        let is_expected = expected || error.is_refused() || error.is_stopping() || self.is_stopping;
        self.tell_problem(error.to_string(), is_expected, Instant::now());
    }

    /// Reports that the upstream answers but is unusable.
    pub(super) fn tell_unusable(&mut self, problem: String) {
        self.tell_problem(problem, false, Instant::now());
    }

    /// Clears the problem: the upstream is usable, or no longer watched.
    pub(super) fn tell_usable(&mut self) {
        (self.problem, self.away_since) = (None, None);
        self.problems.set(&self.address.to_string(), None);
    }

    fn tell_problem(&mut self, problem: String, is_expected: bool, now: Instant) {
        self.problems.set(&self.address.to_string(), Some(problem.clone()));
        let news = self.problem_news(&problem, is_expected, now);
        let upstream = &self.address;
        match news {
            Some(ProblemNews::Unexpected) => warn!(%upstream, %problem, "waiting for the app server"),
            Some(ProblemNews::Expected) => info!(%upstream, %problem, "waiting for the app server"),
            Some(ProblemNews::Lasting) => warn!(%upstream, %problem, "still waiting for the app server"),
            None => {}
        }
    }

    /// Stores a problem; returns a change to report, if any.
    fn problem_news(&mut self, problem: &str, is_expected: bool, now: Instant) -> Option<ProblemNews> {
        let kind = kind(problem);
        let is_new = self.problem.as_ref() != Some(&kind);
        self.problem = Some(kind);
        if !is_expected {
            self.away_since = None;
            return is_new.then_some(ProblemNews::Unexpected);
        }
        if is_new {
            self.away_since.get_or_insert(now);
            return Some(ProblemNews::Expected);
        }
        self.away_since.take_if(|since| now.saturating_duration_since(*since) >= ABSENCE_MAX)?;
        Some(ProblemNews::Lasting)
    }

    /// Checks the links of the app server and reports changes.
    pub(super) fn look_at<'a>(&mut self, pools: impl Iterator<Item = &'a Arc<Pool>>) {
        let pools: Vec<_> = pools.cloned().collect();
        let Some(first) = pools.first() else { return };
        let (upstream, app) = (&self.address, &first.app().name);
        if pools.iter().any(|pool| pool.is_draining()) {
            if !std::mem::replace(&mut self.is_stopping, true) {
                info!(%upstream, %app, hubs = hub_names(&pools), "app server stops: reassigning its clients");
            }
            return;
        }
        let open = pools.iter().map(|pool| pool.open()).sum();
        let all = pools.iter().map(|pool| pool.size()).sum();
        let hubs = || hub_names(&pools);
        match self.links.update((open, all), Instant::now()) {
            Some(LinkNews::Linked) => info!(%upstream, %app, hubs = hubs(), links = open, "app server linked"),
            Some(LinkNews::LinkedAgain) => {
                info!(%upstream, %app, links = open, "all links to the app server reopened")
            }
            Some(LinkNews::Impaired) => {
                warn!(%upstream, %app, hubs = hubs(), open, links = all, "links to the app server are down")
            }
            None => {}
        }
    }

    /// Reports a discovered app server, which replaces the former one.
    pub(super) fn tell_found(&mut self, instance: &str) {
        debug!(upstream = %self.address, instance, "app server found");
        self.is_stopping = false;
        self.links.reset();
    }

    /// Reports that the app server with these pools is given up, and why.
    pub(super) async fn tell_gone(&mut self, shared: &Shared, pools: &[Arc<Pool>], reason: &str) {
        match self.is_stopping {
            true => info!(upstream = %self.address, "app server stopped"),
            false => warn_of_lost_app_server(shared, pools, reason).await,
        }
        self.links.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_whose_text_has_the_time_in_it_is_told_once() {
        let mut news = UpstreamNews::new("https://10.0.0.7:443".parse().unwrap(), Arc::default());
        let now = Instant::now();
        let mut told = |problem: &str, is_expected, s| {
            news.problem_news(problem, is_expected, now + Duration::from_secs(s)).map(|news| (s, news))
        };
        let ended = (0..60).filter_map(|s| told(&format!("ended {s} s ago"), false, s)).collect::<Vec<_>>();
        assert_eq!(ended, [(0, ProblemNews::Unexpected)]);
        let refused = (60..120).filter_map(|s| told(&format!("refused at {s}"), true, s)).collect::<Vec<_>>();
        assert_eq!(refused, [(60, ProblemNews::Expected), (90, ProblemNews::Lasting)]);
        assert_eq!(told("ended 120 s ago", false, 120), Some((120, ProblemNews::Unexpected)));
        assert_eq!(told("another", false, 121), Some((121, ProblemNews::Unexpected)));
    }
}
