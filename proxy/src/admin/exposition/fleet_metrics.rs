//! Metrics of the fleet: the states of its nodes, and what nodes say to each other.

use super::Exposition;
use crate::fleet::{DropCause, Fleet, MemberState};

impl Exposition<'_> {
    /// Nodes of the fleet as this one sees them, itself included.
    pub(super) fn fleet(&self, own: MemberState, fleet: &Fleet) -> prometheus::Result<()> {
        let help = "Nodes of the fleet as this one sees them, itself included. What --peers names and is no node is unreachable.";
        let nodes = self.gauge("trunkline_fleet_nodes", help, &["state"])?;
        let now_ms = fleet.members().now_ms();
        let strays = fleet.members().unreachable().into_iter().map(|_| MemberState::Unreachable);
        let seen: Vec<_> =
            fleet.members().all().iter().map(|member| member.state(now_ms)).chain([own]).chain(strays).collect();
        for state in MemberState::ALL {
            let count = seen.iter().filter(|seen| **seen == state).count();
            nodes.with_label_values(&[state.label()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let agree = self.gauge("trunkline_fleet_agree", "1 while all nodes of the fleet see the same members.", &[])?;
        agree.with_label_values::<&str>(&[]).set(i64::from(fleet.members().agrees()));
        let help = "Names that several nodes of the fleet have.";
        let names = self.gauge("trunkline_fleet_shared_names", help, &[])?;
        names
            .with_label_values::<&str>(&[])
            .set(i64::try_from(fleet.members().shared_names().len()).unwrap_or(i64::MAX));
        self.node_links(fleet)
    }

    fn node_links(&self, fleet: &Fleet) -> prometheus::Result<()> {
        let counters = fleet.passage().counters();
        let frames = self.counter("trunkline_fleet_frames_total", "Messages between nodes.", &["direction"])?;
        let bytes = self.counter("trunkline_fleet_bytes_total", "Bytes between nodes.", &["direction"])?;
        for (direction, of_frames, of_bytes) in
            [("sent", &counters.sent, &counters.sent_bytes), ("received", &counters.received, &counters.received_bytes)]
        {
            frames.with_label_values(&[direction]).inc_by(of_frames.get());
            bytes.with_label_values(&[direction]).inc_by(of_bytes.get());
        }
        let help = "Messages between nodes that were dropped, by cause.";
        let dropped = self.counter("trunkline_fleet_dropped_total", help, &["cause"])?;
        for cause in DropCause::ALL {
            dropped.with_label_values(&[cause.label()]).inc_by(counters.dropped(cause));
        }
        Ok(())
    }
}
