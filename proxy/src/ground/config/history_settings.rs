//! Settings of records of groups and users.

use std::borrow::Cow;

use super::option_group::settings;

settings! {
    /// Settings of the records of this node.
    #[derive(Debug, Clone)]
    pub struct HistorySettings {
        /// Stream method for clients that follow a group, in hubs with a history rule.
        pub method: Cow<'static, str> = Cow::Borrowed(DEFAULT_FOLLOW_METHOD),

        /// Maximum memory for recorded messages of groups and users. Beyond it the app with the most bytes loses its
        /// oldest ones, and their followers get a reset.
        #[flag("history-max-bytes", Bytes(1024 * 1024..=u64::MAX))]
        pub max_bytes: usize = 64 * 1024 * 1024,
    }
}

/// Default name of the stream method for followers.
pub const DEFAULT_FOLLOW_METHOD: &str = "Follow";

impl HistorySettings {
    /// Whether clients follow by this method. Names of methods are compared without regard to case.
    pub(crate) fn is_method(&self, target: &str) -> bool {
        self.method.eq_ignore_ascii_case(target)
    }
}
