//! Flags of the limits of groups.

use clap::Args;
use trunkline_proxy::parts::GroupLimits;

use super::value_parser::{bytes, bytes_text};

#[derive(Debug, Clone, Args)]
pub(crate) struct GroupArgs {
    /// Largest name of a group; a join beyond it fails, and says so to the app. The SDK has the same limit,
    /// `Hub::group_name_max_bytes`. 0 for no limit.
    #[arg(long, env = "TRUNKLINE_GROUP_NAME_MAX_BYTES", value_name = "BYTES", default_value = bytes_text(GroupLimits::DEFAULT.name_max_bytes),
          value_parser = bytes::<usize>(0..=u64::MAX))]
    pub group_name_max_bytes: usize,

    /// Groups that one client connection may be in; a join beyond it fails, and says so to the app. 0 for no limit.
    /// Clients may often choose their groups, and each name is kept on the node.
    #[arg(long, env = "TRUNKLINE_GROUPS_PER_CLIENT_MAX", value_name = "N", default_value_t = GroupLimits::DEFAULT.per_client)]
    pub groups_per_client_max: usize,
}

impl From<&GroupArgs> for GroupLimits {
    fn from(args: &GroupArgs) -> Self {
        let limit = |most| if most == 0 { usize::MAX } else { most };
        Self { name_max_bytes: limit(args.group_name_max_bytes), per_client: limit(args.groups_per_client_max) }
    }
}
