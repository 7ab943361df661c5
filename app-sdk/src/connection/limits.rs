//! Limits of one hub's connections.

use std::time::Duration;

use trunkline_protocol::limits::{
    CLIENT_RESULT_TIMEOUT_MS, CLIENT_RESULTS_MAX, CLIENT_TIMEOUT_MS, GROUP_NAME_MAX_BYTES, HUB_MESSAGE_MAX_BYTES,
    INBOX_MAX_BYTES, PARALLEL_INVOCATIONS, UPLOAD_MAX_ITEMS, WAITING_INBOX_MAX_BYTES,
};

/// Default time limit of a hook, after which it is cancelled.
const HOOK_TIMEOUT: Duration = Duration::from_secs(60);

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
