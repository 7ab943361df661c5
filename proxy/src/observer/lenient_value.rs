//! Lenient conversion of any encoded value to JSON, for finding secrets. Bytes and extension types become text.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Value with all names and text, but without binary data.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LenientValue(pub(super) Value);

impl<'de> Deserialize<'de> for LenientValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LenientVisitor).map(Self)
    }
}

struct LenientVisitor;

impl<'de> Visitor<'de> for LenientVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        // Text may be encoded as bytes.
        Ok(std::str::from_utf8(value).map_or_else(|_| format!("({} bytes)", value.len()), Into::into).into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        // Extension type: its number and bytes.
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(LenientValue(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((LenientValue(name), LenientValue(value))) = entries.next_entry()? {
            let name = name.as_str().map_or_else(|| name.to_string(), Into::into);
            all.insert(name, value);
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;
    use trunkline_protocol::hub::{HubProtocol, Payload};

    use super::*;

    fn read(bytes: &'static [u8]) -> Option<Value> {
        let payload = Payload::new(Bytes::from_static(bytes));
        HubProtocol::MessagePack.value::<LenientValue>(&payload).ok().map(|LenientValue(value)| value)
    }

    #[test]
    fn values_without_a_json_form_become_text() {
        // {"a": bytes 01 ff, "at": a 32-bit timestamp, 5: [nil, 1.5, -1]}
        let map = b"\x83\xa1a\xc4\x02\x01\xff\xa2at\xd6\xff\x00\x00\x00\x01\x05\x93\xc0\xcb\x3f\xf8\0\0\0\0\0\0\xff";
        let value = read(map).unwrap();
        assert_eq!((&value["a"], &value["5"]), (&json!("(2 bytes)"), &json!([null, 1.5, -1])));
        assert_eq!(read(b"\xc4\x02hi"), Some(json!("hi")));
        assert_eq!(read(b"\x92\x01"), None, "cut off");
    }
}
