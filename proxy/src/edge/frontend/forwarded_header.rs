//! Forwarding headers: claims of trusted load balancers about client, scheme, host and prefix of a request.
//!
//! ```text
//!  X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.0.0.2      peer 10.0.0.1, trusted: 10.0.0.0/8
//!                   ▲        ▲            ▲
//!                   │        │            └ trusted: continue to the left
//!                   │        └ not trusted: the client
//!                   └ written by the client: ignored
//! ```
//!
//! Pure. Only the headers of `--trust-headers` are used: others reach the node as written by clients. An unreadable
//! element ends the walk at the last valid address.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use trunkline_protocol::wire::{
    FORWARDED_FOR_HEADER, FORWARDED_HOST_HEADER, FORWARDED_PORT_HEADER, FORWARDED_PREFIX_HEADER, FORWARDED_PROTO_HEADER,
};

use crate::edge::frontend::request_head::is_host;
use crate::ground::config::{TrustedHeader, TrustedHeaders, TrustedNetworks};

/// Header with the client's address, as in Azure's service.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static(FORWARDED_FOR_HEADER);
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static(FORWARDED_PROTO_HEADER);
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static(FORWARDED_HOST_HEADER);
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static(FORWARDED_PREFIX_HEADER);
const FORWARDED: HeaderName = http::header::FORWARDED;

/// All forwarding headers, including alternative scheme headers that apps also trust. Normalisation removes them and
/// adds the trusted claims.
pub(crate) const FORWARDED_HEADERS: [HeaderName; 8] = [
    FORWARDED_FOR,
    FORWARDED_PROTO,
    FORWARDED_HOST,
    FORWARDED_PREFIX,
    HeaderName::from_static(FORWARDED_PORT_HEADER),
    HeaderName::from_static("x-forwarded-scheme"),
    HeaderName::from_static("x-forwarded-ssl"),
    FORWARDED,
];

/// Header in which apps look for the client's address; normalisation sets it.
pub(crate) const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Scheme used between client and first load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForwardedScheme {
    Http,
    Https,
}

impl ForwardedScheme {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Parses a scheme; accepts the WebSocket schemes, too.
    pub(crate) fn parse_scheme(text: &str) -> Option<Self> {
        let is = |schemes: [&str; 2]| schemes.iter().any(|scheme| text.eq_ignore_ascii_case(scheme));
        match () {
            () if is(["https", "wss"]) => Some(Self::Https),
            () if is(["http", "ws"]) => Some(Self::Http),
            () => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForwardedClaims {
    /// Address of the client, with port 0 if not claimed.
    pub(crate) client: SocketAddr,
    pub(crate) scheme: Option<ForwardedScheme>,
    pub(crate) host: Option<String>,
    /// Path prefix that the load balancer adds to our paths.
    pub(crate) prefix: Option<String>,
}

/// Reads the trusted claims about a request received from `peer`.
pub(crate) fn trusted_claims(
    headers: &HeaderMap,
    peer: SocketAddr,
    trusted: &TrustedNetworks,
    believed: &TrustedHeaders,
) -> ForwardedClaims {
    let mut claims = ForwardedClaims { client: peer, scheme: None, host: None, prefix: None };
    if !trusted.contains(peer.ip()) {
        return claims;
    }
    if believed.contains(TrustedHeader::Forwarded) {
        let elements: Vec<ForwardedElement> = texts(headers, &FORWARDED)
            .flat_map(|text| split(&text, ','))
            .map(|text| ForwardedElement::parse_element(&text))
            .collect();
        let (client, hops) = walk(peer, elements.iter().map(|element| element.node), trusted);
        let element = elements.into_iter().nth_back(hops.saturating_sub(1)).unwrap_or_default();
        (claims.client, claims.scheme, claims.host) = (client, element.scheme, element.host);
    }
    let list = |header, name| if believed.contains(header) { list(headers, &name) } else { Vec::new() };
    let mut hops = 0;
    if believed.contains(TrustedHeader::For) {
        let nodes = list(TrustedHeader::For, FORWARDED_FOR);
        (claims.client, hops) = walk(peer, nodes.iter().map(|text| node(text)), trusted);
    }
    let scheme = of_hop(list(TrustedHeader::Proto, FORWARDED_PROTO), hops);
    claims.scheme = claims.scheme.or_else(|| ForwardedScheme::parse_scheme(&scheme?));
    let host = of_hop(list(TrustedHeader::Host, FORWARDED_HOST), hops).filter(|host| is_host(host));
    claims.host = claims.host.or(host);
    claims.prefix = list(TrustedHeader::Prefix, FORWARDED_PREFIX).pop();
    claims
}

/// Walks from right to left through trusted addresses; returns the client's address and the number of elements.
fn walk(
    peer: SocketAddr,
    nodes: impl DoubleEndedIterator<Item = Option<SocketAddr>>,
    trusted: &TrustedNetworks,
) -> (SocketAddr, usize) {
    let (mut client, mut hops) = (peer, 0);
    for node in nodes.rev() {
        let Some(node) = node else { break };
        (client, hops) = (node, hops + 1);
        if !trusted.contains(client.ip()) {
            break;
        }
    }
    (client, hops)
}

/// Selects the value for the hop where the client was found. Some load balancers append to a list, others set a single
/// value.
fn of_hop(mut values: Vec<String>, hops: usize) -> Option<String> {
    let from_right = hops.clamp(1, values.len().max(1));
    let at = values.len().checked_sub(from_right)?;
    Some(values.swap_remove(at))
}

/// Collects the elements of all headers with this name. Quotes are ignored, so that a client can't hide elements with
/// one.
fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let elements = |text: Cow<'_, str>| text.split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>();
    texts(headers, name).flat_map(elements).filter(|one| !one.is_empty()).collect()
}

fn texts<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Cow<'a, str>> {
    headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()))
}

/// Splits outside of quotes and trims.
fn split(text: &str, at: char) -> Vec<String> {
    let (mut parts, mut is_quoted, mut is_escaped) = (vec![String::new()], false, false);
    for c in text.chars() {
        if c == at && !is_quoted {
            parts.push(String::new());
            continue;
        }
        is_quoted ^= c == '"' && !is_escaped;
        is_escaped = is_quoted && c == '\\' && !is_escaped;
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let parts = parts.into_iter().map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

#[derive(Debug, Default)]
struct ForwardedElement {
    node: Option<SocketAddr>,
    scheme: Option<ForwardedScheme>,
    host: Option<String>,
}

impl ForwardedElement {
    fn parse_element(text: &str) -> Self {
        let mut element = Self::default();
        for pair in split(text, ';') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            let value = value.trim().trim_matches('"').replace('\\', "");
            match name.trim().to_ascii_lowercase().as_str() {
                "for" => element.node = node(&value),
                "proto" => element.scheme = ForwardedScheme::parse_scheme(&value),
                "host" => element.host = Some(value).filter(|host| is_host(host)),
                _ => {}
            }
        }
        element
    }
}

/// Parses an address with an optional port; `None` for `unknown`, obfuscated names and garbage.
fn node(text: &str) -> Option<SocketAddr> {
    let text = text.trim().trim_matches('"');
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(SocketAddr::new(address.ip().to_canonical(), address.port()));
    }
    let ip = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').or_else(|| Some(rest.split_once("]:")?.0))?,
        // A port may be obfuscated, too: `192.0.2.43:_gazonk`.
        None => text.split_once(":_").map_or(text, |(ip, _)| ip),
    };
    Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?.to_canonical(), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BALANCER: &str = "10.0.0.1:4711";

    fn trusted() -> TrustedNetworks {
        ["10.0.0.0/8", "fd00::/8"].iter().map(|text| text.parse::<ipnet::IpNet>().unwrap()).collect()
    }

    fn claims(peer: &str, headers: &[(&'static str, &str)]) -> ForwardedClaims {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let all = [TrustedHeader::For, TrustedHeader::Proto, TrustedHeader::Host, TrustedHeader::Prefix];
        let standard = headers.iter().any(|(name, _)| *name == "forwarded").then_some(TrustedHeader::Forwarded);
        claims_by(standard.as_ref().map_or(&all, std::slice::from_ref), peer, &map)
    }

    fn claims_by(believed: &[TrustedHeader], peer: &str, headers: &HeaderMap) -> ForwardedClaims {
        trusted_claims(headers, peer.parse().unwrap(), &trusted(), &TrustedHeaders::new(believed).unwrap())
    }

    /// Headers as many load balancers forward them: only address and scheme are their own.
    fn passed_on() -> HeaderMap {
        let all = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-prefix", "/public"),
            ("forwarded", "for=6.6.6.6;proto=http;host=evil.example"),
        ];
        all.into_iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_the_headers_that_are_named_are_believed() {
        let default = trusted_claims(&passed_on(), BALANCER.parse().unwrap(), &trusted(), &TrustedHeaders::default());
        let client = "203.0.113.9:0".parse().unwrap();
        let expected = ForwardedClaims { client, scheme: Some(ForwardedScheme::Https), host: None, prefix: None };
        assert_eq!(default, expected);
        let nothing = ForwardedClaims { client: BALANCER.parse().unwrap(), scheme: None, host: None, prefix: None };
        assert_eq!(claims_by(&[], BALANCER, &passed_on()), nothing);
        let host = claims_by(&[TrustedHeader::Host], BALANCER, &passed_on()).host;
        assert_eq!(host.as_deref(), Some("evil.example"));
        let standard = claims_by(&[TrustedHeader::Forwarded, TrustedHeader::Prefix], BALANCER, &passed_on());
        assert_eq!((standard.client.to_string().as_str(), standard.prefix.as_deref()), ("6.6.6.6:0", Some("/public")));
        assert_eq!(standard.scheme, Some(ForwardedScheme::Http));
    }

    fn client(chain: &str) -> String {
        claims(BALANCER, &[("x-forwarded-for", chain)]).client.to_string()
    }

    fn client_by_rfc(chain: &str) -> String {
        claims(BALANCER, &[("forwarded", chain)]).client.to_string()
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_not_trusted() {
        assert_eq!(client("203.0.113.9"), "203.0.113.9:0");
        assert_eq!(client("6.6.6.6, 203.0.113.9, 10.0.0.2"), "203.0.113.9:0");
        assert_eq!(client("203.0.113.9:4321 ,fd00::2"), "203.0.113.9:4321");
        assert_eq!(client("[2001:db8::7]:99"), "[2001:db8::7]:99");
        assert_eq!(client("2001:db8::7"), "[2001:db8::7]:0");
        assert_eq!(client("[2001:db8::7]"), "[2001:db8::7]:0");
        assert_eq!(client("::ffff:203.0.113.9"), "203.0.113.9:0");
        // If all are trusted, the farthest one.
        assert_eq!(client("10.0.0.3, 10.0.0.2"), "10.0.0.3:0");
        let several = claims(BALANCER, &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.9")]);
        assert_eq!(several.client.to_string(), "203.0.113.9:0");
    }

    #[test]
    fn unreadable_elements_are_not_trusted() {
        for garbage in ["unknown", "_hidden", "", "203.0.113.9.1", "[::1", "1.2.3.4 5.6.7.8", "\"", "a:b:c", ",,,"] {
            assert_eq!(client(garbage), BALANCER, "{garbage}");
            assert_eq!(client_by_rfc(garbage), BALANCER, "{garbage}");
        }
        assert_eq!(client("203.0.113.9, unknown"), BALANCER);
        assert_eq!(client("203.0.113.9, unknown, 10.0.0.2"), "10.0.0.2:0");
        assert_eq!(client("203.0.113.9:_port"), "203.0.113.9:0");
        assert_eq!(client("\", 203.0.113.9"), "203.0.113.9:0", "a quote of the client's hides nothing");
    }

    #[test]
    fn headers_of_untrusted_peers_are_ignored() {
        let headers = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-prefix", "/x"),
            ("forwarded", "for=6.6.6.6;proto=https;host=evil.example"),
        ];
        let nothing =
            ForwardedClaims { client: "192.0.2.1:5".parse().unwrap(), scheme: None, host: None, prefix: None };
        assert_eq!(claims("192.0.2.1:5", &headers), nothing);
    }

    #[test]
    fn the_standard_header_is_read_alike() {
        assert_eq!(client_by_rfc("for=203.0.113.9"), "203.0.113.9:0");
        assert_eq!(client_by_rfc("For=\"[2001:db8::7]:4711\";proto=https, for=10.0.0.2"), "[2001:db8::7]:4711");
        assert_eq!(client_by_rfc("for=6.6.6.6, for=\"_a,b;c\", for=10.0.0.2"), "10.0.0.2:0");
        let all =
            claims(BALANCER, &[("forwarded", "for=6.6.6.6;host=x, for=203.0.113.9 ; host=\"a.example\";proto=HTTPS")]);
        assert_eq!((all.scheme, all.host.as_deref()), (Some(ForwardedScheme::Https), Some("a.example")));
        assert_eq!(all.client.to_string(), "203.0.113.9:0");
    }

    #[test]
    fn scheme_and_host_are_of_the_hop_where_the_client_was_found() {
        let said = claims(
            BALANCER,
            &[
                ("x-forwarded-for", "6.6.6.6, 203.0.113.9, 10.0.0.2"),
                ("x-forwarded-proto", "http, https, http"),
                ("x-forwarded-host", "a.example"),
                ("x-forwarded-prefix", "/realtime"),
            ],
        );
        assert_eq!((said.scheme, said.host.as_deref()), (Some(ForwardedScheme::Https), Some("a.example")));
        assert_eq!(said.prefix.as_deref(), Some("/realtime"));
        let odd = claims(BALANCER, &[("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a@b c")]);
        assert_eq!((odd.scheme, odd.host), (None, None));
    }
}
