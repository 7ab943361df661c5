//! Decimal numbers: an exact JSON number, and text in MessagePack, like .NET's `decimal`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeStruct, Serializer};

const MANTISSA_MAX: u128 = (1 << 96) - 1;
const SCALE_MAX: u32 = 28;
/// Limit of the mantissa while parsing. Further digits only affect rounding.
const READ_MAX: u128 = 10_u128.pow(36);
/// Limit of exponents. Beyond it, any number within a message is 0 or too large.
const EXPONENT_MAX: i64 = 1 << 40;
/// Name that marks a value as raw JSON text in `serde_json`, so that no digit is lost.
const JSON_TEXT: &str = "$serde_json::private::RawValue";

/// Decimal number like .NET's `decimal`: up to 28 decimal places, 96 bits in total, preserving trailing zeros.
///
/// In JSON it is a number that keeps all digits in both directions; JavaScript parses it as a float. In MessagePack
/// it is a text, as .NET expects. Texts and numbers of any kind are accepted.
///
/// It supports no arithmetic. For calculations, enable the feature `rust_decimal`: `rust_decimal::Decimal` converts
/// from and into it, and fields of that type are encoded correctly with `#[serde(with =
/// "trunkline::value::decimal")]` ([`decimal::option`](crate::value::decimal::option) for an `Option`).
///
/// ```
/// use trunkline::value::Decimal;
///
/// let price: Decimal = "19.90".parse()?;
/// assert_eq!((price.mantissa(), price.scale()), (1990, 2));
/// assert_eq!(price.to_string(), "19.90");
/// assert_eq!(price, Decimal::new(199, 1)?);
/// # Ok::<(), trunkline::value::DecimalError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Decimal {
    mantissa: i128,
    scale: u32,
}

/// Error for a text that is not a decimal number, or for a number that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a decimal number of at most 96 bits and 28 places")]
pub struct DecimalError;

impl Decimal {
    /// Creates the number `mantissa / 10^scale`.
    ///
    /// # Errors
    /// If the mantissa exceeds 96 bits without its sign, or the scale exceeds 28.
    pub fn new(mantissa: i128, scale: u32) -> Result<Self, DecimalError> {
        let fits = mantissa.unsigned_abs() <= MANTISSA_MAX && scale <= SCALE_MAX;
        if fits { Ok(Self { mantissa, scale }) } else { Err(DecimalError) }
    }

    /// All digits as an integer.
    #[must_use]
    pub fn mantissa(self) -> i128 {
        self.mantissa
    }

    /// Number of decimal places.
    #[must_use]
    pub fn scale(self) -> u32 {
        self.scale
    }

    /// Removes trailing zeros after the decimal point.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        while self.scale > 0 && self.mantissa % 10 == 0 {
            self.mantissa /= 10;
            self.scale -= 1;
        }
        self
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (self.normalized(), other.normalized());
        (one.mantissa, one.scale) == (other.mantissa, other.scale)
    }
}

impl Eq for Decimal {}

impl Hash for Decimal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { mantissa, scale } = self.normalized();
        (mantissa, scale).hash(state);
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.mantissa < 0 { "-" } else { "" };
        let divisor = 10_u128.pow(self.scale);
        let digits = self.mantissa.unsigned_abs();
        write!(f, "{sign}{}", digits / divisor)?;
        match self.scale as usize {
            0 => Ok(()),
            places => write!(f, ".{:0places$}", digits % divisor),
        }
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    /// Parses digits with an optional point and exponent. Rounds after the 28th place, half to even.
    fn from_str(text: &str) -> Result<Self, DecimalError> {
        let unsigned = text.strip_prefix('-');
        let (number, exponent) = match unsigned.unwrap_or(text).split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i64>().map_err(|_| DecimalError)?),
            None => (unsigned.unwrap_or(text), 0),
        };
        let (mantissa, scale) = Digits::parse_digits(number)?.fitted(exponent.clamp(-EXPONENT_MAX, EXPONENT_MAX))?;
        let mantissa = i128::try_from(mantissa).map_err(|_| DecimalError)?;
        Self::new(if unsigned.is_some() { -mantissa } else { mantissa }, scale)
    }
}

/// Number during parsing, before it is adjusted to the limits.
struct Digits {
    mantissa: u128,
    /// Number of decimal places; negative if digits before the point were dropped.
    scale: i64,
    is_inexact: bool,
}

impl Digits {
    fn parse_digits(text: &str) -> Result<Self, DecimalError> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        if whole.is_empty() || fraction.is_empty() {
            return Err(DecimalError);
        }
        let mut digits = Self { mantissa: 0, scale: 0, is_inexact: false };
        digits.append(whole, 0)?;
        if text.contains('.') {
            digits.append(fraction, 1)?;
        }
        Ok(digits)
    }

    fn append(&mut self, text: &str, places: i64) -> Result<(), DecimalError> {
        for digit in text.chars() {
            let digit = digit.to_digit(10).ok_or(DecimalError)?;
            if self.mantissa < READ_MAX {
                self.mantissa = self.mantissa * 10 + u128::from(digit);
                self.scale += places;
            } else {
                self.is_inexact |= digit != 0;
                self.scale += places - 1;
            }
        }
        Ok(())
    }

    /// Adjusts mantissa and scale to the limits by padding or rounding.
    fn fitted(mut self, exponent: i64) -> Result<(u128, u32), DecimalError> {
        self.scale -= exponent;
        while self.scale < 0 {
            if self.mantissa == 0 {
                self.scale = 0;
                break;
            }
            self.mantissa = self.mantissa.checked_mul(10).ok_or(DecimalError)?;
            self.scale += 1;
        }
        while self.mantissa > MANTISSA_MAX || self.scale > i64::from(SCALE_MAX) {
            self.round()?;
        }
        Ok((self.mantissa, u32::try_from(self.scale).map_err(|_| DecimalError)?))
    }

    /// Drops all surplus digits in one step, so that rounding happens only once.
    fn round(&mut self) -> Result<(), DecimalError> {
        let mut last = 0;
        while self.mantissa > MANTISSA_MAX || self.scale > i64::from(SCALE_MAX) {
            if self.scale == 0 {
                return Err(DecimalError);
            }
            self.is_inexact |= last != 0;
            last = self.mantissa % 10;
            if self.mantissa == 0 {
                self.scale = i64::from(SCALE_MAX);
                break;
            }
            self.mantissa /= 10;
            self.scale -= 1;
        }
        let is_odd = self.mantissa % 2 == 1;
        self.mantissa += u128::from(last > 5 || (last == 5 && (self.is_inexact || is_odd)));
        self.is_inexact = true;
        Ok(())
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        let mut json = serializer.serialize_struct(JSON_TEXT, 1)?;
        json.serialize_field(JSON_TEXT, &self.to_string())?;
        json.end()
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Raw JSON text from JSON; otherwise, and if serde buffers, any type.
        deserializer.deserialize_newtype_struct(JSON_TEXT, TextOrNumber)
    }
}

struct TextOrNumber;

impl<'de> Visitor<'de> for TextOrNumber {
    type Value = Decimal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a decimal number, or the text of one")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Decimal, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Decimal, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Decimal, E> {
        Ok(value.into())
    }

    fn visit_f32<E: Error>(self, value: f32) -> Result<Decimal, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Decimal, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Decimal, D::Error> {
        deserializer.deserialize_any(self)
    }

    // Raw JSON text arrives as a map with one entry.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Decimal, A::Error> {
        match map.next_entry::<String, String>()? {
            Some((key, json)) if key == JSON_TEXT => {
                let inside = json.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                self.visit_str(inside.unwrap_or(&json))
            }
            _ => Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self)),
        }
    }
}

macro_rules! decimal_from {
    ($($integer:ty),*) => {
        $(impl From<$integer> for Decimal {
            fn from(value: $integer) -> Self {
                Self { mantissa: value.into(), scale: 0 }
            }
        })*
    };
}

decimal_from!(u8, i8, u16, i16, u32, i32, u64, i64);

#[cfg(feature = "rust_decimal")]
impl From<rust_decimal::Decimal> for Decimal {
    fn from(value: rust_decimal::Decimal) -> Self {
        Self { mantissa: value.mantissa(), scale: value.scale() }
    }
}

#[cfg(feature = "rust_decimal")]
impl From<Decimal> for rust_decimal::Decimal {
    fn from(value: Decimal) -> Self {
        // Both have 96 bits and 28 places.
        Self::from_i128_with_scale(value.mantissa, value.scale)
    }
}

foreign_type!(Decimal, "decimal numbers");

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: &str = "79228162514264337593543950335";

    #[test]
    fn texts_are_written_as_they_were_read() {
        for text in [
            "0",
            "1",
            "-1",
            "1.50",
            "0.000",
            "-0.05",
            "0.0000000000000000000000000001",
            MAX,
            "7.9228162514264337593543950335",
        ] {
            assert_eq!(text.parse::<Decimal>().unwrap().to_string(), text);
        }
        assert_eq!(format!("-{MAX}").parse::<Decimal>().unwrap().to_string(), format!("-{MAX}"));
    }

    #[test]
    fn exponents_are_read_and_too_many_places_are_rounded() {
        for (text, read) in [
            ("1e3", "1000"),
            ("1.5E+2", "150"),
            ("25e-1", "2.5"),
            ("0e-400", "0.0000000000000000000000000000"),
            ("0e999999999999", "0"),
            ("1e-999999999999", "0.0000000000000000000000000000"),
            ("0.00000000000000000000000000015", "0.0000000000000000000000000002"),
            ("6e-30", "0.0000000000000000000000000000"),
            ("6e-29", "0.0000000000000000000000000001"),
            ("0.00000000000000000000000000025", "0.0000000000000000000000000002"),
            ("0.000000000000000000000000000250000000000000000000001", "0.0000000000000000000000000003"),
            ("79228162514264337593543950334.5", "79228162514264337593543950334"),
            ("7922816251426433759354395033.55", "7922816251426433759354395034"),
            ("0.1000000000000000055511151231257827021181583404541015625", "0.1000000000000000055511151231"),
        ] {
            assert_eq!(text.parse::<Decimal>().unwrap().to_string(), read, "{text}");
        }
    }

    #[test]
    fn other_texts_and_numbers_too_large_are_refused() {
        let long = "9".repeat(100_000);
        for text in [
            "",
            "-",
            ".",
            "1.",
            ".5",
            "1.2.3",
            "e5",
            "1e",
            "+1",
            "1 ",
            "NaN",
            "inf",
            "1e29",
            "79228162514264337593543950336",
            &long,
        ] {
            assert_eq!(text.parse::<Decimal>(), Err(DecimalError), "{text:.40}");
        }
        assert!("79228162514264337593543950335.5".parse::<Decimal>().is_err(), "it rounds to one too many");
        assert!(Decimal::new(1, 29).is_err());
        assert!(Decimal::new(1 << 96, 0).is_err());
    }
}
