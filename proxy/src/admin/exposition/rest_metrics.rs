//! Metrics of the REST data plane.

use super::Exposition;

impl Exposition<'_> {
    pub(super) fn data_plane(&self) -> prometheus::Result<()> {
        let help = "Requests to the REST data plane, by outcome.";
        let requests = self.counter("trunkline_rest_requests_total", help, &["outcome"])?;
        for (label, count) in self.shared.reports.rest_counters.all() {
            requests.with_label_values(&[label]).inc_by(count);
        }
        let help = "Memberships of users that are kept for connections to come.";
        let kept = self.gauge("trunkline_user_groups_kept", help, &[])?;
        kept.with_label_values::<&str>(&[]).set(i64::try_from(self.shared.user_groups.len()).unwrap_or(i64::MAX));
        let help = "Memberships of users that were not kept, because of --rest-user-groups-max.";
        let refused = self.counter("trunkline_user_groups_refused_total", help, &[])?;
        refused.with_label_values::<&str>(&[]).inc_by(self.shared.user_groups.refused.get());
        Ok(())
    }
}
