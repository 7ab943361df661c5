//! Flags of the load balancers whose word about a client is taken, and of the headers by which they say it.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::config::{AmbiguousHeaders, NetworkError, TrustedHeader, TrustedHeaders, TrustedNetworks};

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TrustArgs {
    /// Addresses of the load balancers in front, such as `10.0.0.0/8` or `::1`, whose word about a client's address is
    /// taken. May be given several times.
    #[arg(long = "trust", env = "TRUNKLINE_TRUST", value_name = "CIDR", value_delimiter = ',')]
    pub trust: Vec<String>,

    /// Headers of these load balancers that are believed. Name only what yours write themselves, whatever the client
    /// has sent: many pass on a client's own X-Forwarded-Host, X-Forwarded-Prefix and Forwarded. May be given several
    /// times.
    #[arg(long = "trust-headers", env = "TRUNKLINE_TRUST_HEADERS", value_name = "HEADER", value_delimiter = ',',
          default_values = ["for", "proto"])]
    pub trust_headers: Vec<TrustedHeader>,
}

impl TryFrom<&TrustArgs> for TrustedNetworks {
    type Error = NetworkError;

    fn try_from(args: &TrustArgs) -> Result<Self, NetworkError> {
        Self::parse(args.trust.iter().map(|text| text.trim()).filter(|text| !text.is_empty()))
    }
}

impl TryFrom<&TrustArgs> for TrustedHeaders {
    type Error = AmbiguousHeaders;

    fn try_from(args: &TrustArgs) -> Result<Self, AmbiguousHeaders> {
        Self::new(&args.trust_headers)
    }
}

impl ValueEnum for TrustedHeader {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::For, Self::Proto, Self::Host, Self::Prefix, Self::Forwarded]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::For => ("for", "X-Forwarded-For: the client's address"),
            Self::Proto => ("proto", "X-Forwarded-Proto: the scheme that the client uses"),
            Self::Host => ("host", "X-Forwarded-Host: the host that the client asked for"),
            Self::Prefix => ("prefix", "X-Forwarded-Prefix: the path prefix that the load balancer removed"),
            Self::Forwarded => {
                ("forwarded", "Forwarded (RFC 7239): address, scheme and host, in place of those headers")
            }
        };
        Some(PossibleValue::new(name).help(help))
    }
}
