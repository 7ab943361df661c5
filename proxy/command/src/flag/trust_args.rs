//! Flags of trusted load balancers and of the headers accepted from them.

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use trunkline_proxy::parts::{AmbiguousHeaders, NetworkError, TrustedHeader, TrustedHeaders, TrustedNetworks};

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TrustArgs {
    /// Addresses of trusted load balancers, such as `10.0.0.0/8` or `::1`, which may state a client's address. May be
    /// given several times.
    #[arg(long = "trust", env = "TRUNKLINE_TRUST", value_name = "CIDR", value_delimiter = ',')]
    pub trust: Vec<String>,

    /// Trusted headers of these load balancers. Name only headers that your load balancers always overwrite: many pass
    /// on a client's own X-Forwarded-Host, X-Forwarded-Prefix and Forwarded. May be given several times.
    #[arg(long = "trust-headers", env = "TRUNKLINE_TRUST_HEADERS", value_name = "HEADER", value_delimiter = ',',
          default_values = ["for", "proto"], value_parser = header_parser())]
    pub trust_headers: Vec<TrustedHeader>,
}

impl TryFrom<&TrustArgs> for TrustedNetworks {
    type Error = NetworkError;

    fn try_from(args: &TrustArgs) -> Result<Self, NetworkError> {
        Self::parse(args.trust.iter().map(String::as_str))
    }
}

impl TryFrom<&TrustArgs> for TrustedHeaders {
    type Error = AmbiguousHeaders;

    fn try_from(args: &TrustArgs) -> Result<Self, AmbiguousHeaders> {
        Self::new(&args.trust_headers)
    }
}

/// Parser of header names, with a help text for each.
fn header_parser() -> impl TypedValueParser<Value = TrustedHeader> {
    let names = TrustedHeader::ALL.map(|header| {
        let help = match header {
            TrustedHeader::For => "X-Forwarded-For: the client's address",
            TrustedHeader::Proto => "X-Forwarded-Proto: the client's scheme",
            TrustedHeader::Host => "X-Forwarded-Host: the requested host",
            TrustedHeader::Prefix => "X-Forwarded-Prefix: the path prefix that the load balancer removed",
            TrustedHeader::Forwarded => "Forwarded (RFC 7239): address, scheme and host, instead of the other headers",
        };
        PossibleValue::new(header.name()).help(help)
    });
    PossibleValuesParser::new(names).try_map(|name| TrustedHeader::named(&name).ok_or("unknown header"))
}
