//! Names of fields and enum values on the wire, as in serde or as in .NET clients.
//!
//! Set once per hub with [`Hub::naming`](crate::Hub::naming); types stay unchanged. With [`Naming::DotNet`], a .NET
//! class and a Rust struct correspond without attributes on either side:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use trunkline::value::{Decimal, Guid, Timestamp};
//! use trunkline::{Hub, Naming};
//!
//! #[derive(Serialize, Deserialize)]
//! enum Shade { Light, Dark }           // enum Shade { Light, Dark }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Order {                       // class Order {
//!     order_id: Guid,                  //     public Guid OrderId { get; set; }
//!     due_date: Timestamp,             //     public DateTime DueDate { get; set; }
//!     total_price: Decimal,            //     public decimal TotalPrice { get; set; }
//!     shade: Shade,                    //     public Shade Shade { get; set; }
//!     line_count: Option<u32>,         //     public int? LineCount { get; set; }
//! }                                    // }
//!
//! async fn change(order: Order) -> Order {
//!     Order { shade: Shade::Dark, ..order }
//! }
//!
//! let hub: Hub = Hub::new("/orders").naming(Naming::DotNet).method("Change", change);
//! ```
//!
//! # Names on the wire
//!
//! | | ASP.NET Core by default | `Naming::DotNet` | `Naming::Serde`, the default |
//! |---|---|---|---|
//! | property, JSON output | `dueDate` | `dueDate` | `due_date`, as in serde |
//! | property, MessagePack output | `DueDate` | `DueDate` | `due_date` |
//! | property, JSON input | case-insensitive | ignores case and `_` | exact |
//! | property, MessagePack input | exact | ignores case and `_` | exact |
//! | enum, JSON output | number: `1` | number: `1` | text: `"Dark"` |
//! | enum, MessagePack output | text: `"Dark"` | text: `"Dark"` | text: `"Dark"` |
//! | enum, input | JSON: number; MessagePack: exact text | number, or case-insensitive text | exact text |
//! | keys of dictionaries | unchanged | unchanged | unchanged |
//!
//! This applies to method arguments, results, stream items, sends and client results of all clients of the hub,
//! including JavaScript clients, which expect `dueDate` from a .NET server. Values that MessagePack and JSON encode
//! differently (`Guid`, `DateTime`, `decimal`, `byte[]`) have types in [`value`](crate::value), with either naming.
//!
//! # Conversion of names
//!
//! A name of letters, digits and `_` that begins with a letter is split at each `_`. It is written in PascalCase for
//! MessagePack (`due_date` becomes `DueDate`), and for JSON converted like `JsonNamingPolicy.CamelCase` (`dueDate`).
//! Only ASCII letters change. Other names stay unchanged: `$type`, `_id`, `content-type`.
//!
//! - **`#[serde(rename)]` is indistinguishable from a field's own name**, because serde passes only the result.
//!   Renamed names are converted too, which keeps acronyms: `#[serde(rename = "IPAddress")]` becomes `IPAddress` in
//!   MessagePack and `ipAddress` in JSON, as in .NET. A property with a different spelling cannot be expressed; for
//!   such a hub, use [`Naming::Serde`] and attributes.
//! - **Enum numbers count the variants from 0 in order**, so use `#[serde(skip)]` only on the last variants.
//!   Discriminants (`Dark = 7`) are invisible to serde; for a .NET enum with explicit numbers, derive
//!   `Serialize_repr` and `Deserialize_repr` from the crate `serde_repr` for JSON clients. A [flags] enum is an
//!   integer here.
//! - **Enums with data** have no counterpart in .NET. They keep their form, `{"Circle": {…}}`: the variant name and
//!   the fields of `Circle { … }` are written as in serde and read case-insensitively; a struct inside, as in
//!   `Circle(Circle)`, is converted like any struct.
//!
//! [flags]: https://learn.microsoft.com/dotnet/api/system.flagsattribute
//!
//! # Limits of serde
//!
//! For `#[serde(flatten)]`, `#[serde(tag = "…")]` without `content`, and `#[serde(untagged)]`, serde first reads
//! everything into a buffer, and then from the buffer itself. Inside these, input names must match serde's exactly,
//! enums must be texts, and names of structs in output can differ from those in input. They work with JSON clients if
//! the type and all inner types have `#[serde(rename_all = "camelCase")]` (`rename_all_fields` on an enum) and
//! contain no plain enums. A variant of an adjacently tagged enum (`tag` and `content`) is a number in JSON, like
//! every enum without data.
//!
//! # Three pitfalls of the default naming
//!
//! With [`Naming::Serde`], a .NET client with default options uses different names, without an error: missing
//! properties keep their default values.
//!
//! 1. JSON names must match exactly, and .NET clients write camelCase: `dueDate` does not match `due_date`.
//! 2. .NET clients use PascalCase in MessagePack but not in JSON: no `rename_all` fits both.
//! 3. .NET writes enums as numbers in JSON, which a derived `Deserialize` rejects, and a .NET client rejects enum
//!    texts.

mod deserializer;
mod letter_case;
mod serializer;

use serde::Serialize;
use serde::de::DeserializeOwned;
use trunkline_protocol::hub::{HubProtocol, Payload, PayloadError};

use deserializer::CaseBlind;
use serializer::Renamed;

/// Naming of fields and enums on the wire. See the [module](crate::naming) for the differences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Naming {
    /// Names as serde derives them, in both hub protocols.
    #[default]
    Serde,
    /// Names that .NET clients expect by default: camelCase and enums as numbers in JSON, PascalCase and enums as
    /// texts in MessagePack; input is case-insensitive.
    DotNet,
}

/// Encoder and decoder of values for a client.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codec {
    pub(crate) protocol: HubProtocol,
    naming: Naming,
}

impl Codec {
    pub(crate) fn new(protocol: HubProtocol, naming: Naming) -> Self {
        Self { protocol, naming }
    }

    pub(crate) fn payload<T: Serialize + ?Sized>(self, value: &T) -> Result<Payload, PayloadError> {
        match self.naming {
            Naming::Serde => self.protocol.payload(value),
            Naming::DotNet => self.protocol.payload(&Renamed(value)),
        }
    }

    pub(crate) fn value<T: DeserializeOwned>(self, payload: &Payload) -> Result<T, PayloadError> {
        match self.naming {
            Naming::Serde => self.protocol.value(payload),
            Naming::DotNet => self.protocol.value(payload).map(|CaseBlind(value)| value),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use bytes::Bytes;
    use proptest::prelude::*;
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize};
    use trunkline_protocol::hub::HubProtocol::{Json, MessagePack};
    use trunkline_protocol::hub::{HubProtocol, Payload};

    use super::*;
    use crate::value::{Binary, DateTimeOffset, Decimal, Guid, TimeSpan, Timestamp, Value};

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    enum Shade {
        Red,
        DarkRed,
        Sky,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Place {
        street_name: String,
        #[serde(rename = "IPAddress")]
        ip_address: String,
        #[serde(rename = "URL")]
        url: String,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Order {
        buyer_name: String,
        shade: Shade,
        order_id: Guid,
        due_date: Timestamp,
        placed_at: DateTimeOffset,
        total_price: Decimal,
        line_count: Option<u32>,
        ship_to: Place,
        shades: Vec<Shade>,
        by_name: BTreeMap<String, Shade>,
        thumb: Binary,
    }

    /// Argument of an invocation written by the .NET client 10.0 with `JsonHubProtocol` and default options.
    const DOTNET_JSON: &str = r#"{"buyerName":"ann","shade":1,"orderId":"0f8fad5b-d9cb-469f-a165-70867728950e","dueDate":"2026-11-21T09:30:00.1234567Z","placedAt":"2026-11-21T10:30:00+01:00","totalPrice":1234567890123456789.123456789,"lineCount":null,"shipTo":{"streetName":"Elm","ipAddress":"::1","url":"u"},"shades":[0,2],"byName":{"MyKey":2},"thumb":"AQL/"}"#;

    /// Equal argument written with `MessagePackHubProtocol`.
    const DOTNET_MESSAGE_PACK: &str = "8ba942757965724e616d65a3616e6ea55368616465a74461726b526564a74f726465724964d92430663866616435622d643963622d343639662d613136352d373038363737323839353065a744756544617465d7ff1d6f32f06b016498a8506c61636564417492d6ff6b0172a83caa546f74616c5072696365bd313233343536373839303132333435363738392e313233343536373839a94c696e65436f756e74c0a653686970546f83aa5374726565744e616d65a3456c6da9495041646472657373a33a3a31a355524ca175a653686164657392a3526564a3536b79a642794e616d6581a54d794b6579a3536b79a55468756d62c4030102ff";

    fn order() -> Order {
        Order {
            buyer_name: "ann".into(),
            shade: Shade::DarkRed,
            order_id: "0f8fad5b-d9cb-469f-a165-70867728950e".parse().unwrap(),
            due_date: "2026-11-21T09:30:00.1234567Z".parse().unwrap(),
            placed_at: DateTimeOffset::new("2026-11-21T09:30:00Z".parse().unwrap(), 60),
            total_price: "1234567890123456789.123456789".parse().unwrap(),
            line_count: None,
            ship_to: Place { street_name: "Elm".into(), ip_address: "::1".into(), url: "u".into() },
            shades: vec![Shade::Red, Shade::Sky],
            by_name: BTreeMap::from([("MyKey".into(), Shade::Sky)]),
            thumb: vec![1, 2, 255].into(),
        }
    }

    fn dotnet(protocol: HubProtocol) -> Codec {
        Codec::new(protocol, Naming::DotNet)
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn json(value: &(impl Serialize + ?Sized)) -> String {
        String::from_utf8(dotnet(Json).payload(value).unwrap().as_bytes().to_vec()).unwrap()
    }

    fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
        dotnet(Json).value(&Payload::new(Bytes::copy_from_slice(text.as_bytes()))).map_err(|error| error.to_string())
    }

    /// Encodes a value as plain MessagePack and decodes it as another type.
    fn from_value<T: DeserializeOwned>(value: &impl Serialize) -> Result<T, String> {
        dotnet(MessagePack).value(&MessagePack.payload(value).unwrap()).map_err(|error| error.to_string())
    }

    fn round_trips<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
        for protocol in HubProtocol::ALL {
            let again: T = dotnet(protocol).value(&dotnet(protocol).payload(value).unwrap()).unwrap();
            assert_eq!(again, *value, "{protocol:?}");
        }
    }

    #[test]
    fn arguments_of_dotnet_clients_round_trip() {
        assert_eq!(from_json::<Order>(DOTNET_JSON), Ok(order()));
        assert_eq!(json(&order()), DOTNET_JSON);
        let sent = Payload::new(bytes(DOTNET_MESSAGE_PACK).into());
        assert_eq!(dotnet(MessagePack).value::<Order>(&sent).unwrap(), order());
        assert_eq!(dotnet(MessagePack).payload(&order()).unwrap(), sent);
        let span = TimeSpan::from_ticks(905_000_000);
        assert_eq!(json(&span), r#""00:01:30.5000000""#);
        assert_eq!(from_json(r#""00:01:30.5000000""#), Ok(span));
        assert_eq!(dotnet(MessagePack).payload(&span).unwrap().as_bytes()[..], bytes("ce35f13440"));
        assert_eq!(dotnet(MessagePack).value::<TimeSpan>(&Payload::new(bytes("ce35f13440").into())).unwrap(), span);
    }

    #[test]
    fn names_of_serde_are_the_default_and_stay() {
        let plain = Codec::new(Json, Naming::default());
        assert_eq!(plain.payload(&Shade::Sky).unwrap().as_bytes(), &br#""Sky""#[..]);
        assert_eq!(plain.payload(&order().ship_to).unwrap(), Json.payload(&order().ship_to).unwrap());
        assert!(plain.value::<Order>(&Payload::new(DOTNET_JSON.into())).is_err());
    }

    #[test]
    fn names_are_read_in_any_case_and_errors_name_the_input() {
        for text in [
            r#"{"streetName":"a","ipAddress":"b","url":"c"}"#,
            r#"{"STREETNAME":"a","ipaddress":"b","Url":"c"}"#,
            r#"{"street_name":"a","ip_address":"b","URL":"c","more":{"url":1}}"#,
        ] {
            assert_eq!(from_json::<Place>(text).unwrap().street_name, "a", "{text}");
        }
        let missing = from_json::<Place>(r#"{"streetNam":"a"}"#).unwrap_err();
        assert!(missing.contains("missing field `street_name`"), "{missing}");
        let doubled = from_json::<Place>(r#"{"url":"a","URL":"b"}"#).unwrap_err();
        assert!(doubled.contains("duplicate field `URL`"), "{doubled}");
        // Classes with `[Key(0)]` are arrays.
        assert_eq!(from_value::<Place>(&("a", "b", "c")).unwrap().url, "c");
    }

    #[test]
    fn enums_are_read_as_numbers_and_as_texts_in_any_case() {
        for text in ["1", r#""DarkRed""#, r#""darkRed""#, r#""DARK_RED""#, r#""1""#] {
            assert_eq!(from_json(text), Ok(Shade::DarkRed), "{text}");
        }
        assert_eq!(from_value(&1), Ok(Shade::DarkRed));
        assert_eq!(from_value(&"dark_red"), Ok(Shade::DarkRed));
        let unknown = from_json::<Shade>(r#""Blue""#).unwrap_err();
        assert!(unknown.contains("unknown variant `Blue`, expected one of `Red`"), "{unknown}");
        for text in ["3", "-1", "4294967296", "1.5", "null", "{}", "[1]"] {
            assert!(from_json::<Shade>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_count_variants_regardless_of_names() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        enum Odd {
            #[serde(alias = "NIL", alias = "NONE")]
            Nothing,
            #[serde(alias = "AZURE")]
            LightBlue,
            #[serde(skip)]
            #[expect(dead_code, reason = "it is last, where it moves no number")]
            Hidden,
        }
        assert_eq!(json(&Odd::LightBlue), "1");
        assert_eq!(dotnet(MessagePack).payload(&Odd::LightBlue).unwrap().as_bytes(), &b"\xa9LightBlue"[..]);
        round_trips(&vec![Odd::Nothing, Odd::LightBlue]);
        assert_eq!(from_json(r#""none""#), Ok(Odd::Nothing));
    }

    #[test]
    fn keys_of_maps_stay_and_enums_among_them_are_texts() {
        let keys = BTreeMap::from([("due_date", 1), ("DueDate", 2)]);
        assert_eq!(json(&keys), r#"{"DueDate":2,"due_date":1}"#);
        let shades = BTreeMap::from([(Shade::Sky, 1), (Shade::DarkRed, 2)]);
        assert_eq!(json(&shades), r#"{"DarkRed":2,"Sky":1}"#);
        round_trips(&shades);
        assert_eq!(from_json(r#"{"sky":1,"1":2}"#), Ok(shades));
        let value: Value = from_json(r#"{"due_date":{"DueDate":1}}"#).unwrap();
        assert_eq!(json(&value), r#"{"due_date":{"DueDate":1}}"#);
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Empty,
        Circle(Place),
        Line(i32, Shade),
        Box { side_length: u32, shade: Shade },
    }

    #[test]
    fn enums_with_data_keep_their_form() {
        let circle = Shape::Circle(order().ship_to);
        assert_eq!(json(&circle), r#"{"Circle":{"streetName":"Elm","ipAddress":"::1","url":"u"}}"#);
        assert_eq!(json(&Shape::Box { side_length: 2, shade: Shade::Sky }), r#"{"Box":{"side_length":2,"shade":2}}"#);
        for shape in
            [Shape::Empty, circle, Shape::Line(-1, Shade::Sky), Shape::Box { side_length: 2, shade: Shade::Red }]
        {
            round_trips(&shape);
        }
        assert_eq!(
            from_json(r#"{"box":{"SideLength":2,"Shade":"red"}}"#),
            Ok(Shape::Box { side_length: 2, shade: Shade::Red })
        );
        assert_eq!(from_json(r#"{"empty":null}"#), Ok(Shape::Empty));
        for text in [r#"{"Circle":{},"Empty":null}"#, r#"{"Line":[1,2],"Empty":null}"#, "{}", "1", r#""Box""#] {
            assert!(from_json::<Shape>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn buffered_types_work_in_json_with_camel_case() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Whole {
            own_part: u8,
            #[serde(flatten)]
            rest: Rest,
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Rest {
            due_date: Timestamp,
            total_price: Decimal,
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "$type", rename_all_fields = "camelCase")]
        enum Event {
            Moved { from_room: String, to_room: Option<Guid> },
            Ended,
        }
        let due_date = Timestamp::new(0, 0).unwrap();
        let whole = Whole { own_part: 1, rest: Rest { due_date, total_price: "0.1".parse().unwrap() } };
        assert_eq!(json(&whole), r#"{"ownPart":1,"dueDate":"1970-01-01T00:00:00Z","totalPrice":0.1}"#);
        round_trips(&whole);
        let moved = Event::Moved { from_room: "a".into(), to_room: Some(Guid::EMPTY) };
        let text = json(&moved);
        assert!(text.starts_with(r#"{"$type":"Moved","fromRoom":"a","toRoom":"0000"#), "{text}");
        assert_eq!(from_json(&text), Ok(moved));
        assert_eq!(from_json(&json(&Event::Ended)), Ok(Event::Ended));
    }

    #[test]
    fn adjacent_tags_are_read_in_any_case() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", content = "data")]
        enum Event {
            Moved(Place),
            Ended,
        }
        assert_eq!(from_json(r#"{"Kind":"ended"}"#), Ok(Event::Ended));
        for event in [Event::Ended, Event::Moved(order().ship_to)] {
            round_trips(&event);
        }
    }

    #[test]
    fn every_kind_of_value_passes_through() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Unit;
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Wrapped(Option<Box<Wrapped>>);
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Pair(u8, char);
        let at: Timestamp = "2000-01-01T00:00:00.5Z".parse().unwrap();
        round_trips(&(true, -1_i8, -2_i16, -3_i32, i64::MIN, u8::MAX, u16::MAX, u32::MAX, u64::MAX));
        round_trips(&(0.5_f32, -0.25_f64, 'x', "text".to_owned(), Unit, Wrapped(None), Pair(1, 'y'), None::<u8>));
        round_trips(&(at, Binary::from(vec![1]), Value::from(vec![1]), [1, 2, 3]));
        round_trips(&serde_json::json!({ "a": [1, null, { "b_c": "d" }] }));
        let raw = serde_json::value::RawValue::from_string(r#"{"a_b":1}"#.into()).unwrap();
        assert_eq!(json(&raw), r#"{"a_b":1}"#);
        assert_eq!(from_json::<Box<serde_json::value::RawValue>>(r#"{"a_b":1}"#).unwrap().get(), r#"{"a_b":1}"#);
    }

    fn shades() -> impl Strategy<Value = Shade> {
        prop_oneof![Just(Shade::Red), Just(Shade::DarkRed), Just(Shade::Sky)]
    }

    prop_compose! {
        fn orders()(
            (buyer_name, shade, order_id) in (".{0,8}", shades(), any::<[u8; 16]>()),
            (seconds, nanos, offset) in (-62_135_596_800..253_402_300_800_i64, 0..1_000_000_000_u32, -840..=840_i16),
            (mantissa, scale, negative) in (0..1_u128 << 96, 0..=28_u32, any::<bool>()),
            line_count in any::<Option<u32>>(),
            shades in prop::collection::vec(shades(), 0..4),
            by_name in prop::collection::btree_map(".{0,4}", shades(), 0..4),
            thumb in any::<Vec<u8>>(),
        ) -> Order {
            let due_date = Timestamp::new(seconds, nanos).unwrap();
            let mantissa = i128::try_from(mantissa).unwrap() * if negative { -1 } else { 1 };
            Order {
                ship_to: Place { street_name: buyer_name.clone(), ip_address: String::new(), url: String::new() },
                buyer_name,
                shade,
                order_id: Guid::from_bytes(order_id),
                due_date,
                placed_at: DateTimeOffset::new(due_date, offset),
                total_price: Decimal::new(mantissa, scale).unwrap(),
                line_count,
                shades,
                by_name,
                thumb: thumb.into(),
            }
        }
    }

    proptest! {
        #[test]
        fn all_values_round_trip_with_either_naming(order in orders()) {
            for protocol in HubProtocol::ALL {
                for naming in [Naming::Serde, Naming::DotNet] {
                    let codec = Codec::new(protocol, naming);
                    let again: Order = codec.value(&codec.payload(&order).unwrap()).unwrap();
                    prop_assert_eq!(again.total_price.to_string(), order.total_price.to_string());
                    prop_assert_eq!(again, order.clone());
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>()) {
            let payload = Payload::new(bytes.into());
            for protocol in HubProtocol::ALL {
                let _ = dotnet(protocol).value::<Order>(&payload);
                let _ = dotnet(protocol).value::<Shape>(&payload);
            }
        }
    }
}
