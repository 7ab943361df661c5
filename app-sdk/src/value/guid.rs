//! 128-bit identifiers: text in both hub protocols, like .NET's `Guid`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// Number of digits in each group of the text form.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
const DIGITS: usize = 32;

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
pub struct Guid(u128);

/// Error for a text that is not an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a GUID: 32 hexadecimal digits are needed, such as 0f8fad5b-d9cb-469f-a165-70867728950e")]
pub struct GuidError;

impl Guid {
    /// The all-zero identifier, `Guid.Empty` in .NET.
    pub const EMPTY: Guid = Guid(0);

    /// Creates an identifier from its bytes, in the order of the text.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// Returns its bytes in the order of the text. .NET's `Guid.ToByteArray` uses a different order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = DIGITS;
        for digits in GROUPS {
            rest -= digits;
            let group = (self.0 >> (4 * rest)) & ((1 << (4 * digits)) - 1);
            write!(f, "{group:0digits$x}{}", if rest > 0 { "-" } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Guid {
    type Err = GuidError;

    fn from_str(text: &str) -> Result<Self, GuidError> {
        let inside = |open, close| text.strip_prefix(open).and_then(|text| text.strip_suffix(close));
        let text = inside('{', '}').or_else(|| inside('(', ')')).unwrap_or(text);
        let mut groups = text.split('-');
        let (mut number, mut count) = (0_u128, 0);
        let has_hyphens = text.contains('-');
        for expected in if has_hyphens { &GROUPS[..] } else { &[DIGITS] } {
            let group = groups.next().filter(|group| group.len() == *expected).ok_or(GuidError)?;
            for digit in group.chars() {
                number = (number << 4) | u128::from(digit.to_digit(16).ok_or(GuidError)?);
                count += 1;
            }
        }
        if groups.next().is_none() && count == DIGITS { Ok(Self(number)) } else { Err(GuidError) }
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
impl From<uuid::Uuid> for Guid {
    fn from(uuid: uuid::Uuid) -> Self {
        Self(uuid.as_u128())
    }
}

#[cfg(feature = "uuid")]
impl From<Guid> for uuid::Uuid {
    fn from(guid: Guid) -> Self {
        Self::from_u128(guid.0)
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
