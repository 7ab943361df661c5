//! Metrics of forwarded requests: passed through to app servers, or carried to the owner of their connection.

use super::Exposition;
use crate::metrics::{HopRefusal, PassThroughOutcome, RelayFailure, ReservationOutcome};

impl Exposition<'_> {
    pub(super) fn relay(&self) -> prometheus::Result<()> {
        let passed = self.counter(
            "trunkline_pass_through_requests_total",
            "Requests for the app server, by what became of them.",
            &["outcome"],
        )?;
        for (outcome, label) in PassThroughOutcome::ALL {
            passed.with_label_values(&[label]).inc_by(self.sum(|counters| counters.relay.passed(outcome)));
        }
        let bytes = self.counter(
            "trunkline_pass_through_bytes_total",
            "Bytes of bodies and upgraded connections that were passed through.",
            &["direction"],
        )?;
        bytes.with_label_values(&["up"]).inc_by(self.sum(|counters| &counters.relay.bytes_up));
        bytes.with_label_values(&["down"]).inc_by(self.sum(|counters| &counters.relay.bytes_down));
        self.total("trunkline_pass_through_upgrades_total", "Upgrades that app servers accepted.", |counters| {
            &counters.relay.upgrades
        })?;
        self.total("trunkline_private_paths_total", "Requests from outside for paths of the fleet's own.", |counters| {
            &counters.relay.private_paths
        })
    }

    pub(super) fn owner_hops(&mut self) -> prometheus::Result<()> {
        self.total(
            "trunkline_owner_hops_total",
            "Requests carried to the node that owns their connection.",
            |counters| &counters.relay.hops,
        )?;
        self.total(
            "trunkline_owner_hop_misses_total",
            "Those of them whose owner did not have the connection.",
            |counters| &counters.relay.hop_misses,
        )?;
        let took = self.distribution(|counters| &counters.relay.hop_durations);
        let help = "How long they took until the head of the answer was there; polls wait for what they bring.";
        self.histogram("trunkline_owner_hop_duration_seconds", help, vec![(None, took)]);
        let failures = self.counter(
            "trunkline_owner_hop_failures_total",
            "Those of them that got no answer, by cause.",
            &["cause"],
        )?;
        for (failure, label) in RelayFailure::ALL {
            failures.with_label_values(&[label]).inc_by(self.sum(|counters| counters.relay.hop_failures.of(failure)));
        }
        let refused = self.counter(
            "trunkline_owner_hops_refused_total",
            "Requests that were not carried to the node that owns their connection, by cause.",
            &["cause"],
        )?;
        for (refusal, label) in HopRefusal::ALL {
            refused.with_label_values(&[label]).inc_by(self.sum(|counters| counters.relay.hops_refused(refusal)));
        }
        let asked = self.counter(
            "trunkline_reservations_total",
            "WebSockets with stateful reconnect, or with a user that the app has named, at another node than the one that \
             made their token: whether that one gave the connection id away.",
            &["outcome"],
        )?;
        for (outcome, label) in ReservationOutcome::ALL {
            asked.with_label_values(&[label]).inc_by(self.sum(|counters| counters.relay.reservations(outcome)));
        }
        self.total(
            "trunkline_forward_marks_refused_total",
            "Requests with a forward mark that no node of this fleet made for them.",
            |counters| &counters.relay.marks_refused,
        )
    }
}
