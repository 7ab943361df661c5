//! Limits of groups: their names, and how many a client connection is in.

/// Groups of one client connection: more than apps use, and few megabytes with the longest names.
const GROUPS_PER_CLIENT_MAX: usize = 4096;

/// Limits of groups. An app may let its clients choose them, and a name is kept as long as it has a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    /// Largest name of a group, in bytes.
    pub name_max_bytes: usize,
    /// Groups that one client connection may be in.
    pub per_client: usize,
}

impl GroupLimits {
    /// Limit of names that the SDK has, too.
    pub const DEFAULT: Self =
        Self { name_max_bytes: trunkline_protocol::limits::GROUP_NAME_MAX_BYTES, per_client: GROUPS_PER_CLIENT_MAX };
}
