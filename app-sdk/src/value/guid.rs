//! 128-bit identifiers: text in both hub protocols, like .NET's `Guid`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};
use uuid::Uuid;
use uuid::fmt::{Hyphenated, Simple};

/// 128-bit identifier like .NET's `Guid`: the text `0f8fad5b-d9cb-469f-a165-70867728950e` in JSON and in MessagePack.
///
/// Types of other crates would be 16 bytes in MessagePack, which .NET clients reject. With the feature `uuid`,
/// `uuid::Uuid` converts from and into it, and fields of that type are encoded correctly with `#[serde(with =
/// "trunkline::value::guid")]` ([`guid::option`](crate::value::guid::option) for an `Option`):
///
/// ```
/// # #[cfg(feature = "uuid")] {
/// use serde::{Deserialize, Serialize};
/// use uuid::Uuid;
///
/// #[derive(Serialize, Deserialize)]
/// struct Order {
///     #[serde(with = "trunkline::value::guid")]
///     id: Uuid,
///     #[serde(with = "trunkline::value::guid::option", default)]
///     replaces: Option<Uuid>,
/// }
/// # }
/// ```
///
/// Accepts all forms of `Guid.Parse` except the hexadecimal one: with and without hyphens, in braces or parentheses.
///
/// ```
/// use trunkline::value::Guid;
///
/// let id: Guid = "{0F8FAD5B-D9CB-469F-A165-70867728950E}".parse()?;
/// assert_eq!(id.to_string(), "0f8fad5b-d9cb-469f-a165-70867728950e");
/// assert_eq!(id.to_bytes()[..2], [0x0f, 0x8f]);
/// # Ok::<(), trunkline::value::GuidError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(Uuid);

/// Error for a text that is not an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a GUID: 32 hexadecimal digits are needed, such as 0f8fad5b-d9cb-469f-a165-70867728950e")]
pub struct GuidError;

impl Guid {
    /// The all-zero identifier, `Guid.Empty` in .NET.
    pub const EMPTY: Guid = Guid(Uuid::nil());

    /// Creates an identifier from its bytes, in the order of the text.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Returns its bytes in the order of the text. .NET's `Guid.ToByteArray` uses a different order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Guid {
    type Err = GuidError;

    fn from_str(text: &str) -> Result<Self, GuidError> {
        let inside = |open, close| text.strip_prefix(open).and_then(|text| text.strip_suffix(close));
        let text = inside('{', '}').or_else(|| inside('(', ')')).unwrap_or(text);
        // `Uuid` has longer forms, too, which .NET does not read.
        let is_of_dotnet = [Simple::LENGTH, Hyphenated::LENGTH].contains(&text.len());
        Uuid::try_parse(text).ok().filter(|_| is_of_dotnet).map(Self).ok_or(GuidError)
    }
}

impl Serialize for Guid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Guid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(GuidText)
    }
}

struct GuidText;

impl Visitor<'_> for GuidText {
    type Value = Guid;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text of a GUID")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Guid, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(feature = "uuid")]
impl From<Uuid> for Guid {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

#[cfg(feature = "uuid")]
impl From<Guid> for Uuid {
    fn from(guid: Guid) -> Self {
        guid.0
    }
}

foreign_type!(Guid, "identifiers");

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

    #[test]
    fn all_forms_of_dotnet_are_read() {
        let id: Guid = TEXT.parse().unwrap();
        let bare = TEXT.replace('-', "");
        for text in [&TEXT.to_uppercase(), &bare, &format!("{{{TEXT}}}"), &format!("({TEXT})")] {
            assert_eq!(text.parse(), Ok(id), "{text}");
        }
        assert_eq!(Guid::EMPTY.to_string(), "00000000-0000-0000-0000-000000000000");
        assert_eq!(Guid::from_bytes(id.to_bytes()), id);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "0f8fad5b",
            "0f8fad5bd9cb-469f-a165-70867728950e",
            "0f8fad5b-d9cb-469f-a165-70867728950",
            "0f8fad5b-d9cb-469f-a165-70867728950e-",
            "{0f8fad5b-d9cb-469f-a165-70867728950e",
            "+f8fad5b-d9cb-469f-a165-70867728950e",
            "0f8fad5b-d9cb-469f-a165-7086772895é",
            "gf8fad5bd9cb469fa16570867728950e",
        ] {
            assert_eq!(text.parse::<Guid>(), Err(GuidError), "{text}");
        }
    }
}
