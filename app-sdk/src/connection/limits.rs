//! Limits of one hub's connections.

use std::time::Duration;

use trunkline_protocol::limits::{
    CLIENT_RESULT_TIMEOUT_MS, CLIENT_RESULTS_MAX, CLIENT_TIMEOUT_MS, GROUP_NAME_MAX_BYTES, HUB_MESSAGE_MAX_BYTES,
    INBOX_MAX_BYTES, PARALLEL_INVOCATIONS, UPLOAD_MAX_ITEMS, WAITING_INBOX_MAX_BYTES,
};

/// Time that a hook may take before it is ended, unless the hub says otherwise.
const HOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// Limits of a connection's memory and time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Largest message of a client, framing included.
    pub(crate) message_max_bytes: usize,
    /// Bytes that may wait before the client is paused.
    pub(crate) inbox_max_bytes: usize,
    /// Bytes that may wait while a method waits for the client itself.
    pub(crate) waiting_inbox_max_bytes: usize,
    /// Items of one upload that may wait before the client is paused.
    pub(crate) upload_max_items: usize,
    /// Calls that run at once, those with streams apart.
    pub(crate) parallel_invocations: usize,
    /// Timeout of a client result.
    pub(crate) client_result_timeout: Duration,
    /// Client results that the whole hub may await at once.
    pub(crate) client_results_max: usize,
    /// Largest name of a group that a connection may join, in bytes.
    pub(crate) group_name_max_bytes: usize,
    /// Silence after which a client is taken for gone.
    pub(crate) client_timeout: Duration,
    /// Time that a hook may take before it is ended.
    pub(crate) hook_timeout: Duration,
    /// Time in which a lost client gets its groups and items back; `None` where none does.
    pub(crate) restored_within: Option<Duration>,
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
            restored_within: None,
        }
    }
}
