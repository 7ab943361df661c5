//! Strict check of every frame that the node sends: SDKs of all ages must be able to read it.
//!
//! Older SDKs lose their position in a frame when a message has a known extension key that it does not define, or an
//! unknown one. They throw on nil instead of a list or map.

use anyhow::{Result, ensure};

use crate::frame::{kind, kind_of, message};
use crate::value::Value;

/// Form of one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    TextOrNil,
    Int,
    Fixed,
    Bytes,
    BytesOrNil,
    /// Map of text to text.
    Claims,
    /// Map of text to lists of text.
    Headers,
    /// Map of protocol to bytes.
    Payloads,
    /// Extension map with no other keys.
    Ext(&'static [i64]),
}

use Form::{Bytes, BytesOrNil, Claims, Ext, Fixed, Headers, Int, Payloads, Text, TextOrNil};

/// Elements after the type, for each message that a service sends.
const LAYOUTS: &[(i64, &[Form])] = &[
    (kind::HANDSHAKE_RESPONSE, &[TextOrNil, Ext(&[]), TextOrNil]),
    (kind::OPEN_CONNECTION, &[Text, Claims, Headers, TextOrNil, Ext(&[1, 3])]),
    (kind::CLOSE_CONNECTION, &[Text, TextOrNil, Headers, Ext(&[1])]),
    (kind::CONNECTION_DATA, &[Text, Bytes, Ext(&[1, 5])]),
    (kind::SERVICE_ERROR, &[Text]),
    (kind::ACK, &[Int, Int, TextOrNil, Ext(&[]), BytesOrNil]),
    (kind::SERVICE_EVENT, &[Int, TextOrNil, Int, TextOrNil, Ext(&[])]),
    (kind::ACCESS_KEY_RESPONSE, &[TextOrNil, TextOrNil, TextOrNil, TextOrNil, Ext(&[])]),
    (kind::CLIENT_INVOCATION, &[Text, Text, Text, Payloads, Ext(&[1])]),
    (kind::CLIENT_COMPLETION, &[Text, Text, Text, Text, Bytes, Ext(&[1, 3])]),
    (kind::ERROR_COMPLETION, &[Text, Text, Text, Text, Ext(&[1])]),
    (kind::SERVICE_MAPPING, &[Text, Text, Text, Ext(&[])]),
    (kind::CONNECTION_RECONNECT, &[Text, Ext(&[])]),
    (kind::FLOW_CONTROL, &[Text, Fixed, Fixed, Ext(&[])]),
    (kind::UPDATE_CONNECTION_CLAIMS, &[Text, Claims, Ext(&[])]),
];

/// Reads a frame sent by the node and asserts that it has its documented form, byte for byte.
pub(crate) fn strictly_read(bytes: &[u8]) -> Result<Value> {
    let read = message(bytes)?;
    let Value::List(elements) = &read else { anyhow::bail!("{read:?} is no list") };
    let mut canonical = elements.clone();
    if kind_of(&read) == kind::PING {
        let words = elements.get(1..).unwrap_or_default();
        ensure!(words.len().is_multiple_of(2) && words.iter().all(|word| word.as_text().is_some()), "{read:?}");
    } else {
        let layout = LAYOUTS.iter().find(|(number, _)| *number == kind_of(&read)).map(|(_, layout)| *layout);
        let layout = layout.ok_or_else(|| anyhow::anyhow!("no service sends {read:?}"))?;
        ensure!(elements.len() == layout.len() + 1, "{read:?} should have {} elements", layout.len() + 1);
        for (element, form) in canonical.iter_mut().skip(1).zip(layout) {
            ensure!(fits(element, *form), "{element:?} is no {form:?} in {read:?}");
            if let (Fixed, Value::Int(value)) = (form, &*element) {
                *element = Value::Fixed(i32::try_from(*value)?);
            }
        }
    }
    let canonical = Value::List(canonical).encode();
    ensure!(canonical == bytes, "{read:?} is written as {bytes:02x?} instead of {canonical:02x?}");
    Ok(read)
}

fn fits(element: &Value, form: Form) -> bool {
    let pairs = |is_value: fn(&Value) -> bool| match element {
        Value::Map(map) => map.iter().all(|(key, value)| key.as_text().is_some() && is_value(value)),
        _ => false,
    };
    match form {
        Text => element.as_text().is_some(),
        TextOrNil => element.as_text().is_some() || *element == Value::Nil,
        Int | Fixed => element.as_int().is_some(),
        Bytes => element.as_bytes().is_some(),
        BytesOrNil => element.as_bytes().is_some() || *element == Value::Nil,
        Claims => pairs(|value| value.as_text().is_some()),
        Headers => pairs(|value| matches!(value, Value::List(all) if all.iter().all(|one| one.as_text().is_some()))),
        Payloads => pairs(|value| value.as_bytes().is_some()),
        Ext(keys) => is_ext(element, keys),
    }
}

/// Keys are defined for this message, unique and ascending; their values have the right types.
fn is_ext(element: &Value, known: &[i64]) -> bool {
    let Value::Map(map) = element else { return false };
    let keys: Vec<i64> = map.iter().filter_map(|(key, _)| key.as_int()).collect();
    let is_typed = map.iter().all(|(key, value)| match key.as_int() {
        Some(3) => value.as_text().is_some(),
        _ => value.as_int().is_some(),
    });
    keys.len() == map.len() && keys.is_sorted_by(|a, b| a < b) && keys.iter().all(|key| known.contains(key)) && is_typed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{list, map};

    #[test]
    fn frames_that_some_sdk_could_not_read_are_found() {
        let none = || map! {};
        strictly_read(&list![6, "c1", b"x".as_slice(), map! { 5 => 2 }].encode()).unwrap();
        strictly_read(&list![39, "c1", Value::Fixed(1), Value::Fixed(1), none()].encode()).unwrap();
        for (what, wrong) in [
            ("an unknown key", list![6, "c1", b"x".as_slice(), map! { 9 => 2 }]),
            ("a key of another message", list![20, 1, 1, "", map! { 1 => 2 }, Value::Nil]),
            ("keys out of order", list![6, "c1", b"x".as_slice(), map! { 5 => 2, 1 => 2 }]),
            ("nil instead of a map", list![5, "c1", "", Value::Nil, none()]),
            ("a missing element", list![5, "c1", "", none()]),
            ("a short integer where a long one is due", list![39, "c1", 1, 1, none()]),
            ("a message of app servers", list![10, list![], none(), none()]),
            ("half a pair", list![3, "status"]),
        ] {
            assert!(strictly_read(&wrong.encode()).is_err(), "{what}");
        }
        // Length in more bytes than needed.
        assert!(strictly_read(b"\x93\x03\xd9\x01a\xa1b").is_err());
    }
}
