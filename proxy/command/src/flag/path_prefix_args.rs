//! Flag of the path prefix that load balancers add.

use clap::Args;
use trunkline_proxy::parts::{PathPrefix, PathPrefixError};

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PathPrefixArgs {
    #[arg(
        help = "What a load balancer puts in front of every path, such as `/realtime`: it is taken off before paths are \
              matched. Paths without it are served too",
        long,
        env = "TRUNKLINE_PATH_PREFIX",
        value_name = "PATH"
    )]
    pub path_prefix: Option<String>,
}

impl TryFrom<&PathPrefixArgs> for PathPrefix {
    type Error = PathPrefixError;

    fn try_from(args: &PathPrefixArgs) -> Result<Self, PathPrefixError> {
        let given = args.path_prefix.as_deref().filter(|text| !text.is_empty());
        given.map_or(Ok(Self::default()), Self::new)
    }
}
