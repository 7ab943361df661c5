//! Registry of the active conditions, keyed by condition and subject.
//!
//! ```text
//!  found ──► pending ──for the time of the catalogue──► active ──not found for 3 s──► removed
//!                └──not found──► removed
//! ```

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_process::is_steering;

use super::catalogue::ConditionKind;
use crate::ground::clock::unix_ms;

/// Maximum number of subjects of one condition; further ones are ignored. No condition takes room of another one.
const SUBJECTS_MAX: usize = 200;

/// Time without a finding after which a condition ends.
const END_AFTER: Duration = Duration::from_secs(3);

/// Interval of log lines of a condition that lasts.
const REMINDER_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum number of ended conditions in the history; the oldest are removed.
const HISTORY_MAX: usize = 200;

/// Time for which ended conditions stay in the history.
const HISTORY_TIME: Duration = Duration::from_secs(24 * 3600);

/// Minimum interval of log lines about a new reason of a reported event.
const NEWS_INTERVAL: Duration = Duration::from_secs(2);

/// Minimum interval of log lines about a new detail of a condition. Clients choose some of the quoted names.
const DETAIL_INTERVAL: Duration = Duration::from_secs(20);

/// Maximum length of a subject and of a detail.
const SUBJECT_MAX_CHARS: usize = 300;
const DETAIL_MAX_CHARS: usize = 1000;

/// Maximum length of a quoted text of a client or a back end.
const QUOTED_MAX_CHARS: usize = 80;

/// State found by one evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub kind: ConditionKind,
    /// Hub, app server, node, file or flag.
    pub subject: String,
    /// Current numbers, for people.
    pub detail: String,
}

impl Finding {
    /// Texts may come from clients: each is one line of limited length.
    pub(crate) fn new(kind: ConditionKind, subject: impl AsRef<str>, detail: impl AsRef<str>) -> Self {
        let (subject, detail) = (subject.as_ref(), detail.as_ref());
        Self { kind, subject: cleaned(subject, SUBJECT_MAX_CHARS), detail: cleaned(detail, DETAIL_MAX_CHARS) }
    }
}

/// Replaces control and bidi characters and line ends, and cuts the rest.
fn cleaned(text: &str, chars_max: usize) -> String {
    let mut chars = text.chars().map(|char| if is_steering(char) { char::REPLACEMENT_CHARACTER } else { char });
    let mut cleaned: String = chars.by_ref().take(chars_max).collect();
    cleaned.extend(chars.next().map(|_| '…'));
    cleaned
}

/// Quotes a text of a client or a back end: cleaned, cut, and without quotes of its own.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", cleaned(text, QUOTED_MAX_CHARS).replace('"', "'"))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ActiveCondition {
    pub kind: ConditionKind,
    pub subject: String,
    pub detail: String,
    /// Unix time of the beginning, in milliseconds.
    pub since_ms: u64,
    pub lasts: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoticeKind {
    Began,
    Lasts,
    Ended,
}

/// Change of a condition, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConditionNotice {
    pub kind: NoticeKind,
    pub condition: ActiveCondition,
}

type ConditionKey = (ConditionKind, String);

#[derive(Debug)]
struct ConditionEntry {
    detail: String,
    found_first: Instant,
    found_last: Instant,
    /// Beginning and its Unix time; `None` while pending.
    begun: Option<(Instant, u64)>,
    logged: Instant,
    /// Interval until the next log line: shorter if the detail has changed since the last one.
    log_interval: Duration,
}

/// Reported event, which holds until it is cleared or expires.
#[derive(Debug)]
struct ReportedEvent {
    detail: String,
    until: Option<Instant>,
}

#[derive(Debug, Default)]
struct RegistryState {
    entries: BTreeMap<ConditionKey, ConditionEntry>,
    events: BTreeMap<ConditionKey, ReportedEvent>,
    /// Ended conditions and their ends, oldest first.
    history: VecDeque<(Instant, ActiveCondition)>,
}

#[derive(Debug, Default)]
pub(crate) struct ConditionRegistry(Mutex<RegistryState>);

impl ConditionRegistry {
    /// Reports an event; without a time limit, the event holds until it is cleared.
    pub(crate) fn report(&self, finding: Finding, time: Option<Duration>) {
        let mut state = self.lock();
        let key = (finding.kind, finding.subject);
        if state.events.contains_key(&key) || has_room(&state.events, key.0) {
            let until = time.map(|time| Instant::now() + time);
            state.events.insert(key, ReportedEvent { detail: finding.detail, until });
        }
    }

    pub(crate) fn clear(&self, kind: ConditionKind, subject: &str) {
        self.clear_if(kind, subject, |_| true);
    }

    /// Clears an event if it has such a detail.
    pub(super) fn clear_if(&self, kind: ConditionKind, subject: &str, is_over: impl FnOnce(&str) -> bool) {
        if let Entry::Occupied(event) = self.lock().events.entry((kind, cleaned(subject, SUBJECT_MAX_CHARS)))
            && is_over(&event.get().detail)
        {
            event.remove();
        }
    }

    /// Replaces all findings by the ones of a new evaluation; returns the changes. In a `quiet` time, such as a drain,
    /// states that are normal then are ignored.
    pub(crate) fn update(&self, findings: Vec<Finding>, is_quiet: bool, now: Instant) -> Vec<ConditionNotice> {
        let mut state = self.lock();
        let RegistryState { entries, events, history } = &mut *state;
        events.retain(|_, event| event.until.is_none_or(|until| until > now));
        let reported =
            events.iter().map(|((kind, subject), event)| Finding::new(*kind, subject.as_str(), event.detail.as_str()));
        let found = findings.into_iter().map(|finding| (finding, false)).chain(reported.map(|event| (event, true)));
        let is_wanted = |finding: &Finding| !(is_quiet && finding.kind.entry().is_normal_at_start);
        for (finding, is_event) in found.filter(|(finding, _)| is_wanted(finding)) {
            let key = (finding.kind, finding.subject);
            if let Some(entry) = entries.get_mut(&key) {
                entry.log_interval = entry.log_interval.min(news_interval(&entry.detail, &finding.detail, is_event));
                (entry.detail, entry.found_last) = (finding.detail, now);
            } else if has_room(entries, key.0) {
                entries.insert(key, ConditionEntry::new(finding.detail, now));
            }
        }
        let mut notices = Vec::new();
        entries.retain(|key, entry| {
            let is_kept = entry.is_kept(now);
            notices.extend(
                entry
                    .advance(key.0, is_kept, now)
                    .map(|kind| ConditionNotice { kind, condition: entry.active(key, now) }),
            );
            is_kept
        });
        let ended = notices.iter().filter(|notice| notice.kind == NoticeKind::Ended);
        history.extend(ended.map(|notice| (now, notice.condition.clone())));
        let too_many = history.len().saturating_sub(HISTORY_MAX);
        history.drain(..too_many);
        history.retain(|(ended, _)| now.saturating_duration_since(*ended) < HISTORY_TIME);
        notices
    }

    /// Lists the active conditions, in the order of the catalogue.
    pub(crate) fn list(&self) -> Vec<ActiveCondition> {
        let (state, now) = (self.lock(), Instant::now());
        let begun = state.entries.iter().filter(|(_, entry)| entry.begun.is_some());
        begun.map(|(key, entry)| entry.active(key, now)).collect()
    }

    /// Lists the conditions that have ended in the last day, newest first.
    pub(crate) fn history(&self) -> Vec<ActiveCondition> {
        self.lock().history.iter().rev().map(|(_, condition)| condition.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, RegistryState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_room<T>(table: &BTreeMap<ConditionKey, T>, kind: ConditionKind) -> bool {
    table.range((kind, String::new())..).take_while(|((other, _), _)| *other == kind).count() < SUBJECTS_MAX
}

/// Interval of log lines after such a change of the detail. Numbers don't count: counts, rates or addresses.
fn news_interval(old: &str, new: &str, is_event: bool) -> Duration {
    let words = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    // Without names that strangers choose.
    let reason = |text: &str| words(&text.split('"').step_by(2).collect::<String>());
    match () {
        () if is_event && reason(old) != reason(new) => NEWS_INTERVAL,
        () if words(old) != words(new) => DETAIL_INTERVAL,
        () => REMINDER_INTERVAL,
    }
}

impl ConditionEntry {
    fn new(detail: String, now: Instant) -> Self {
        Self { detail, found_first: now, found_last: now, begun: None, logged: now, log_interval: REMINDER_INTERVAL }
    }

    fn is_kept(&self, now: Instant) -> bool {
        let missing = now.saturating_duration_since(self.found_last);
        missing.is_zero() || (self.begun.is_some() && missing < END_AFTER)
    }

    /// Begins, continues or ends; returns the change to log.
    fn advance(&mut self, kind: ConditionKind, is_kept: bool, now: Instant) -> Option<NoticeKind> {
        match self.begun {
            Some(_) if !is_kept => Some(NoticeKind::Ended),
            Some(_) if now.saturating_duration_since(self.logged) >= self.log_interval => {
                (self.logged, self.log_interval) = (now, REMINDER_INTERVAL);
                Some(NoticeKind::Lasts)
            }
            None if is_kept && now.saturating_duration_since(self.found_first).as_secs() >= kind.entry().after_s => {
                (self.begun, self.logged) = (Some((now, unix_ms())), now);
                self.log_interval = REMINDER_INTERVAL;
                Some(NoticeKind::Began)
            }
            Some(_) | None => None,
        }
    }

    fn active(&self, (kind, subject): &ConditionKey, now: Instant) -> ActiveCondition {
        let (begun, since_ms) = self.begun.unwrap_or((now, unix_ms()));
        let lasts = now.saturating_duration_since(begun);
        ActiveCondition { kind: *kind, subject: subject.clone(), detail: self.detail.clone(), since_ms, lasts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links_lost(subject: &str) -> Vec<Finding> {
        vec![Finding::new(ConditionKind::AppServerLinksLost, subject, "1 of 5")]
    }

    /// Updates with a finding in these seconds; returns each change and its second.
    fn changes(found: impl Fn(u64) -> bool, seconds: u64) -> Vec<(u64, NoticeKind)> {
        let (registry, start) = (ConditionRegistry::default(), Instant::now());
        let at = |second| {
            let findings = if found(second) { links_lost("app") } else { Vec::new() };
            let notices = registry.update(findings, false, start + Duration::from_secs(second));
            notices.into_iter().map(move |notice| (second, notice.kind))
        };
        (0..seconds).flat_map(at).collect()
    }

    #[test]
    fn a_condition_begins_after_its_bound_is_repeated_each_minute_and_ends_three_seconds_after_the_state() {
        let expected = [(5, NoticeKind::Began), (65, NoticeKind::Lasts), (102, NoticeKind::Ended)];
        assert_eq!(changes(|second| second < 100, 200), expected);
    }

    #[test]
    fn a_state_that_is_shorter_than_its_bound_is_no_condition_and_a_short_gap_does_not_end_one() {
        assert_eq!(changes(|second| second % 5 != 4, 100), []);
        assert_eq!(changes(|second| second != 10 && second != 11, 60), [(5, NoticeKind::Began)]);
    }

    #[test]
    fn a_state_that_is_normal_in_a_quiet_time_is_ignored_then() {
        let (registry, start) = (ConditionRegistry::default(), Instant::now());
        for second in 0..20 {
            registry.update(links_lost("app"), true, start + Duration::from_secs(second));
        }
        assert_eq!(registry.list(), []);
    }

    #[test]
    fn a_reported_event_is_logged_early_if_its_reason_changes_but_not_its_numbers_and_names() {
        let (registry, start) = (ConditionRegistry::default(), Instant::now());
        let lasts = |second: u64, detail: &str| {
            registry.report(Finding::new(ConditionKind::SlowClientsClosed, "budget", detail), None);
            let notices = registry.update(Vec::new(), false, start + Duration::from_secs(second));
            notices.iter().any(|notice| notice.kind == NoticeKind::Lasts)
        };
        let named = |second: u64| if second.is_multiple_of(2) { "\"red\"" } else { "\"blue\"" };
        assert!((0..20).all(|second| !lasts(second, &format!("hub {}, {second} clients", named(second)))));
        assert!(lasts(20, "another reason"));
    }

    #[test]
    fn a_detail_that_changes_while_its_condition_lasts_is_logged_with_a_bounded_rate() {
        let (registry, start) = (ConditionRegistry::default(), Instant::now());
        let mut logged = Vec::new();
        for second in 0..70 {
            let detail = match second {
                0..5 => "apps \"a\" and \"b\" overlap",
                _ => "apps \"c\" and \"d\" overlap",
            };
            let finding = Finding::new(ConditionKind::FileUnreadable, "keys", detail);
            let notices = registry.update(vec![finding], false, start + Duration::from_secs(second));
            logged.extend(notices.into_iter().map(|notice| (second, notice.condition.detail)));
        }
        let [began, changed] = &*logged else { panic!("{logged:?}") };
        assert_eq!((began.0, changed.0), (0, 20));
        assert!(began.1.contains("\"a\"") && changed.1.contains("\"c\""), "{logged:?}");
    }

    #[test]
    fn texts_of_strangers_are_one_cut_line() {
        let evil = "x\nwarning: hub-without-app-server: chat\r\u{1b}[31m\u{202e}\u{2028}";
        let found = Finding::new(ConditionKind::WebhookFails, evil, evil.repeat(100));
        assert!(!format!("{}{}", found.subject, found.detail).contains(is_steering), "{found:?}");
        assert_eq!((found.detail.chars().count(), found.detail.chars().last()), (DETAIL_MAX_CHARS + 1, Some('…')));
        assert_eq!(quoted("a \"b\"\n"), "\"a 'b'\u{fffd}\"");
        let registry = ConditionRegistry::default();
        registry.report(Finding::new(ConditionKind::WebhookFails, evil, ""), None);
        registry.clear(ConditionKind::WebhookFails, evil);
        assert_eq!(registry.update(Vec::new(), false, Instant::now() + Duration::from_secs(9)), []);
        assert_eq!(registry.lock().entries.len(), 0, "an event is cleared by its original subject");
    }

    #[test]
    fn the_number_of_conditions_is_bounded() {
        let (registry, start) = (ConditionRegistry::default(), Instant::now());
        let many = |kind| (0..1100).map(move |n| Finding::new(kind, n.to_string(), ""));
        many(ConditionKind::CertificateEnds).for_each(|finding| registry.report(finding, None));
        let notices = registry.update(many(ConditionKind::FileUnreadable).collect(), false, start);
        let count = |kind| notices.iter().filter(|notice| notice.condition.kind == kind).count();
        assert_eq!(count(ConditionKind::CertificateEnds), SUBJECTS_MAX);
        assert_eq!(count(ConditionKind::FileUnreadable), SUBJECTS_MAX, "each condition has its own room");
    }

    #[test]
    fn ended_conditions_are_listed_for_a_day_newest_first_and_the_oldest_are_removed() {
        let (registry, start) = (ConditionRegistry::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        for (number, second) in (0..=HISTORY_MAX).zip((0..).step_by(20)) {
            let finding = Finding::new(ConditionKind::CertificateEnds, number.to_string(), "");
            registry.update(vec![finding], false, at(second));
            registry.update(Vec::new(), false, at(second + 10));
        }
        let subjects: Vec<_> = registry.history().into_iter().map(|condition| condition.subject).collect();
        let expected: Vec<_> = (1..=HISTORY_MAX).rev().map(|number| number.to_string()).collect();
        assert_eq!(subjects, expected);
        registry.update(Vec::new(), false, at(20 * HISTORY_MAX as u64 + 10) + HISTORY_TIME);
        assert_eq!(registry.history(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reported_event_holds_until_it_is_cleared_or_expires() {
        let registry = ConditionRegistry::default();
        let finding = |subject: &str| Finding::new(ConditionKind::FileUnreadable, subject, "no such file");
        registry.report(finding("keys"), None);
        registry.report(finding("rules"), Some(Duration::from_secs(90)));
        let active = |registry: &ConditionRegistry| {
            registry.update(Vec::new(), false, Instant::now());
            registry.list().into_iter().map(|condition| condition.subject).collect::<Vec<_>>()
        };
        assert_eq!(active(&registry), ["keys", "rules"]);
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(active(&registry), ["keys"]);
        registry.clear(ConditionKind::FileUnreadable, "keys");
        tokio::time::advance(END_AFTER).await;
        assert_eq!(active(&registry), Vec::<String>::new());
    }
}
