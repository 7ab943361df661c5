//! Reports of refused app servers that dial in, by hub.

use std::time::Duration;

use super::catalogue::ConditionKind;
use super::condition_registry::{ConditionRegistry, Finding};

/// Time for which a refusal is reported; an app server retries more often.
const REFUSED_FOR: Duration = Duration::from_secs(90);

/// Subject of a refusal at a hub that this node does not know: strangers choose these names.
pub(crate) const UNKNOWN_HUB: &str = "(unknown hub)";

impl ConditionRegistry {
    pub(crate) fn report_refused_app(&self, hub: &str, detail: String) {
        self.report(Finding::new(ConditionKind::AppServerRefused, hub, detail), Some(REFUSED_FOR));
    }

    /// Ends the report of a hub, because an app server of the hub was accepted. The hub may have been unknown before.
    pub(crate) fn clear_refused_app(&self, hub: &str) {
        self.clear(ConditionKind::AppServerRefused, hub);
        let named = format!("hub {:?}, ", hub.to_ascii_lowercase());
        let is_of_hub = |detail: &str| !detail.starts_with("hub ") || detail.starts_with(&named);
        self.clear_if(ConditionKind::AppServerRefused, UNKNOWN_HUB, is_of_hub);
    }
}
