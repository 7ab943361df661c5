//! Conditions of this process: open files, memory budgets, logs, certificates, shards.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_process::{audit_lines_lost, log_lines_dropped};

use crate::engine::shard::Shared;
use crate::features::admission::Admission;
use crate::features::webhook::Webhooks;
use crate::ground::condition::{ConditionKind, Finding};
use crate::ground::net::descriptor::DescriptorLimit;

/// Part of a budget, in percent, above which it is nearly full.
const FULL_PERCENT: u64 = 90;

/// Time for which losses are reported: longer than two scrapes of Prometheus, so that alerts fire.
pub(super) const LOSS_TIME: Duration = Duration::from_secs(150);

/// Number of evaluations without a tick after which a shard counts as stuck. Not a time: after a pause of the machine,
/// this thread may run before the shards.
const STUCK_AFTER: u64 = 5;

pub(super) struct ProcessConditions {
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    webhooks: Arc<Webhooks>,
    log: LossCounter,
    audit: LossCounter,
    /// Ticks of each shard, and the number of evaluations without a change.
    ticks: Vec<(u64, u64)>,
}

/// Counter of lost lines, and the time of the last loss.
#[derive(Debug, Default)]
struct LossCounter {
    total: u64,
    lost_at: Option<Instant>,
}

impl LossCounter {
    /// Notes the total; returns it if lines were lost recently.
    fn note(&mut self, total: u64, now: Instant) -> Option<u64> {
        if total > self.total {
            (self.total, self.lost_at) = (total, Some(now));
        }
        self.lost_at.filter(|at| now.saturating_duration_since(*at) < LOSS_TIME).map(|_| total)
    }
}

impl ProcessConditions {
    pub(super) fn new(shared: Arc<Shared>, admission: Arc<Admission>, webhooks: Arc<Webhooks>) -> Self {
        // Lines lost before this node started are not its own.
        let [log, audit] = [log_lines_dropped(), audit_lines_lost()].map(|total| LossCounter { total, lost_at: None });
        Self { shared, admission, webhooks, log, audit, ticks: Vec::new() }
    }

    pub(super) fn findings(&mut self, now: Instant) -> Vec<Finding> {
        let mut findings = self.budgets();
        let losses = [
            (ConditionKind::LogLinesDropped, "log", self.log.note(log_lines_dropped(), now)),
            (ConditionKind::AuditLinesLost, "audit log", self.audit.note(audit_lines_lost(), now)),
        ];
        for (kind, subject, total) in losses {
            findings.extend(total.map(|total| Finding::new(kind, subject, format!("{total} lines since the start"))));
        }
        if let Some((used, most)) = DescriptorLimit::for_clients().usage().filter(|(used, most)| is_full(*used, *most))
        {
            let detail = format!("{used} of {most}");
            findings.push(Finding::new(ConditionKind::OpenFilesHigh, "open files", detail));
        }
        let failures = self.admission.verifier.key_set_failures().into_iter();
        findings.extend(failures.map(|(source, why)| Finding::new(ConditionKind::TokenKeysUnreachable, source, why)));
        findings.extend(self.stuck_shards());
        findings
    }

    fn budgets(&self) -> Vec<Finding> {
        let (shared, counters) = (&self.shared, self.shared.counters());
        let settings = &shared.settings;
        let outboxes = counters.iter().map(|counters| counters.outbox_bytes.get()).sum();
        let unfinished = counters.iter().map(|counters| counters.unfinished_bytes.get()).sum();
        let budgets = [
            ("--outbox-total-max-bytes", outboxes, settings.outbox.total_bytes),
            ("--unfinished-total-max-bytes", unfinished, settings.limits.unfinished_total_bytes),
            ("--heads-total-max-bytes", shared.limits.heads.kept_bytes() as u64, settings.limits.heads_total_bytes),
            (
                "--group-names-total-max-bytes",
                shared.limits.group_names.len() as u64,
                settings.groups.names_total_bytes,
            ),
            ("--webhook-waiting-max-bytes", self.webhooks.waiting_bytes() as u64, settings.webhooks.waiting_max_bytes),
        ];
        let is_nearly_full = |(_, used, most): &(&str, u64, usize)| is_full(*used, *most as u64);
        let finding = |(flag, used, most): (&str, u64, usize)| {
            Finding::new(ConditionKind::MemoryBudgetHigh, flag, format!("{used} of {most} bytes"))
        };
        budgets.into_iter().filter(is_nearly_full).map(finding).collect()
    }

    fn stuck_shards(&mut self) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.ticks.resize(self.shared.counters().len(), (u64::MAX, 0));
        for (index, (counters, (ticks, unchanged))) in self.shared.counters().iter().zip(&mut self.ticks).enumerate() {
            let latest = counters.ticks.get();
            *unchanged = if *ticks == latest { *unchanged + 1 } else { 0 };
            *ticks = latest;
            if *unchanged >= STUCK_AFTER {
                let detail = format!("no tick for {unchanged} s");
                findings.push(Finding::new(ConditionKind::ShardStuck, format!("shard-{index}"), detail));
            }
        }
        findings
    }
}

fn is_full(used: u64, most: u64) -> bool {
    most > 0 && used.saturating_mul(100) > most.saturating_mul(FULL_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_lines_are_reported_for_longer_than_two_scrapes() {
        let (mut losses, start) = (LossCounter::default(), Instant::now());
        let mut note = |total, second| losses.note(total, start + Duration::from_secs(second));
        assert_eq!((note(0, 0), note(2, 1), note(2, 150), note(2, 151)), (None, Some(2), Some(2), None));
    }

    #[test]
    fn a_budget_is_nearly_full_above_nine_tenths() {
        assert!(is_full(91, 100) && !is_full(90, 100) && !is_full(0, 0) && !is_full(5, 0));
    }
}
