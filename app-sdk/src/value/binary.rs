//! Binary data: bytes in MessagePack, Base64 in JSON.

use std::fmt;
use std::ops::Deref;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// Bytes: a `Uint8Array` for MessagePack clients and a Base64 text for JSON clients, like `byte[]` with the official
/// server. A plain `Vec<u8>` would be an array of numbers in both.
///
/// ```
/// use trunkline::value::Binary;
///
/// async fn thumbnail(picture: Binary) -> Binary {
///     picture.iter().copied().take(100).collect()
/// }
/// # let _ = trunkline::Hub::<()>::new("/album").method("Thumbnail", thumbnail);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Binary(pub Bytes);

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not with `is_human_readable`, which serde loses when it buffers for `flatten` and untagged enums.
        deserializer.deserialize_any(BytesOrBase64)
    }
}

struct BytesOrBase64;

impl Visitor<'_> for BytesOrBase64 {
    type Value = Binary;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes, or a Base64 text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Binary, E> {
        STANDARD.decode(text).map(Binary::from).map_err(|_| E::custom("the text is not Base64"))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Binary, E> {
        Ok(Binary::from(bytes))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Binary, E> {
        Ok(Binary::from(bytes))
    }
}

impl Deref for Binary {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Binary {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&[u8]> for Binary {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<Bytes> for Binary {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Binary> for Bytes {
    fn from(binary: Binary) -> Self {
        binary.0
    }
}

impl FromIterator<u8> for Binary {
    fn from_iter<I: IntoIterator<Item = u8>>(bytes: I) -> Self {
        Self(Bytes::from_iter(bytes))
    }
}
