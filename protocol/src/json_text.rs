//! JSON values that pass through unchanged.
//!
//! Converting a number to a float loses digits (`79228162514264337593543950335`) or its notation (`1e5`). A
//! [`JsonText`] keeps the original text beside the value and writes it to JSON. Other formats get the value: 64-bit
//! integers are exact, and other numbers become the nearest float.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// JSON value with its original text.
#[derive(Debug, Clone)]
pub struct JsonText {
    text: Box<RawValue>,
    value: Value,
}

impl JsonText {
    /// The value, with rounded numbers.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Returns the value, with rounded numbers.
    #[must_use]
    pub fn into_value(self) -> Value {
        self.value
    }

    /// The original JSON text.
    #[must_use]
    pub fn get(&self) -> &str {
        self.text.get()
    }

    /// Items of a list; `None` for other values.
    #[must_use]
    pub fn items(&self) -> Option<Vec<Self>> {
        if self.value.is_array() { serde_json::from_str(self.get()).ok() } else { None }
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { self.text.serialize(serializer) } else { self.value.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = Box::<RawValue>::deserialize(deserializer)?;
            let value = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
            return Ok(Self { text, value });
        }
        let value = Value::deserialize(deserializer)?;
        let text = to_raw_value(&value).map_err(D::Error::custom)?;
        Ok(Self { text, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: [&str; 9] = [
        "123456789012345.123456",
        "79228162514264337593543950335",
        "18446744073709551616",
        "-9223372036854775809",
        "9007199254740993",
        "1e5",
        "1E+2",
        "100.00",
        "-0",
    ];

    #[test]
    fn json_keeps_its_text_however_it_is_nested() {
        for number in NUMBERS {
            let text = format!("[{number},{{\"a\": {number}}}]");
            let read: JsonText = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
            assert_eq!(read.items().unwrap()[0].get(), number);
        }
        assert!(serde_json::from_str::<JsonText>("1").unwrap().items().is_none());
    }

    #[test]
    fn message_pack_keeps_64_bit_integers_and_rounds_other_numbers() {
        let packed = |text: &str| rmp_serde::to_vec(&serde_json::from_str::<JsonText>(text).unwrap()).unwrap();
        assert_eq!(packed("18446744073709551615"), rmp_serde::to_vec(&u64::MAX).unwrap());
        assert_eq!(packed("-9223372036854775808"), rmp_serde::to_vec(&i64::MIN).unwrap());
        assert_eq!(packed("9007199254740993"), rmp_serde::to_vec(&9_007_199_254_740_993_u64).unwrap());
        assert_eq!(packed("18446744073709551616"), rmp_serde::to_vec(&18_446_744_073_709_551_616_f64).unwrap());
        assert_eq!(packed("0.1"), rmp_serde::to_vec(&0.1).unwrap());
        let read: JsonText = rmp_serde::from_slice(&rmp_serde::to_vec(&(u64::MAX, "a")).unwrap()).unwrap();
        assert_eq!(read.get(), "[18446744073709551615,\"a\"]");
    }

    #[test]
    fn invalid_or_too_deeply_nested_json_is_refused() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for text in ["", "01", "[1,]", "nul", "1 2", &deep] {
            assert!(serde_json::from_str::<JsonText>(text).is_err(), "{:.10}", text);
        }
    }
}
