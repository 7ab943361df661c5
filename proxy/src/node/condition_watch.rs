//! Evaluation of all conditions, once a second on the control thread, and their log lines.
//!
//! ```text
//!  hubs, app servers ─► hub_condition ────┐
//!  process, nodes ────► node_condition ───┼─► findings ─► registry ─► log
//!  clients ───────────► traffic_condition ┘
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::condition_webhook::{ConditionWebhook, PACE};
use super::hub_condition::{HubConditions, START_TIME};
use super::node_condition::{NodeConditions, ProcessConditions};
use super::traffic_condition::TrafficConditions;
use crate::edge::observer::UpstreamProblems;
use crate::engine::shard::Shared;
use crate::features::webhook::Webhooks;
use crate::fleet::Fleet;
use crate::ground::condition::{ConditionKind, ConditionNotice, Finding, NoticeKind, Severity};
use crate::ground::config::ConditionReceiver;

/// Interval between two evaluations of all conditions.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time without an evaluation after which the control thread counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// Time for which a stop of the control thread is reported after its end: longer than two scrapes of Prometheus.
const REPORTED_FOR: Duration = Duration::from_secs(150);

/// Interval of the watchdog's log lines.
const WATCHDOG_REMINDER_S: u64 = 60;

pub(crate) struct ConditionWatch {
    shared: Arc<Shared>,
    hubs: HubConditions,
    nodes: NodeConditions,
    traffic: TrafficConditions,
    process: ProcessConditions,
}

impl ConditionWatch {
    pub(crate) fn new(
        shared: Arc<Shared>,
        fleet: Fleet,
        webhooks: Arc<Webhooks>,
        problems: Arc<UpstreamProblems>,
    ) -> Self {
        Self {
            hubs: HubConditions::new(shared.clone(), webhooks.clone(), problems),
            nodes: NodeConditions::new(fleet.clone()),
            process: ProcessConditions::new(shared.clone(), fleet.admission().clone(), webhooks),
            traffic: TrafficConditions::new(shared.clone(), fleet),
            shared,
        }
    }

    /// Evaluates all conditions; returns the changes, for the log.
    pub(crate) async fn evaluate(&mut self) -> Vec<ConditionNotice> {
        let now = Instant::now();
        let mut findings = self.hubs.findings(now).await;
        findings.extend(self.nodes.findings(now).await);
        findings.extend(self.traffic.findings(now).await);
        findings.extend(self.process.findings(now));
        let is_quiet = self.shared.uptime() < START_TIME || self.shared.has_begun_drain();
        self.shared.reports.conditions.update(findings, is_quiet, now)
    }
}

pub(super) async fn run(mut watch: ConditionWatch, webhook: Option<ConditionReceiver>) {
    let turns = Arc::new(AtomicU64::new(0));
    watch_control_thread(&turns, &watch.shared);
    let webhook = webhook.map(|receiver| ConditionWebhook::start(receiver.0, &watch.shared, PACE));
    let mut seconds = interval(INTERVAL);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        turns.fetch_add(1, Ordering::Relaxed);
        for notice in watch.evaluate().await {
            log(&notice);
            webhook.iter().for_each(|webhook| webhook.notify(&notice));
        }
    }
}

fn log(notice: &ConditionNotice) {
    let (condition, entry) = (&notice.condition, notice.condition.kind.entry());
    let (name, subject, detail, lasts_s) =
        (entry.name, &condition.subject, &condition.detail, condition.lasts.as_secs());
    let (text, remedy) = (entry.text, entry.remedy);
    match (notice.kind, entry.severity) {
        (NoticeKind::Ended, _) => info!(condition = name, subject, lasted_s = lasts_s, "condition ended: {text}"),
        (NoticeKind::Began | NoticeKind::Lasts, Severity::Error) => {
            error!(condition = name, subject, detail, lasts_s, remedy, "{text}");
        }
        (NoticeKind::Began | NoticeKind::Lasts, Severity::Warning) => {
            warn!(condition = name, subject, detail, lasts_s, remedy, "{text}");
        }
    }
}

/// Starts a thread that reports a stuck control thread; it ends with the evaluation.
fn watch_control_thread(turns: &Arc<AtomicU64>, shared: &Arc<Shared>) {
    let (turns, shared) = (Arc::downgrade(turns), Arc::downgrade(shared));
    let watching = move || {
        let mut seen = ControlTurns::default();
        loop {
            std::thread::sleep(INTERVAL);
            let (Some(turns), Some(shared)) = (turns.upgrade(), shared.upgrade()) else { return };
            let Some(stuck_s) = seen.note(turns.load(Ordering::Relaxed)) else { continue };
            let detail = format!("it was stopped for {stuck_s} s");
            let finding = Finding::new(ConditionKind::ControlThreadStuck, "control thread", detail);
            shared.reports.conditions.report(finding, Some(REPORTED_FOR));
            if stuck_s % WATCHDOG_REMINDER_S == STUCK_AFTER.as_secs() {
                let entry = ConditionKind::ControlThreadStuck.entry();
                error!(condition = entry.name, stuck_s, remedy = entry.remedy, "{}", entry.text);
            }
        }
    };
    if let Err(problem) = std::thread::Builder::new().name("watchdog".into()).spawn(watching) {
        warn!(%problem, "watchdog of the control thread not started");
    }
}

/// Turns of the control thread, as the watchdog sees them each second.
#[derive(Debug, Default)]
struct ControlTurns {
    last: u64,
    unchanged_s: u64,
}

impl ControlTurns {
    /// Notes the number of turns; returns the seconds without one, if they are too many.
    fn note(&mut self, turns: u64) -> Option<u64> {
        self.unchanged_s = if turns == self.last { self.unchanged_s + 1 } else { 0 };
        self.last = turns;
        Some(self.unchanged_s).filter(|seconds| *seconds >= STUCK_AFTER.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_thread_without_a_turn_for_five_seconds_is_stuck() {
        let mut seen = ControlTurns::default();
        let stuck: Vec<_> = [1, 2, 3, 3, 3, 3, 3, 3, 3, 4].map(|turns| seen.note(turns)).into();
        assert_eq!(stuck.iter().flatten().copied().collect::<Vec<_>>(), [5, 6]);
        assert_eq!(stuck.last(), Some(&None));
    }
}
