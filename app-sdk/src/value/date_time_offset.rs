//! Point in time with the offset of a local clock.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::calendar;
use super::timestamp::Timestamp;

/// Point in time with an offset, like .NET's `DateTimeOffset`: ISO 8601 text with an offset in JSON, a pair in
/// MessagePack. .NET clients with MessagePack do not accept a [`Timestamp`] for it, whereas `Timestamp` decodes both.
///
/// ```
/// use trunkline::value::{DateTimeOffset, Timestamp};
///
/// let noon_in_rome = DateTimeOffset::new("2000-01-01T11:00:00Z".parse()?, 60);
/// assert_eq!(noon_in_rome.to_string(), "2000-01-01T12:00:00+01:00");
/// # Ok::<(), trunkline::value::TimestampError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct DateTimeOffset {
    timestamp: Timestamp,
    offset_minutes: i16,
}

impl DateTimeOffset {
    /// Creates it from a point in time and the offset from UTC in minutes.
    #[must_use]
    pub fn new(timestamp: Timestamp, offset_minutes: i16) -> Self {
        Self { timestamp, offset_minutes }
    }

    /// Point in time without the offset.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        self.timestamp
    }

    /// Offset from UTC in minutes; negative to the west.
    #[must_use]
    pub fn offset_minutes(self) -> i16 {
        self.offset_minutes
    }

    /// Time on the local clock, as if it were UTC.
    fn clock(self) -> Timestamp {
        self.timestamp.plus_minutes(self.offset_minutes.into())
    }
}

impl From<Timestamp> for DateTimeOffset {
    fn from(timestamp: Timestamp) -> Self {
        Self { timestamp, offset_minutes: 0 }
    }
}

impl From<DateTimeOffset> for Timestamp {
    fn from(time: DateTimeOffset) -> Self {
        time.timestamp
    }
}

impl fmt::Display for DateTimeOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = self.clock();
        calendar::write(f, clock.unix_seconds(), clock.subsec_nanos())?;
        let (sign, minutes) = (if self.offset_minutes < 0 { '-' } else { '+' }, self.offset_minutes.unsigned_abs());
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

impl Serialize for DateTimeOffset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            (self.clock(), self.offset_minutes).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for DateTimeOffset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not with `is_human_readable`, which serde loses when it buffers for `flatten` and untagged enums.
        deserializer.deserialize_any(TextOrPair)
    }
}

/// Also accepts .NET's `DateTimeOffset`: a text or a pair with an offset.
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DateTimeOffset::deserialize(deserializer).map(|time| time.timestamp)
    }
}

struct TextOrPair;

impl<'de> Visitor<'de> for TextOrPair {
    type Value = DateTimeOffset;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an ISO 8601 text, or a timestamp, alone or with its offset in minutes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<DateTimeOffset, E> {
        let timestamp = text.parse().map_err(E::custom)?;
        Ok(DateTimeOffset { timestamp, offset_minutes: calendar::offset_minutes(text) })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<DateTimeOffset, D::Error> {
        Timestamp::from_extension(deserializer).map(DateTimeOffset::from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<DateTimeOffset, A::Error> {
        let clock: Timestamp = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let offset_minutes: i16 = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        Ok(DateTimeOffset { timestamp: clock.plus_minutes(-i64::from(offset_minutes)), offset_minutes })
    }
}
