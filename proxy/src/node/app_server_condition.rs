//! Conditions of app servers: lost, silent, and with full or lost links.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::ground::condition::{ConditionKind, Finding};

/// Silence on all open links after which an app server counts as hung.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Time for which a lost app server without a successor is reported.
const MISSED_TIME: Duration = Duration::from_secs(3600);

/// Time after which a full link counts as free again; its level changes with each acknowledgement.
const FULL_TIME: Duration = Duration::from_secs(5);

/// Maximum number of app servers, or hubs, of one app that a condition names.
const APP_SERVERS_MAX: usize = 50;

const HUBS_LISTED: usize = 5;

/// App, and app server as shown to people: app servers of different apps may have the same name.
pub(super) type AppServerSubject = (Arc<str>, String);

/// App server when last seen with links.
struct AppSight {
    seen: Instant,
    is_stopping: bool,
    is_full_at: Option<Instant>,
    hubs: Vec<String>,
    /// Number of app servers of these hubs.
    beside: usize,
}

/// Links of one app server over all hubs.
#[derive(Default)]
pub(super) struct AppLinks {
    pub hubs: Vec<String>,
    pub open: usize,
    pub wanted: usize,
    pub silence: Option<Duration>,
    pub is_full: bool,
    pub is_stopping: bool,
}

/// App servers of the last hour.
#[derive(Default)]
pub(super) struct AppSights(BTreeMap<AppServerSubject, AppSight>);

impl AppSights {
    /// Records that an app server without links for clients stops.
    pub(super) fn note_stop(&mut self, key: &AppServerSubject) {
        if let Some(sight) = self.0.get_mut(key) {
            sight.is_stopping = true;
        }
    }

    /// Records the app servers; reports full links, and lost app servers without a successor.
    pub(super) fn note(
        &mut self,
        apps: &BTreeMap<AppServerSubject, AppLinks>,
        now: Instant,
    ) -> Vec<(Arc<str>, Finding)> {
        let mut of_hubs = HashMap::<&str, usize>::new();
        for hub in apps.values().filter(|app| !app.is_stopping).flat_map(|app| &app.hubs) {
            *of_hubs.entry(hub).or_default() += 1;
        }
        let beside = |hubs: &[String]| hubs.iter().filter_map(|hub| of_hubs.get(hub.as_str())).max().map_or(0, |n| *n);
        for (key, links) in apps {
            let is_full_at = self.0.get(key).and_then(|sight| sight.is_full_at);
            let sight = AppSight {
                seen: now,
                is_stopping: links.is_stopping,
                is_full_at: if links.is_full { Some(now) } else { is_full_at },
                beside: beside(&links.hubs),
                hubs: links.hubs.clone(),
            };
            self.0.insert(key.clone(), sight);
        }
        let age = |at: Instant| now.saturating_duration_since(at);
        self.0.retain(|key, sight| {
            apps.contains_key(key)
                || (!sight.is_stopping && age(sight.seen) < MISSED_TIME && beside(&sight.hubs) < sight.beside)
        });
        self.remove_oldest_lost(apps);
        let mut findings = Vec::new();
        for (key, sight) in &self.0 {
            let ((app, name), others) = (key, beside(&sight.hubs));
            if sight.is_full_at.is_some_and(|at| age(at) < FULL_TIME) {
                let detail = format!("hubs: {}", list(&sight.hubs));
                findings.push((app.clone(), Finding::new(ConditionKind::LinksFull, name, detail)));
            }
            if !apps.contains_key(key) && others > 0 {
                let (lost_s, of, hubs) = (age(sight.seen).as_secs(), sight.beside, list(&sight.hubs));
                let detail = format!("for {lost_s} s, {others} of {of} are left (hubs: {hubs})");
                findings.push((app.clone(), Finding::new(ConditionKind::AppServerMissing, name, detail)));
            }
        }
        findings
    }

    /// Keeps only the latest lost app servers of each app.
    fn remove_oldest_lost(&mut self, apps: &BTreeMap<AppServerSubject, AppLinks>) {
        let lost = self.0.iter().filter(|(key, _)| !apps.contains_key(key));
        let mut lost: Vec<_> = lost.map(|(key, sight)| (Reverse(sight.seen), key.clone())).collect();
        lost.sort_unstable();
        let mut counts = HashMap::<Arc<str>, usize>::new();
        for (_, key) in lost {
            let count = counts.entry(key.0.clone()).or_default();
            *count += 1;
            if *count > APP_SERVERS_MAX {
                self.0.remove(&key);
            }
        }
    }
}

impl AppLinks {
    pub(super) fn finding(self, subject: String) -> Option<Finding> {
        if self.is_stopping {
            return None;
        }
        let hubs = list(&self.hubs);
        if let Some(silence) = self.silence.filter(|silence| *silence >= SILENCE_MAX) {
            let detail = format!("for {} s (hubs: {hubs})", silence.as_secs());
            return Some(Finding::new(ConditionKind::AppServerSilent, subject, detail));
        }
        (self.open < self.wanted).then(|| {
            let detail = format!("{} of {} links are open (hubs: {hubs})", self.open, self.wanted);
            Finding::new(ConditionKind::AppServerLinksLost, subject, detail)
        })
    }
}

/// Lists the first hubs.
fn list(hubs: &[String]) -> String {
    let first = hubs.iter().take(HUBS_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match hubs.len().saturating_sub(HUBS_LISTED) {
        0 => first,
        more => format!("{first}, {more} more"),
    }
}

/// Limits the findings of each app and condition, so that an app neither floods the log nor hides others.
pub(super) fn limited(findings: Vec<(Arc<str>, Finding)>) -> Vec<Finding> {
    let mut counts = HashMap::<_, usize>::new();
    for (app, finding) in &findings {
        *counts.entry((app.clone(), finding.kind)).or_default() += 1;
    }
    let (mut taken, mut limited) = (HashMap::<_, usize>::new(), Vec::new());
    for (app, mut finding) in findings {
        let key = (app, finding.kind);
        let number = taken.entry(key.clone()).or_default();
        *number += 1;
        let more = counts.get(&key).map_or(0, |count| count.saturating_sub(APP_SERVERS_MAX));
        if *number == APP_SERVERS_MAX && more > 0 {
            finding.detail = format!("{}; {more} more of this app", finding.detail);
        }
        if *number <= APP_SERVERS_MAX {
            limited.push(finding);
        }
    }
    limited
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apps<'a>(names: impl IntoIterator<Item = (&'a str, String)>) -> BTreeMap<AppServerSubject, AppLinks> {
        let links = || AppLinks { hubs: vec!["chat".into()], open: 5, wanted: 5, ..AppLinks::default() };
        names.into_iter().map(|(app, name)| ((app.into(), name), links())).collect()
    }

    #[test]
    fn an_app_server_is_missing_until_as_many_serve_its_hubs_as_before() {
        let (mut sights, start) = (AppSights::default(), Instant::now());
        let mut note = |names: &[&str], second| {
            let apps = apps(names.iter().map(|name| ("", (*name).to_owned())));
            let findings = sights.note(&apps, start + Duration::from_secs(second));
            findings.into_iter().map(|(_, finding)| (finding.subject, finding.detail)).collect::<Vec<_>>()
        };
        assert_eq!(note(&["a", "b", "c"], 0), []);
        let lost = ("b".to_owned(), "for 7 s, 2 of 3 are left (hubs: chat)".to_owned());
        assert_eq!(note(&["a", "c"], 7), [lost]);
        assert_eq!(note(&["a", "c", "d"], 8), [], "it has a successor");
    }

    #[test]
    fn app_servers_of_two_apps_may_have_the_same_name() {
        let (mut sights, start) = (AppSights::default(), Instant::now());
        let both =
            apps([("news", "web-1"), ("news", "web-2"), ("shop", "web-1")].map(|(app, name)| (app, name.into())));
        assert_eq!(sights.note(&both, start).len(), 0);
        sights.note_stop(&("shop".into(), "web-1".into()));
        let left = apps([("news", "web-2".to_owned())]);
        let findings = sights.note(&left, start + Duration::from_secs(1));
        let lost: Vec<_> = findings.iter().map(|(app, finding)| (&**app, finding.subject.as_str())).collect();
        assert_eq!(lost, [("news", "web-1")]);
    }

    #[test]
    fn one_app_has_a_bounded_number_of_findings_and_lost_app_servers() {
        let (mut sights, start) = (AppSights::default(), Instant::now());
        let many = (0..1000).map(|number| ("shop", format!("{number:04}")));
        sights.note(&apps(many), start);
        let left = apps([("shop", "0000".to_owned()), ("news", "web".to_owned())]);
        let mut findings = sights.note(&left, start + Duration::from_secs(1));
        assert_eq!((findings.len(), sights.0.len()), (APP_SERVERS_MAX, APP_SERVERS_MAX + 2));
        let silent = |app: &str| (app.into(), Finding::new(ConditionKind::AppServerSilent, "web", "for 20 s"));
        findings.extend((0..60).map(|_| silent("shop")).chain([silent("news")]));
        let limited = limited(findings);
        assert_eq!(limited.len(), 2 * APP_SERVERS_MAX + 1);
        let more: Vec<_> = limited.iter().filter(|finding| finding.detail.contains("more")).collect();
        assert!(more.len() == 1 && more[0].detail == "for 20 s; 10 more of this app", "{more:?}");
    }
}
