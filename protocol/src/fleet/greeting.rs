//! Greeting exchanged by two nodes before one opens a node link to the other.

use serde::{Deserialize, Serialize};

use crate::limits::{GREETING_ADDRESS_MAX_BYTES, GREETING_MAX_BYTES, GREETING_MEMBERS_MAX, GREETING_TEXT_MAX_BYTES};

/// Greeting of a node: its identity, addresses and the members it sees.
///
/// Later versions may add fields and omit optional ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Greeting {
    /// Display name in logs, metrics and the observer page.
    pub name: String,
    /// Random id of this process. A restarted node has a new one; a node with two addresses has one.
    pub boot: String,
    /// Program version of the node.
    pub version: String,
    /// Supported versions of the node messages; empty if not given.
    pub wire: WireVersions,
    /// Advertised URL of the admin port.
    pub address: Option<String>,
    /// Advertised URL of the client port.
    pub advertised: Option<String>,
    /// Admin port URLs of the visible members.
    pub known: Vec<String>,
}

/// Range of versions of the node messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WireVersions {
    /// Oldest version still supported.
    pub oldest: u32,
    /// Newest version still supported.
    pub newest: u32,
}

/// Error decoding a greeting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GreetingError {
    /// Longer than the limit.
    #[error("a greeting of {0} bytes is over the limit of {GREETING_MAX_BYTES}")]
    Size(usize),
    /// Not JSON, or a field has the wrong type.
    #[error("not a greeting: {0}")]
    Json(String),
    /// The boot id is missing.
    #[error("a greeting has no boot id")]
    Boot,
    /// A text is too long, or a list has too many items.
    #[error("a greeting's {field} has {found} {unit}, over {limit}")]
    Bound {
        /// Name of the rejected field.
        field: &'static str,
        /// Size of the field.
        found: usize,
        /// Unit of both sizes.
        unit: &'static str,
        /// Largest size that is allowed.
        limit: usize,
    },
}

impl WireVersions {
    /// Versions supported by this build.
    pub const CURRENT: Self = Self { oldest: 1, newest: 1 };

    /// Returns the newest version that both support.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl Greeting {
    /// Encodes the greeting, with at most as many members as a peer accepts.
    #[must_use]
    #[expect(clippy::expect_used, reason = "texts, numbers and lists of texts always have a JSON form")]
    pub fn to_json(&self) -> Vec<u8> {
        let mut greeting = self.clone();
        greeting.known.truncate(GREETING_MEMBERS_MAX);
        serde_json::to_vec(&greeting).expect("a greeting can be written")
    }

    /// Decodes a greeting of any version. Fails if it is too long, not JSON, has no boot id, or a field exceeds its
    /// limit.
    pub fn from_json(json: &[u8]) -> Result<Self, GreetingError> {
        if json.len() > GREETING_MAX_BYTES {
            return Err(GreetingError::Size(json.len()));
        }
        let greeting: Self = serde_json::from_slice(json).map_err(|error| GreetingError::Json(error.to_string()))?;
        greeting.check_bounds()?;
        if greeting.boot.is_empty() { Err(GreetingError::Boot) } else { Ok(greeting) }
    }

    fn check_bounds(&self) -> Result<(), GreetingError> {
        check("name", "bytes", self.name.len(), GREETING_TEXT_MAX_BYTES)?;
        check("boot", "bytes", self.boot.len(), GREETING_TEXT_MAX_BYTES)?;
        check("version", "bytes", self.version.len(), GREETING_TEXT_MAX_BYTES)?;
        check("known", "items", self.known.len(), GREETING_MEMBERS_MAX)?;
        let one = |address: &Option<String>| address.as_ref().map_or(0, String::len);
        check("address", "bytes", one(&self.address), GREETING_ADDRESS_MAX_BYTES)?;
        check("advertised", "bytes", one(&self.advertised), GREETING_ADDRESS_MAX_BYTES)?;
        self.known.iter().try_for_each(|address| check("known", "bytes", address.len(), GREETING_ADDRESS_MAX_BYTES))
    }
}

fn check(field: &'static str, unit: &'static str, found: usize, limit: usize) -> Result<(), GreetingError> {
    if found > limit { Err(GreetingError::Bound { field, found, unit, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Greeting {
        Greeting {
            name: "p1".into(),
            boot: "b1".into(),
            version: "0.1.0".into(),
            wire: WireVersions::CURRENT,
            address: Some("http://p1:8090".into()),
            advertised: None,
            known: vec!["http://p2:8090".into()],
        }
    }

    #[test]
    fn a_greeting_is_json_in_camel_case() {
        let json = String::from_utf8(greeting().to_json()).unwrap();
        let expected = concat!(
            r#"{"name":"p1","boot":"b1","version":"0.1.0","wire":{"oldest":1,"newest":1},"#,
            r#""address":"http://p1:8090","advertised":null,"known":["http://p2:8090"]}"#
        );
        assert_eq!(json, expected);
        assert_eq!(Greeting::from_json(json.as_bytes()), Ok(greeting()));
    }

    #[test]
    fn greetings_of_other_versions_are_read() {
        let json = br#"{"boot":"b9","colour":"green","wire":{"oldest":3,"newest":4,"dialect":1}}"#;
        let read = Greeting::from_json(json).unwrap();
        assert_eq!(read.wire, WireVersions { oldest: 3, newest: 4 });
        assert_eq!(read, Greeting { boot: "b9".into(), wire: read.wire, ..Greeting::default() });
        assert_eq!(read.wire.common(WireVersions::CURRENT), None);
    }

    #[test]
    fn the_newest_version_that_both_speak_is_common() {
        let versions = |oldest, newest| WireVersions { oldest, newest };
        assert_eq!(versions(1, 3).common(versions(2, 5)), Some(3));
        assert_eq!(versions(2, 5).common(versions(1, 3)), Some(3));
        assert_eq!(versions(1, 1).common(versions(2, 2)), None);
        assert_eq!(versions(3, 1).common(versions(1, 3)), None);
        assert_eq!(WireVersions::default().common(WireVersions::CURRENT), None);
    }

    #[test]
    fn an_invalid_greeting_is_refused() {
        for bad in [
            "",
            "7",
            "null",
            "{",
            r#"{"boot":7}"#,
            r#"{"boot":"b","known":"all"}"#,
            r#"{"boot":"b","wire":{"oldest":-1}}"#,
        ] {
            assert!(matches!(Greeting::from_json(bad.as_bytes()), Err(GreetingError::Json(_))), "{bad}");
        }
        assert_eq!(Greeting::from_json(br#"{"name":"p1"}"#), Err(GreetingError::Boot));
        assert_eq!(Greeting::from_json(b"[]"), Err(GreetingError::Boot));
        let long = vec![b' '; GREETING_MAX_BYTES + 1];
        assert_eq!(Greeting::from_json(&long), Err(GreetingError::Size(long.len())));
    }

    #[test]
    fn fields_over_their_limits_are_named() {
        let text = || "x".repeat(GREETING_TEXT_MAX_BYTES + 1);
        let address = || "x".repeat(GREETING_ADDRESS_MAX_BYTES + 1);
        let cases = [
            (Greeting { name: text(), ..greeting() }, "name has 257 bytes, over 256"),
            (Greeting { boot: text(), ..greeting() }, "boot has 257 bytes, over 256"),
            (Greeting { version: text(), ..greeting() }, "version has 257 bytes, over 256"),
            (Greeting { address: Some(address()), ..greeting() }, "address has 1025 bytes, over 1024"),
            (Greeting { advertised: Some(address()), ..greeting() }, "advertised has 1025 bytes, over 1024"),
            (Greeting { known: vec![address()], ..greeting() }, "known has 1025 bytes, over 1024"),
        ];
        for (greeting, problem) in cases {
            assert_eq!(
                Greeting::from_json(&greeting.to_json()).unwrap_err().to_string(),
                format!("a greeting's {problem}")
            );
        }
    }

    #[test]
    fn a_greeting_lists_at_most_as_many_members_as_a_peer_accepts() {
        let known = vec!["http://p:1".to_owned(); GREETING_MEMBERS_MAX + 1];
        let json = serde_json::to_vec(&Greeting { known: known.clone(), ..greeting() }).unwrap();
        let problem = "a greeting's known has 257 items, over 256";
        assert_eq!(Greeting::from_json(&json).unwrap_err().to_string(), problem);
        let written = Greeting { known, ..greeting() }.to_json();
        assert_eq!(Greeting::from_json(&written).unwrap().known.len(), GREETING_MEMBERS_MAX);
    }

    #[test]
    fn the_longest_greeting_fits_its_limit() {
        let address = "x".repeat(GREETING_ADDRESS_MAX_BYTES);
        let longest = Greeting {
            address: Some(address.clone()),
            advertised: Some(address.clone()),
            known: vec![address; GREETING_MEMBERS_MAX],
            ..greeting()
        };
        assert_eq!(Greeting::from_json(&longest.to_json()), Ok(longest));
    }
}
