//! Limits of one hub's connections, and flow control of one client: decides when its proxy is asked to pause or resume
//! it. Pure logic.
//!
//! ```text
//!                 budget exceeded, or too many items of one upload
//!        flowing ───────────────────────────────────────────────────────────► paused
//!           ▲      half of the budget is free, or a method waits for the client  │
//!           └─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! While a method waits for the client itself, a pause could last forever: the result is queued behind unread messages.
//! So the budget is then larger; if it is exceeded too, the waits fail.

use std::time::Duration;

use trunkline_protocol::limits::{
    CLIENT_RESULT_TIMEOUT_MS, CLIENT_RESULTS_MAX, CLIENT_TIMEOUT_MS, GROUP_NAME_MAX_BYTES, HUB_MESSAGE_MAX_BYTES,
    INBOX_MAX_BYTES, PARALLEL_INVOCATIONS, UPLOAD_MAX_ITEMS, WAITING_INBOX_MAX_BYTES,
};
use trunkline_protocol::service::FlowOperation;

#[derive(Debug, Default)]
pub(crate) struct FlowControl {
    /// Never near 4 GiB: the client is paused long before.
    waiting_bytes: u32,
    /// Number of methods that wait for the client: for a result or an upload item.
    waits: u32,
    /// Number of uploads above their item limit.
    full_uploads: u16,
    is_paused: bool,
}

impl FlowControl {
    pub(crate) fn add_bytes(&mut self, bytes: usize) {
        self.waiting_bytes = self.waiting_bytes.saturating_add(narrow(bytes));
    }

    pub(crate) fn remove_bytes(&mut self, bytes: usize) {
        debug_assert!(narrow(bytes) <= self.waiting_bytes, "bytes are removed only after they were added");
        self.waiting_bytes = self.waiting_bytes.saturating_sub(narrow(bytes));
    }

    pub(crate) fn begin_wait(&mut self) {
        self.waits += 1;
    }

    pub(crate) fn end_wait(&mut self) {
        debug_assert!(self.waits > 0, "only a wait that began ends");
        self.waits = self.waits.saturating_sub(1);
    }

    pub(crate) fn upload_filled(&mut self) {
        self.full_uploads = self.full_uploads.saturating_add(1);
    }

    pub(crate) fn upload_drained(&mut self) {
        debug_assert!(self.full_uploads > 0, "only a full upload drains");
        self.full_uploads = self.full_uploads.saturating_sub(1);
    }

    /// Whether waiting for the client is hopeless, because too much is queued before its answer.
    pub(crate) fn is_overfull(&self, limits: &Limits) -> bool {
        self.waiting_bytes as usize > limits.waiting_inbox_max_bytes.max(limits.inbox_max_bytes)
    }

    pub(crate) fn poll(&mut self, limits: &Limits) -> Option<FlowOperation> {
        if !self.is_paused && self.must_pause(limits) {
            self.is_paused = true;
            return Some(FlowOperation::Pause);
        }
        if self.is_paused && self.may_resume(limits) {
            self.is_paused = false;
            return Some(FlowOperation::Resume);
        }
        None
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused
    }

    #[cfg(test)]
    pub(crate) fn waiting_bytes(&self) -> u32 {
        self.waiting_bytes
    }

    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting_bytes == 0 && self.waits == 0 && self.full_uploads == 0 && !self.is_paused
    }

    fn must_pause(&self, limits: &Limits) -> bool {
        if self.waits > 0 {
            return self.is_overfull(limits);
        }
        self.waiting_bytes as usize > limits.inbox_max_bytes || self.full_uploads > 0
    }

    fn may_resume(&self, limits: &Limits) -> bool {
        if self.waits > 0 {
            return !self.is_overfull(limits);
        }
        self.waiting_bytes as usize <= limits.inbox_max_bytes / 2 && self.full_uploads == 0
    }
}

fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Default time limit of a hook, after which it is cancelled.
const HOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// Limits of one hub's connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) message_max_bytes: usize,
    /// Queued bytes above which the client is paused.
    pub(crate) inbox_max_bytes: usize,
    /// Maximum queued bytes while a method waits for the client itself.
    pub(crate) waiting_inbox_max_bytes: usize,
    /// Queued items of an upload above which the client is paused.
    pub(crate) upload_max_items: usize,
    pub(crate) parallel_invocations: usize,
    pub(crate) client_result_timeout: Duration,
    pub(crate) client_results_max: usize,
    pub(crate) group_name_max_bytes: usize,
    pub(crate) client_timeout: Duration,
    pub(crate) hook_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_max_bytes: HUB_MESSAGE_MAX_BYTES,
            inbox_max_bytes: INBOX_MAX_BYTES,
            waiting_inbox_max_bytes: WAITING_INBOX_MAX_BYTES,
            upload_max_items: UPLOAD_MAX_ITEMS,
            parallel_invocations: PARALLEL_INVOCATIONS,
            client_result_timeout: Duration::from_millis(CLIENT_RESULT_TIMEOUT_MS),
            client_results_max: CLIENT_RESULTS_MAX,
            group_name_max_bytes: GROUP_NAME_MAX_BYTES,
            client_timeout: Duration::from_millis(CLIENT_TIMEOUT_MS),
            hook_timeout: HOOK_TIMEOUT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        message_max_bytes: 1000,
        inbox_max_bytes: 100,
        waiting_inbox_max_bytes: 400,
        upload_max_items: 10,
        parallel_invocations: 1,
        client_result_timeout: std::time::Duration::ZERO,
        client_results_max: 1,
        group_name_max_bytes: 1,
        client_timeout: std::time::Duration::ZERO,
        hook_timeout: std::time::Duration::ZERO,
    };

    fn poll(flow: &mut FlowControl) -> Option<FlowOperation> {
        flow.poll(&LIMITS)
    }

    #[test]
    fn too_much_pauses_once_and_half_of_it_resumes() {
        let mut flow = FlowControl::default();
        flow.add_bytes(100);
        assert_eq!(poll(&mut flow), None);
        flow.add_bytes(1);
        assert_eq!(poll(&mut flow), Some(FlowOperation::Pause));
        flow.add_bytes(100);
        assert_eq!(poll(&mut flow), None, "it was asked for already");
        flow.remove_bytes(150);
        assert_eq!(poll(&mut flow), None);
        flow.remove_bytes(1);
        assert_eq!(poll(&mut flow), Some(FlowOperation::Resume));
        assert_eq!(poll(&mut flow), None);
    }

    #[test]
    fn a_wait_lifts_the_pause_up_to_the_second_budget() {
        let mut flow = FlowControl::default();
        flow.add_bytes(300);
        assert_eq!(poll(&mut flow), Some(FlowOperation::Pause));
        flow.begin_wait();
        assert_eq!(poll(&mut flow), Some(FlowOperation::Resume));
        assert!(!flow.is_overfull(&LIMITS));
        flow.add_bytes(101);
        assert!(flow.is_overfull(&LIMITS));
        assert_eq!(poll(&mut flow), Some(FlowOperation::Pause));
    }

    #[test]
    fn the_first_budget_applies_again_after_the_wait() {
        let mut flow = FlowControl::default();
        flow.begin_wait();
        flow.add_bytes(300);
        assert_eq!(poll(&mut flow), None);
        flow.end_wait();
        assert_eq!(poll(&mut flow), Some(FlowOperation::Pause));
    }

    #[test]
    fn a_full_upload_pauses_unless_a_method_waits_for_an_item() {
        let mut flow = FlowControl::default();
        flow.upload_filled();
        assert_eq!(poll(&mut flow), Some(FlowOperation::Pause));
        flow.begin_wait();
        assert_eq!(poll(&mut flow), Some(FlowOperation::Resume));
        flow.end_wait();
        assert_eq!(poll(&mut flow), Some(FlowOperation::Pause));
        flow.upload_drained();
        assert_eq!(poll(&mut flow), Some(FlowOperation::Resume));
    }
}
