//! Requests before the app sees them: PROXY header, load balancer headers, query, origin.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use trunkline_protocol::wire::{ACCESS_TOKEN_PARAMETER, CONNECTION_TOKEN_PARAMETER};
use trunkline_proxy::fuzzing::{self, Forwarded, ProxyHeader};

use crate::random::Random;

/// Networks of load balancers.
const TRUSTED: [&str; 3] = ["10.0.0.0/8", "127.0.0.0/8", "fd00::/8"];

/// Trusted headers: separate ones, or the standard one.
const BELIEVED: [&[&str]; 2] = [&["for", "proto", "host", "prefix"], &["forwarded", "prefix"]];

const BALANCER: &str = "10.0.0.1:4711";
const STRANGER: &str = "203.0.113.9:4711";

/// Reads the PROXY header at the front of a connection.
pub fn proxy_header(data: &[u8]) {
    let ProxyHeader::Whole(length, client) = fuzzing::proxy_header(data) else { return };
    assert!((1..=data.len()).contains(&length), "a header of {length} bytes in {}", data.len());
    let part = data.get(..Random::from_bytes(data).below(length)).unwrap_or_default();
    assert_eq!(fuzzing::proxy_header(part), ProxyHeader::Part, "a part of a header is taken for something else");
    let alone = data.get(..length).unwrap_or_default();
    assert_eq!(fuzzing::proxy_header(alone), ProxyHeader::Whole(length, client), "bytes behind a header change it");
}

/// Reads load balancer headers, one per line.
pub fn forwarded_headers(data: &[u8]) {
    let headers = headers(data);
    for believed in BELIEVED {
        forwarded_headers_of(&headers, believed);
    }
}

fn forwarded_headers_of(headers: &HeaderMap, believed: &[&str]) {
    let believe = |headers: &HeaderMap, peer| fuzzing::forwarded(headers, address(peer), &trusted(), believed);
    let stranger = believe(headers, STRANGER);
    let unheard = Forwarded { client: address(STRANGER), scheme: None, host: None, prefix: None };
    assert_eq!(stranger, unheard, "a stranger is believed");

    let balancer = believe(headers, BALANCER);
    if let Some(host) = &balancer.host {
        assert!(!host.is_empty() && !host.contains('@'), "{host:?} is believed to be a host");
    }
    // The client is the nearest hop that is not trusted, whatever stands left of it.
    if !trusted().iter().any(|network| network.contains(&balancer.client.ip())) {
        for name in ["x-forwarded-for", "forwarded"] {
            let more = with_forged_hop(headers, name);
            assert_eq!(believe(&more, BALANCER).client, balancer.client, "a forged hop of {name} is believed");
        }
    }
}

/// Reads the query of a client's request.
pub fn query_string(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(uri) = format!("/chat?{text}").parse::<Uri>() else { return };
    let Some(raw) = fuzzing::raw_query(&uri) else { return };
    assert!(raw.starts_with('?'), "{raw:?} is no query");
    let seen: Uri = format!("/chat{raw}").parse().expect("what the app server sees is a query");
    assert_eq!(fuzzing::raw_query(&seen).as_deref(), Some(&*raw), "a query is cut twice");
    for secret in [CONNECTION_TOKEN_PARAMETER, ACCESS_TOKEN_PARAMETER] {
        assert_eq!(fuzzing::query_value(&seen, secret), None, "the app server sees the secret {secret}");
    }
}

/// Matches origins against patterns: the first line is the pattern, all others are origins.
pub fn origin(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines();
    let pattern = lines.next().unwrap_or_default();
    for origin in lines {
        let Some(is_named) = fuzzing::origin_is_named(pattern, origin) else { continue };
        let scheme = origin.split_once("://").map_or("", |(scheme, _)| scheme);
        if ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web)) {
            let upper = fuzzing::origin_is_named(pattern, &origin.to_ascii_uppercase());
            assert_eq!(upper, Some(is_named), "the case of an origin of the web counts");
        } else {
            assert!(!is_named || pattern.trim().starts_with(origin), "an origin of another scheme is compared as text");
        }
        assert!(!is_named || pattern.trim() != "*", "any page may connect with its cookies");
        assert_ne!(fuzzing::origin_is_named(origin, origin), Some(false), "{origin:?} does not name itself");
        if let Some((_, host)) = origin.split_once("://") {
            let longer = format!("https://{host}.example");
            assert_ne!(fuzzing::origin_is_named(&longer, origin), Some(true), "{longer:?} names {origin:?}");
        }
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("the address is one")
}

fn trusted() -> [ipnet::IpNet; TRUSTED.len()] {
    TRUSTED.map(|network| network.parse().expect("the network is one"))
}

/// Headers from lines such as `x-forwarded-for: 203.0.113.9`; ignores other lines.
fn headers(data: &[u8]) -> HeaderMap {
    let lines = data.split(|&byte| byte == b'\n').filter_map(|line| {
        let at = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = line.split_at(at);
        let value = value.get(1..)?.trim_ascii();
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
    });
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name, value);
    }
    headers
}

/// Headers with a forged element in front, if there are any of this name.
fn with_forged_hop(headers: &HeaderMap, name: &'static str) -> HeaderMap {
    let forged = if name == "forwarded" { "for=198.51.100.66" } else { "198.51.100.66" };
    let mut more = headers.clone();
    let values: Vec<_> = headers.get_all(name).iter().cloned().collect();
    if !values.is_empty() {
        more.insert(name, HeaderValue::from_static(forged));
        for value in values {
            more.append(name, value);
        }
    }
    more
}
