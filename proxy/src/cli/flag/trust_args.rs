//! Flag of the load balancers whose word about a client's address is taken.

use clap::Args;

use crate::config::{NetworkError, TrustedNetworks};

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TrustArgs {
    /// Addresses of the load balancers in front, such as `10.0.0.0/8` or `::1`, whose word about a client's address is
    /// taken. May be given several times.
    #[arg(long = "trust", env = "TRUNKLINE_TRUST", value_name = "CIDR", value_delimiter = ',')]
    pub trust: Vec<String>,
}

impl TryFrom<&TrustArgs> for TrustedNetworks {
    type Error = NetworkError;

    fn try_from(args: &TrustArgs) -> Result<Self, NetworkError> {
        Self::parse(args.trust.iter().map(|text| text.trim()).filter(|text| !text.is_empty()))
    }
}
