//! Entry points of the parsers of a stranger's bytes, for the fuzz targets. No part of the public API.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, Uri};
use ipnet::IpNet;
use trunkline_protocol::key::AccessKeys;

use crate::auth::{Revocations, SigningKeys, TokenPolicy, Verifier, jwks};
use crate::config::{Origin, OriginPattern, TrustedHeader, TrustedHeaders};
use crate::frontend::{self, ForwardedScheme, HeaderStart, RequestQuery};
use crate::net::connector::Connector;
use crate::routing::Ruleset;

/// Beginning of a connection behind a load balancer that speaks the PROXY protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyHeader {
    /// A whole header: its length, and the client unless the load balancer speaks for itself.
    Whole(usize, Option<SocketAddr>),
    /// The beginning of a header.
    Part,
    /// Anything but a header.
    Other,
}

/// Result of reading the headers of load balancers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// Address of the client.
    pub client: SocketAddr,
    /// Scheme of the client's request.
    pub scheme: Option<&'static str>,
    /// Host of the client's request.
    pub host: Option<String>,
    /// Path prefix that a load balancer removed.
    pub prefix: Option<String>,
}

/// Reads the beginning of a connection.
#[must_use]
pub fn proxy_header(bytes: &[u8]) -> ProxyHeader {
    match frontend::header_start(bytes) {
        HeaderStart::Header { length, client } => ProxyHeader::Whole(length, client),
        HeaderStart::Part => ProxyHeader::Part,
        HeaderStart::Other => ProxyHeader::Other,
    }
}

/// Reads the headers of load balancers; of the networks of `trusted` those are believed that `names` has, as
/// `--trust-headers` takes them.
#[must_use]
pub fn forwarded(headers: &HeaderMap, peer: SocketAddr, trusted: &[IpNet], names: &[&str]) -> Forwarded {
    let named: Vec<_> = names.iter().filter_map(|name| TrustedHeader::named(name)).collect();
    let believed = TrustedHeaders::new(&named).unwrap_or_default();
    let believed = frontend::trusted_claims(headers, peer, &trusted.iter().copied().collect(), &believed);
    let scheme = believed.scheme.map(ForwardedScheme::name);
    Forwarded { client: believed.client, scheme, host: believed.host, prefix: believed.prefix }
}

/// Finds the first value of a query parameter.
#[must_use]
pub fn query_value(uri: &Uri, name: &str) -> Option<String> {
    RequestQuery::parse(uri).value(name).map(str::to_owned)
}

/// Returns the query that an app server sees.
#[must_use]
pub fn raw_query(uri: &Uri) -> Option<String> {
    RequestQuery::parse(uri).for_hub(uri).map(Into::into)
}

/// Whether a pattern of `--allow-origin` names an origin; `None` when either can't be read.
#[must_use]
pub fn origin_is_named(pattern: &str, origin: &str) -> Option<bool> {
    Some(pattern.parse::<OriginPattern>().ok()?.names(&Origin::parse(origin).ok()?))
}

/// Verifies an access token with the keys of a fleet, and returns its user.
#[must_use]
pub fn access_token(token: &str, keys: &AccessKeys) -> Option<Option<String>> {
    let (keys, revocations) = (SigningKeys::new(keys, &[]), Arc::new(Revocations::new(0)));
    let verifier = Verifier::new(TokenPolicy::default(), keys, revocations, Connector::default());
    verifier.verify_now(token, "chat").ok().map(|user| user.id)
}

/// Reads a key set, and returns the number of its keys that can be used.
#[must_use]
pub fn key_set(text: &[u8]) -> Option<usize> {
    jwks::parse(text).ok().map(|published| published.keys.len())
}

/// Reads the rules of a configuration file, and returns the numbers of groups, routes, message rules, mirrors and
/// method rules.
///
/// # Errors
/// When it is no TOML, or a rule makes no sense.
pub fn rules(text: &str) -> Result<[usize; 5], String> {
    let rules = Ruleset::parse(text).map_err(|error| error.to_string())?;
    let Ruleset { groups, routes, messages, mirrors, methods, .. } = &rules;
    Ok([groups.len(), routes.len(), messages.len(), mirrors.len(), methods.len()])
}
