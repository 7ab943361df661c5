//! Fuzzing entry points of parsers for untrusted bytes. Not part of the public API.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, Uri};
use ipnet::IpNet;
use trunkline_protocol::key::AccessKeys;

use crate::edge::frontend::{self, ForwardedScheme, HeaderStart, RequestQuery};
use crate::features::admission::{Revocations, SigningKeys, Verifier};
use crate::ground::auth::{TokenPolicy, jwks};
use crate::ground::config::{Origin, OriginPattern, TrustedHeader, TrustedHeaders};
use crate::ground::net::connector::Connector;
use crate::ground::routing::{RuleFile, Ruleset};

/// Start of a connection behind a load balancer with the PROXY protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyHeader {
    /// Complete header: its length, and the client address unless the load balancer connects on its own behalf.
    Whole(usize, Option<SocketAddr>),
    /// Incomplete start of a header.
    Part,
    /// Not a PROXY header.
    Other,
}

/// Result of reading load balancer headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// Address of the client.
    pub client: SocketAddr,
    /// Scheme of the client's request.
    pub scheme: Option<&'static str>,
    /// Host of the client's request.
    pub host: Option<String>,
    /// Path prefix removed by a load balancer.
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

/// Parses load balancer headers. Trusts the peers in `trusted` and the headers in `names`, as in `--trust-headers`.
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

/// Returns the query as passed to an app server.
#[must_use]
pub fn raw_query(uri: &Uri) -> Option<String> {
    RequestQuery::parse(uri).for_hub(uri).map(Into::into)
}

/// Returns whether a pattern of `--allow-origin` matches an origin; `None` if either is invalid.
#[must_use]
pub fn origin_is_named(pattern: &str, origin: &str) -> Option<bool> {
    Some(pattern.parse::<OriginPattern>().ok()?.names(&Origin::parse(origin).ok()?))
}

/// Verifies an access token with the keys of a fleet and returns its user.
#[must_use]
pub fn access_token(token: &str, keys: &AccessKeys) -> Option<Option<String>> {
    let (keys, revocations) = (SigningKeys::new(keys, &[]), Arc::new(Revocations::new(0)));
    let verifier = Verifier::new(TokenPolicy::default(), keys, revocations, Connector::default());
    verifier.verify_now(token, "chat").ok().map(|user| user.id)
}

/// Parses a key set and returns the number of usable keys.
#[must_use]
pub fn key_set(text: &[u8]) -> Option<usize> {
    jwks::parse(text).ok().map(|published| published.keys.len())
}

/// Parses the rules of a configuration file. Returns the numbers of groups, routes, message rules, mirrors and method
/// rules.
///
/// # Errors
/// Returns an error for invalid TOML or an invalid rule.
pub fn rules(text: &str) -> Result<[usize; 5], String> {
    let rules = RuleFile::parse(text).map_err(|error| error.to_string())?.rules;
    let Ruleset { groups, routes, messages, mirrors, methods, .. } = &rules;
    Ok([groups.len(), routes.len(), messages.len(), mirrors.len(), methods.len()])
}
