//! Conditions of routes. Each tests one fact of a connection or request; an unknown fact never matches.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use bytestring::ByteString;
use http::header::COOKIE;
use ipnet::IpNet;
use trunkline_protocol::pattern::{Pattern, PatternError};

use super::path_reading::{Doubt, PathReadings, fold};

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RouteFacts<'a> {
    /// Path of the hub with a leading slash; `None` for a passed-through request.
    pub hub: Option<&'a str>,
    /// Path of the request; for a connection, path of its hub.
    pub path: &'a str,
    /// Query of the request, with or without the question mark.
    pub query: Option<&'a str>,
    pub headers: &'a [(ByteString, Vec<ByteString>)],
    pub claims: &'a [(ByteString, ByteString)],
    pub user: Option<&'a str>,
    pub address: Option<IpAddr>,
    /// `None` before a connection exists.
    pub connection_id: Option<&'a str>,
}

/// Pattern of paths. Case and a trailing slash are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathPattern(Pattern);

impl PathPattern {
    /// A leading slash of the pattern is optional.
    pub(crate) fn new(text: &str) -> Result<Self, PatternError> {
        let text = Pattern::new(text)?.text.clone();
        let slash = if text.starts_with('/') { "" } else { "/" };
        Pattern::new(&format!("{slash}{}", fold(without_last_slash(&text)))).map(Self)
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        self.0.matches(&fold(without_last_slash(path)))
    }

    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.0.covers(&other.0)
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn without_last_slash(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some("") | None => path,
        Some(rest) => rest,
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ValueTest {
    Equals(Box<str>),
    Prefix(Box<str>),
    /// The name exists, with any value.
    Present,
    Absent,
}

impl ValueTest {
    fn holds<T: AsRef<str>>(&self, mut values: impl Iterator<Item = T>) -> bool {
        match self {
            Self::Equals(text) => values.any(|value| value.as_ref() == &**text),
            Self::Prefix(text) => values.any(|value| value.as_ref().starts_with(&**text)),
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
        }
    }

    /// Whether all values that pass the other test pass this one.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, Self::Equals(_) | Self::Prefix(_)) => true,
            (Self::Prefix(prefix), Self::Equals(text) | Self::Prefix(text)) => text.starts_with(&**prefix),
            (one, other) => one == other,
        }
    }
}

/// Source of named values in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueSource {
    Query,
    Header,
    Cookie,
    Claim,
}

impl ValueSource {
    /// All sources with their keys in the file.
    pub(crate) const ALL: [(Self, &'static str); 4] =
        [(Self::Query, "query"), (Self::Header, "header"), (Self::Cookie, "cookie"), (Self::Claim, "claim")];

    #[must_use]
    pub(crate) fn key(self) -> &'static str {
        Self::ALL.iter().find(|(source, _)| *source == self).map_or("", |(_, key)| key)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    /// The path of the hub matches a pattern.
    Hub(Box<[PathPattern]>),
    /// The path of the request matches, in any way app servers may read it.
    Path(Box<[PathPattern]>),
    /// The values of this name pass the test.
    Value { source: ValueSource, name: Box<str>, test: ValueTest },
    /// The user matches a pattern.
    User(Box<[Pattern]>),
    /// The client address is in a listed network.
    Address(Box<[IpNet]>),
    /// The user, or the connection if it has no user, is in this share.
    Percent { percent: f64, salt: Arc<str> },
}

impl Condition {
    /// Whether the facts meet the condition. `doubt` decides for ambiguous paths.
    #[must_use]
    pub(super) fn holds(&self, facts: &RouteFacts<'_>, doubt: Doubt) -> bool {
        match self {
            Self::Hub(patterns) => facts.hub.is_some_and(|hub| patterns.iter().any(|pattern| pattern.matches(hub))),
            Self::Path(patterns) => {
                let matches = |path: &str| patterns.iter().any(|pattern| pattern.matches(path));
                PathReadings::of(facts.path).match_by(doubt, matches)
            }
            Self::Value { source, name, test } => value_holds(facts, *source, name, test),
            Self::User(patterns) => facts.user.is_some_and(|user| patterns.iter().any(|pattern| pattern.matches(user))),
            Self::Address(networks) => {
                // Dual-stack listeners report IPv4 addresses as `::ffff:a.b.c.d`.
                let address = facts.address.map(|address| address.to_canonical());
                address.is_some_and(|address| networks.iter().any(|network| network.contains(&address)))
            }
            Self::Percent { percent, salt } => {
                let key = facts.user.or(facts.connection_id);
                key.is_some_and(|key| Share::of(salt, key).is_in_first(percent / 100.0))
            }
        }
    }

    /// Whether all facts that meet the other condition also meet this one, as far as can be determined.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Hub(wide), Self::Hub(narrow)) | (Self::Path(wide), Self::Path(narrow)) => {
                narrow.iter().all(|narrow| wide.iter().any(|wide| wide.covers(narrow)))
            }
            (
                Self::Value { source, name, test },
                Self::Value { source: other_source, name: other_name, test: other_test },
            ) => (source, name) == (other_source, other_name) && test.covers(other_test),
            (Self::User(wide), Self::User(narrow)) => {
                narrow.iter().all(|narrow| wide.iter().any(|wide| wide.covers(narrow)))
            }
            (Self::Address(wide), Self::Address(narrow)) => {
                narrow.iter().all(|narrow| wide.iter().any(|wide| wide.contains(narrow)))
            }
            (Self::Percent { percent, salt }, Self::Percent { percent: other_percent, salt: other_salt }) => {
                salt == other_salt && percent >= other_percent
            }
            _ => false,
        }
    }
}

fn value_holds(facts: &RouteFacts<'_>, source: ValueSource, name: &str, test: &ValueTest) -> bool {
    match source {
        ValueSource::Query => {
            let query = facts.query.unwrap_or_default().trim_start_matches('?');
            test.holds(form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name).map(|(_, value)| value))
        }
        ValueSource::Header => test.holds(header_values(facts, name)),
        ValueSource::Cookie => test.holds(cookies(facts).filter(|(key, _)| *key == name).map(|(_, value)| value)),
        // The claims of a passed-through request are not verified.
        ValueSource::Claim => {
            let claims = facts.claims.iter().filter(|(key, _)| *key == name);
            facts.hub.is_some() && test.holds(claims.map(|(_, value)| value))
        }
    }
}

fn header_values<'a>(facts: &RouteFacts<'a>, name: &str) -> impl Iterator<Item = &'a ByteString> {
    facts.headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).flat_map(|(_, values)| values)
}

fn cookies<'a>(facts: &RouteFacts<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let pairs = header_values(facts, COOKIE.as_str()).flat_map(|cookies| cookies.split(';'));
    pairs.filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.trim(), value.trim()))
}

/// Number of possible 32-bit hash values.
const PLACES: f64 = 4_294_967_296.0;

/// Position of a user or connection between 0 and 1: evenly distributed, and stable across nodes,
/// restarts and versions.
///
/// From the first four bytes, big-endian, of SHA-256 over salt, line feed and key: nodes agree. The algorithm must
/// never change, or an update would give canaries other users. Different salts make canaries independent of each other.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Share(f64);

impl Share {
    pub(crate) fn of(salt: &str, key: &str) -> Self {
        let mut hash = Context::new(&SHA256);
        [salt, "\n", key].iter().for_each(|part| hash.update(part.as_bytes()));
        let place = hash.finish().as_ref().first_chunk().map_or(0, |head| u32::from_be_bytes(*head));
        Self(f64::from(place) / PLACES)
    }

    #[must_use]
    pub(crate) fn of_whole(self, whole: f64) -> f64 {
        self.0 * whole
    }

    /// Whether the position is in the first `part`, from 0 for none to 1 for all. Larger parts include smaller ones.
    #[must_use]
    pub(crate) fn is_in_first(self, part: f64) -> bool {
        self.0 < part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> impl Iterator<Item = String> {
        (0..10_000).map(|number| format!("user-{number}"))
    }

    fn number_in(salt: &str, part: f64) -> usize {
        users().filter(|user| Share::of(salt, user).is_in_first(part)).count()
    }

    #[test]
    fn places_never_change() {
        let places = ["ann", "bob", ""].map(|user| Share::of("canary", user).of_whole(PLACES));
        assert_eq!(places, [4_005_258_195.0, 323_629_968.0, 946_009_398.0]);
    }

    #[test]
    fn of_10_000_users_a_part_is_in_within_one_percent() {
        for salt in ["canary", "beta", "reject"] {
            for (part, expected) in [(0.0, 0), (0.1, 1000), (0.25, 2500), (0.5, 5000), (0.999, 9990), (1.0, 10_000)] {
                let found = number_in(salt, part);
                assert!(found.abs_diff(expected) <= 100, "{salt} {part}: {found}");
            }
        }
        assert_eq!((number_in("canary", 0.0), number_in("canary", 1.0)), (0, 10_000));
    }

    #[test]
    fn a_key_in_a_part_is_also_in_every_larger_part() {
        for user in users() {
            let share = Share::of("canary", &user);
            assert!(!share.is_in_first(0.1) || share.is_in_first(0.2), "{user}");
        }
    }

    #[test]
    fn two_salts_are_independent() {
        let both = |user: &String| ["one", "two"].iter().all(|salt| Share::of(salt, user).is_in_first(0.5));
        assert!(users().filter(both).count().abs_diff(2500) <= 100);
    }
}
