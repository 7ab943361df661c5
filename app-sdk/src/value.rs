//! Values with different encodings in the two hub protocols, and a dynamic value.
//!
//! | type | JSON | MessagePack | JavaScript |
//! |---|---|---|---|
//! | [`Binary`] | Base64 text | bin | `Uint8Array` with MessagePack |
//! | [`Timestamp`] | ISO 8601 text | timestamp, extension −1 | `Date` with MessagePack |
//! | [`DateTimeOffset`] | ISO 8601 text | timestamp of the local clock, and minutes | text or array |
//! | [`TimeSpan`] | text | ticks of 100 ns | text or number |
//! | [`Guid`] | text | text | `string` |
//! | [`Decimal`] | number | text | `number`, or `string` with MessagePack |
//! | [`Value`] | anything | anything | anything |
//!
//! The encodings are the defaults of the official server and match `byte[]`, `DateTime`, `DateTimeOffset`,
//! `TimeSpan`, `Guid` and `decimal` of .NET clients in both protocols. For `uuid::Uuid`, `chrono::DateTime<Utc>`,
//! `time::OffsetDateTime` and `rust_decimal::Decimal` there are features with conversions and [`serde(with)`](guid)
//! modules, because these crates use different encodings in MessagePack by default.
//!
//! Use them as arguments, as results, and as fields of your own types:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use trunkline::Hub;
//! use trunkline::value::{Binary, Timestamp, Value};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Photo {
//!     taken: Timestamp,
//!     pixels: Binary,
//!     notes: Value,
//! }
//!
//! async fn upload(photo: Photo) -> usize {
//!     photo.pixels.len()
//! }
//!
//! let hub: Hub = Hub::new("/album").method("Upload", upload).method("Echo", async |x: Value| x);
//! ```

/// Generates the two functions required by `#[serde(with = "…")]`, for types that convert from and into an SDK type.
macro_rules! foreign_type {
    ($type:ident, $what:literal) => {
        #[doc = concat!("Serializes ", $what, " of other crates like [`", stringify!($type), "`].")]
        ///
        /// # Errors
        /// If the format fails.
        pub fn serialize<T: Clone + Into<$type>, S: serde::Serializer>(
            value: &T,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            serde::Serialize::serialize(&value.clone().into(), serializer)
        }

        #[doc = concat!("Deserializes ", $what, " of other crates like [`", stringify!($type), "`].")]
        ///
        /// # Errors
        /// If the input has a different type, or the target type cannot represent it.
        pub fn deserialize<'de, T: TryFrom<$type, Error: std::fmt::Display>, D: serde::Deserializer<'de>>(
            deserializer: D,
        ) -> Result<T, D::Error> {
            let value: $type = serde::Deserialize::deserialize(deserializer)?;
            T::try_from(value).map_err(serde::de::Error::custom)
        }

        #[doc = concat!("Optional ", $what, " of other crates, for `#[serde(with)]`.")]
        pub mod option {
            #[doc = concat!("Serializes optional ", $what, " of other crates.")]
            ///
            /// # Errors
            /// If the format fails.
            pub fn serialize<T: Clone + Into<super::$type>, S: serde::Serializer>(
                value: &Option<T>,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                serde::Serialize::serialize(&value.clone().map(Into::into), serializer)
            }

            #[doc = concat!("Deserializes optional ", $what, " of other crates; null becomes `None`.")]
            ///
            /// # Errors
            /// If the input has a different type, or the target type cannot represent it.
            pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
            where
                T: TryFrom<super::$type, Error: std::fmt::Display>,
                D: serde::Deserializer<'de>,
            {
                let value: Option<super::$type> = serde::Deserialize::deserialize(deserializer)?;
                value.map(T::try_from).transpose().map_err(serde::de::Error::custom)
            }
        }
    };
}

mod binary;
mod calendar;
mod date_time_offset;
pub mod decimal;
pub mod guid;
mod time_span;
pub mod timestamp;

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

pub use binary::Binary;
pub use date_time_offset::DateTimeOffset;
pub use decimal::{Decimal, DecimalError};
pub use guid::{Guid, GuidError};
pub use time_span::{TimeSpan, TimeSpanError};
pub use timestamp::{Timestamp, TimestampError};

/// Dynamic value that both hub protocols can encode.
///
/// Decoding and encoding a value in the same protocol is lossless, with two exceptions in MessagePack: numbers are
/// written in the shortest form, and numeric map keys become texts. JSON cannot mark [`Binary`] and [`Timestamp`], so
/// from JSON clients they are [`Text`](Value::Text); if you expect one of them, use its type.
///
/// ```
/// use trunkline::value::Value;
///
/// let value = Value::from_iter([("name", Value::from("ann")), ("seats", Value::from(vec![3, 4]))]);
/// assert_eq!(value.get("name").and_then(Value::as_str), Some("ann"));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Value {
    /// The value `null`, also for `undefined`.
    #[default]
    Null,
    /// A boolean: true or false.
    Bool(bool),
    /// A signed integer of 64 bits.
    Integer(i64),
    /// An integer too large for [`Integer`](Self::Integer).
    Unsigned(u64),
    /// A floating-point number of 64 bits.
    Float(f64),
    /// A text in UTF-8.
    Text(String),
    /// Binary data, as [`Binary`].
    Binary(Binary),
    /// A point in time.
    Timestamp(Timestamp),
    /// A sequence of values.
    Array(Vec<Value>),
    /// Named values in their original order.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// Returns the value with this name, if it is a map.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Returns the text, if it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the number, if it is an integer in this range.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns the array, if it is one.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(values) => Some(values),
            _ => None,
        }
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        *self == Value::Null
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Integer(value) => serializer.serialize_i64(*value),
            Value::Unsigned(value) => serializer.serialize_u64(*value),
            Value::Float(value) => serializer.serialize_f64(*value),
            Value::Text(value) => serializer.serialize_str(value),
            Value::Binary(value) => value.serialize(serializer),
            Value::Timestamp(value) => value.serialize(serializer),
            Value::Array(values) => serializer.collect_seq(values),
            Value::Map(entries) => serializer.collect_map(entries.iter().map(|(key, value)| (key, value))),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::Binary(Binary::from(value)))
    }

    fn visit_byte_buf<E>(self, value: Vec<u8>) -> Result<Value, E> {
        Ok(Value::Binary(Binary::from(value)))
    }

    // MessagePack extensions arrive here. SignalR uses only this one.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Timestamp::from_extension(deserializer).map(Value::Timestamp)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((Key(key), value)) = map.next_entry()? {
            entries.push((key, value));
        }
        Ok(Value::Map(entries))
    }
}

/// Key of a map. Numbers become texts, as in JavaScript.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Text(text) => Ok(Key(text)),
            Value::Integer(number) => Ok(Key(number.to_string())),
            Value::Unsigned(number) => Ok(Key(number.to_string())),
            _ => Err(D::Error::custom("a key of a map is neither a text nor a whole number")),
        }
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Value::Unsigned(value), Value::Integer)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Value::Array(values.into_iter().map(Into::into).collect())
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Value {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Value::Map(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

macro_rules! value_from {
    ($($type:ty => $variant:ident),* $(,)?) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Value::$variant(value.into())
            }
        })*
    };
}

value_from! {
    bool => Bool,
    i32 => Integer,
    u32 => Integer,
    i64 => Integer,
    f64 => Float,
    String => Text,
    Binary => Binary,
    Timestamp => Timestamp,
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use trunkline_protocol::hub::HubProtocol::{self, Json, MessagePack};
    use trunkline_protocol::hub::{HubMessage, Outcome, Payload, next_frame};

    use super::*;

    const VECTORS: &str = include_str!("../tests/vectors/hub-protocol-vectors.json");

    /// Result from a completion written by the official client with MessagePack.
    fn vector(id: &str) -> Payload {
        let all: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
        let vectors = all["vectors"].as_array().unwrap();
        let hex = vectors.iter().find(|vector| vector["id"] == id).unwrap()["msgpack_hex"].as_str().unwrap();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let frame = next_frame(MessagePack, &bytes, usize::MAX).unwrap().unwrap();
        match MessagePack.decode(&bytes::Bytes::from(bytes).slice(frame.body)).unwrap().unwrap() {
            HubMessage::Completion(completion) => match completion.outcome {
                Outcome::Value(payload) => payload,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn json(value: &impl Serialize) -> String {
        String::from_utf8(Json.payload(value).unwrap().as_bytes().to_vec()).unwrap()
    }

    fn again<T: Serialize + DeserializeOwned>(protocol: HubProtocol, value: &T) -> T {
        protocol.value(&protocol.payload(value).unwrap()).unwrap()
    }

    #[test]
    fn the_official_clients_bytes_round_trip() {
        for (id, text) in [
            ("V42", r#""AQID""#),
            ("V43", r#""2000-01-01T00:00:00Z""#),
            ("V44", r#""2000-01-01T00:00:00.123Z""#),
            ("V45", r#""0001-01-01T00:00:00Z""#),
            ("V46", "1.5"),
            ("V47", "[-1,-33,-32769,4294967295,4294967296,9007199254740991]"),
        ] {
            let payload = vector(id);
            let value: Value = MessagePack.value(&payload).unwrap();
            assert_eq!(MessagePack.payload(&value).unwrap(), payload, "{id}: {value:?}");
            assert_eq!(json(&value), text, "{id}");
        }
    }

    #[test]
    fn typed_fields_read_the_official_clients_bytes() {
        let bytes: Binary = MessagePack.value(&vector("V42")).unwrap();
        assert_eq!(&*bytes, [1, 2, 3]);
        assert_eq!(again(Json, &bytes), bytes);
        for id in ["V43", "V44", "V45"] {
            let payload = vector(id);
            let timestamp: Timestamp = MessagePack.value(&payload).unwrap();
            assert_eq!(MessagePack.payload(&timestamp).unwrap(), payload);
            assert_eq!(again(Json, &timestamp), timestamp);
        }
        assert!(MessagePack.value::<Timestamp>(&vector("V42")).is_err());
        assert!(MessagePack.value::<Binary>(&vector("V43")).is_err());
    }

    #[test]
    fn values_round_trip_as_far_as_both_protocols_can_represent_them() {
        let plain = Value::from_iter([
            ("b", Value::from(true)),
            ("a", Value::from(vec![Value::Null, i64::MIN.into(), u64::MAX.into(), 0.1.into(), 2.0.into()])),
            ("ü", Value::from("ü\u{1e}\n")),
            ("", Value::from_iter::<[(&str, Value); 0]>([])),
        ]);
        assert_eq!(again(Json, &plain), plain);
        assert_eq!(again(MessagePack, &plain), plain);
        let timestamp = Timestamp::new(1, 5).unwrap();
        let rich = Value::from(vec![Value::from(timestamp), Binary::from(vec![255]).into()]);
        assert_eq!(again(MessagePack, &rich), rich);
        assert_eq!(again(Json, &rich), Value::from(vec!["1970-01-01T00:00:01.000000005Z", "/w=="]));
    }

    #[test]
    fn fields_of_structs_work_also_where_serde_buffers_them() {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        struct Inner {
            at: Timestamp,
            bytes: Binary,
            missing: Option<Timestamp>,
        }
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        struct Outer {
            #[serde(flatten)]
            inner: Inner,
            either: Either,
        }
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i64),
            At(Timestamp),
        }
        let at = Timestamp::new(946_684_800, 123_000_000).unwrap();
        let inner = Inner { at, bytes: Binary::from(vec![1, 2, 3]), missing: None };
        let outer = Outer { inner, either: Either::At(at) };
        assert_eq!(again(Json, &outer), outer);
        assert_eq!(again(MessagePack, &outer), outer);
    }

    #[test]
    fn types_of_other_crates_are_written_as_ours() {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        struct Foreign {
            #[serde(with = "super::guid")]
            id: uuid::Uuid,
            #[serde(with = "super::decimal")]
            price: rust_decimal::Decimal,
            #[serde(with = "super::timestamp")]
            due: chrono::DateTime<chrono::Utc>,
            #[serde(with = "super::timestamp")]
            paid: time::OffsetDateTime,
            #[serde(with = "super::guid::option", default)]
            replaces: Option<uuid::Uuid>,
            #[serde(with = "super::timestamp::option", default)]
            closed: Option<time::OffsetDateTime>,
        }
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Ours {
            id: Guid,
            price: Decimal,
            due: Timestamp,
            paid: Timestamp,
            replaces: Option<Guid>,
            closed: Option<Timestamp>,
        }
        let at = Timestamp::new(-1, 500_000_000).unwrap();
        let (id, price) =
            ("0f8fad5b-d9cb-469f-a165-70867728950e".parse().unwrap(), "-79228162514264337593543950335".parse());
        for (replaces, closed) in [(None, None), (Some(Guid::EMPTY), Some(at))] {
            let ours = Ours { id, price: price.unwrap(), due: at, paid: at, replaces, closed };
            for protocol in HubProtocol::ALL {
                let payload = protocol.payload(&ours).unwrap();
                let foreign: Foreign = protocol.value(&payload).unwrap();
                assert_eq!(protocol.payload(&foreign).unwrap(), payload);
                assert_eq!((foreign.id.to_string(), foreign.price.scale()), (id.to_string(), 0));
                assert_eq!(foreign.due.timestamp_millis(), -500);
                assert_eq!(again(protocol, &foreign), foreign);
            }
        }
        let far = Timestamp::new(i64::MAX, 0).unwrap();
        assert!(chrono::DateTime::try_from(far).is_err());
        assert!(time::OffsetDateTime::try_from(far).is_err());
    }

    #[test]
    fn decimals_keep_all_digits_also_where_json_numbers_could_not() {
        for text in ["79228162514264337593543950335", "0.1000000000000000055511151231", "-1.50", "0"] {
            let decimal: Decimal = text.parse().unwrap();
            assert_eq!(json(&decimal), text);
            for protocol in HubProtocol::ALL {
                assert_eq!(again(protocol, &decimal).to_string(), text);
                assert_eq!(again(protocol, &Some(vec![decimal])).unwrap()[0].to_string(), text);
            }
            let quoted = Json.payload(text).unwrap();
            assert_eq!(Json.value::<Decimal>(&quoted).unwrap().to_string(), text);
        }
        for (protocol, payload) in HubProtocol::ALL.map(|protocol| (protocol, protocol.payload(&0.1).unwrap())) {
            assert_eq!(protocol.value::<Decimal>(&payload).unwrap(), Decimal::new(1, 1).unwrap());
        }
        for other in [Json.payload(&"a").unwrap(), Json.payload(&[1]).unwrap(), Json.payload(&()).unwrap()] {
            assert!(Json.value::<Decimal>(&other).is_err());
        }
        assert_eq!(serde_json::to_value(Decimal::from(7)).unwrap(), serde_json::json!(7));
    }

    #[test]
    fn times_with_offset_keep_it() {
        for (text, minutes) in [("2000-01-01T12:00:00+01:00", 60), ("1999-12-31T23:30:00.5-02:30", -150)] {
            let time: DateTimeOffset = Json.value(&Json.payload(text).unwrap()).unwrap();
            assert_eq!(time.offset_minutes(), minutes);
            assert_eq!(json(&time), format!("\"{text}\""));
            assert_eq!(again(MessagePack, &time), time);
            assert_eq!(MessagePack.value::<Timestamp>(&MessagePack.payload(&time).unwrap()).unwrap(), time.timestamp());
        }
        for text in ["2000-01-01T12:00:00Z", "2000-01-01 12:00", "2000-01-01"] {
            let time: DateTimeOffset = Json.value(&Json.payload(text).unwrap()).unwrap();
            assert_eq!(time.offset_minutes(), 0, "{text}");
        }
        let plain: DateTimeOffset =
            MessagePack.value(&MessagePack.payload(&Timestamp::new(5, 6).unwrap()).unwrap()).unwrap();
        assert_eq!(plain, Timestamp::new(5, 6).unwrap().into());
    }

    #[test]
    fn keys_that_are_numbers_become_texts_and_others_are_refused() {
        let numbers = std::collections::BTreeMap::from([(-1, "a"), (2, "b")]);
        let value: Value = MessagePack.value(&MessagePack.payload(&numbers).unwrap()).unwrap();
        assert_eq!(value, Value::from_iter([("-1", "a"), ("2", "b")]));
        let pairs = std::collections::BTreeMap::from([((1, 2), "a")]);
        assert!(MessagePack.value::<Value>(&MessagePack.payload(&pairs).unwrap()).is_err());
    }
}
