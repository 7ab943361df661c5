//! Metrics of the operator's rules, by their labels.

use super::Exposition;
use crate::metrics::{Counter, LabelledCounters};

impl Exposition<'_> {
    pub(super) fn rules(&self) -> prometheus::Result<()> {
        let counters = self.shared.hubs.rule_counters();
        let help = "Connections and requests for which a route's conditions held.";
        self.by_rule("trunkline_route_matches_total", help, "route", &counters.routes)?;
        let help = "Calls of clients that a method rule has refused.";
        self.by_rule("trunkline_methods_refused_total", help, "rule", &counters.methods)?;
        let messages = self.counter(
            "trunkline_mirror_messages_total",
            "Messages for a mirror, by what became of the copy.",
            &["mirror", "outcome"],
        )?;
        let differences = self.counter(
            "trunkline_mirror_differences_total",
            "Answers of a mirror that differ from the primary app server's.",
            &["mirror"],
        )?;
        for (label, mirror) in counters.mirrors.all() {
            let counts = [("sent", &mirror.sent), ("dropped", &mirror.dropped)];
            for (outcome, counter) in counts {
                messages.with_label_values(&[&*label, outcome]).inc_by(counter.get());
            }
            differences.with_label_values(&[&*label]).inc_by(mirror.differences.get());
        }
        Ok(())
    }

    fn by_rule(
        &self,
        name: &str,
        help: &str,
        label_name: &str,
        counters: &LabelledCounters<Counter>,
    ) -> prometheus::Result<()> {
        let metric = self.counter(name, help, &[label_name])?;
        for (label, counter) in counters.all() {
            metric.with_label_values(&[&*label]).inc_by(counter.get());
        }
        Ok(())
    }
}
