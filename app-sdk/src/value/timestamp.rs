//! Point in time: a timestamp in MessagePack, ISO 8601 text in JSON.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

use super::calendar;

const NANOS_PER_SECOND: u32 = 1_000_000_000;
/// Number of MessagePack's timestamp extension.
const EXTENSION: i8 = -1;
/// Name that marks an extension in `rmp_serde`.
const EXTENSION_STRUCT: &str = "_ExtStruct";
/// Number of bits for the seconds in the middle form; the rest are nanoseconds.
const MIDDLE_FORM_SECONDS_BITS: u32 = 34;

/// Point in time with nanosecond precision: a `Date` for JavaScript clients with MessagePack, an ISO 8601 text with
/// JSON. Always UTC, like `DateTime` with the official server.
///
/// ```
/// use std::time::SystemTime;
/// use trunkline::value::Timestamp;
///
/// async fn server_time() -> Timestamp {
///     Timestamp::now()
/// }
///
/// let moment: Timestamp = "2000-01-01T01:00:00+01:00".parse()?;
/// assert_eq!(moment.unix_seconds(), 946_684_800);
/// assert_eq!(moment.to_string(), "2000-01-01T00:00:00Z");
/// assert!(moment < SystemTime::now().into());
/// # let _ = trunkline::Hub::<()>::new("/clock").method("ServerTime", server_time);
/// # Ok::<(), trunkline::value::TimestampError>(())
/// ```
///
/// With the features `chrono` and `time`, `chrono::DateTime` and `time::OffsetDateTime` convert from and into it. As
/// plain fields they would be texts and arrays in MessagePack; with `#[serde(with = "trunkline::value::timestamp")]`
/// they are encoded like this type ([`timestamp::option`](crate::value::timestamp::option) for an `Option`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

/// Error for a text that is not a timestamp, or for an invalid number of nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a moment: ISO 8601 is needed, such as 2000-01-01T00:00:00Z")]
pub struct TimestampError;

impl Timestamp {
    /// Creates a timestamp from seconds since 1970 in UTC (negative before 1970) plus nanoseconds, less than a
    /// second.
    ///
    /// # Errors
    /// If there are too many nanoseconds.
    pub fn new(unix_seconds: i64, nanos: u32) -> Result<Self, TimestampError> {
        if nanos < NANOS_PER_SECOND { Ok(Self { seconds: unix_seconds, nanos }) } else { Err(TimestampError) }
    }

    /// The current time of the system clock.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds since the last whole second.
    #[must_use]
    pub fn subsec_nanos(self) -> u32 {
        self.nanos
    }

    /// Converts to the standard library's type; `None` if the system cannot represent the time.
    #[must_use]
    pub fn to_system_time(self) -> Option<SystemTime> {
        let whole = Duration::from_secs(self.seconds.unsigned_abs());
        let second = if self.seconds < 0 { UNIX_EPOCH.checked_sub(whole)? } else { UNIX_EPOCH.checked_add(whole)? };
        second.checked_add(Duration::from_nanos(self.nanos.into()))
    }

    /// Adds minutes, saturating at the range of seconds.
    pub(super) fn plus_minutes(self, minutes: i64) -> Self {
        Self { seconds: self.seconds.saturating_add(minutes * 60), ..self }
    }

    /// Encodes the data of the extension in the shortest of its three forms.
    fn to_data(self) -> Vec<u8> {
        let Self { seconds, nanos } = self;
        match u64::try_from(seconds) {
            Ok(seconds) if seconds >> MIDDLE_FORM_SECONDS_BITS == 0 => match u32::try_from(seconds) {
                Ok(seconds) if nanos == 0 => seconds.to_be_bytes().to_vec(),
                _ => (u64::from(nanos) << MIDDLE_FORM_SECONDS_BITS | seconds).to_be_bytes().to_vec(),
            },
            _ => [nanos.to_be_bytes().as_slice(), &seconds.to_be_bytes()].concat(),
        }
    }

    fn from_data(data: &[u8]) -> Option<Self> {
        let (seconds, nanos) = if let Ok(seconds) = data.try_into() {
            (u32::from_be_bytes(seconds).into(), 0)
        } else if let Ok(both) = data.try_into() {
            let both = u64::from_be_bytes(both);
            let seconds = both & ((1 << MIDDLE_FORM_SECONDS_BITS) - 1);
            (i64::try_from(seconds).ok()?, u32::try_from(both >> MIDDLE_FORM_SECONDS_BITS).ok()?)
        } else {
            let (nanos, seconds) = data.split_at_checked(4)?;
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes(nanos.try_into().ok()?))
        };
        Self::new(seconds, nanos).ok()
    }

    /// Decodes the extension after its marker.
    pub(super) fn from_extension<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (number, Data(data)): (i8, Data) = Deserialize::deserialize(deserializer)?;
        if number != EXTENSION {
            return Err(D::Error::custom(format_args!("extension {number} is not known, {EXTENSION} (timestamp) is")));
        }
        Self::from_data(&data).ok_or_else(|| D::Error::custom("a timestamp is malformed"))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_newtype_struct(EXTENSION_STRUCT, &(EXTENSION, Data(self.to_data())))
        }
    }
}

struct Data(Vec<u8>);

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsBytes;

        impl Visitor<'_> for AsBytes {
            type Value = Data;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the data of an extension")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Data, E> {
                Ok(Data(bytes.to_vec()))
            }
        }

        deserializer.deserialize_bytes(AsBytes)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        calendar::write(f, self.seconds, self.nanos)?;
        f.write_str("Z")
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let (seconds, nanos) = calendar::parse_iso_8601(text).ok_or(TimestampError)?;
        Self::new(seconds, nanos)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let seconds_of = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self { seconds: seconds_of(after), nanos: after.subsec_nanos() },
            Err(before) => {
                let before = before.duration();
                match before.subsec_nanos() {
                    0 => Self { seconds: -seconds_of(before), nanos: 0 },
                    nanos => Self { seconds: -seconds_of(before) - 1, nanos: NANOS_PER_SECOND - nanos },
                }
            }
        }
    }
}

#[cfg(feature = "chrono")]
impl<Z: chrono::TimeZone> From<chrono::DateTime<Z>> for Timestamp {
    fn from(time: chrono::DateTime<Z>) -> Self {
        // A leap second becomes the last nanosecond before it, because there is no 61st second.
        Self { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos().min(NANOS_PER_SECOND - 1) }
    }
}

#[cfg(feature = "chrono")]
impl TryFrom<Timestamp> for chrono::DateTime<chrono::Utc> {
    type Error = TimestampError;

    fn try_from(time: Timestamp) -> Result<Self, TimestampError> {
        Self::from_timestamp(time.seconds, time.nanos).ok_or(TimestampError)
    }
}

#[cfg(feature = "time")]
impl From<time::OffsetDateTime> for Timestamp {
    fn from(time: time::OffsetDateTime) -> Self {
        Self { seconds: time.unix_timestamp(), nanos: time.nanosecond() }
    }
}

#[cfg(feature = "time")]
impl TryFrom<Timestamp> for time::OffsetDateTime {
    type Error = TimestampError;

    fn try_from(time: Timestamp) -> Result<Self, TimestampError> {
        let second = Self::from_unix_timestamp(time.seconds).map_err(|_| TimestampError)?;
        second.replace_nanosecond(time.nanos).map_err(|_| TimestampError)
    }
}

foreign_type!(Timestamp, "points in time");

#[cfg(test)]
mod tests {
    use trunkline_protocol::hub::HubProtocol::MessagePack;

    use super::*;

    #[test]
    fn each_timestamp_has_the_shortest_form_that_fits() {
        for (seconds, nanos, bytes) in [
            (0, 0, 4),
            (u32::MAX.into(), 0, 4),
            (0, 1, 8),
            (i64::from(u32::MAX) + 1, 0, 8),
            ((1 << 34) - 1, 999_999_999, 8),
            (1 << 34, 0, 12),
            (-1, 0, 12),
            (i64::MIN, 999_999_999, 12),
        ] {
            let timestamp = Timestamp::new(seconds, nanos).unwrap();
            let data = timestamp.to_data();
            assert_eq!(data.len(), bytes, "{timestamp:?}");
            assert_eq!(Timestamp::from_data(&data), Some(timestamp));
        }
        assert_eq!(Timestamp::from_data(&[0; 5]), None);
        assert_eq!(Timestamp::from_data(&[255; 12]), None, "too many nanoseconds");
    }

    #[test]
    fn system_times_round_trip() {
        for (seconds, nanos) in [(0, 0), (1, 500_000_000), (-1, 0), (-1, 500_000_000)] {
            let timestamp = Timestamp::new(seconds, nanos).unwrap();
            assert_eq!(Timestamp::from(timestamp.to_system_time().unwrap()), timestamp);
        }
    }

    #[test]
    fn texts_are_written_and_read_back() {
        for (seconds, nanos, text) in [
            (-62_135_596_800, 0, "0001-01-01T00:00:00Z"),
            (-1, 1_000_000, "1969-12-31T23:59:59.001Z"),
            (253_402_300_800, 0, "+010000-01-01T00:00:00Z"),
            (-62_198_755_200, 10, "-000001-01-01T00:00:00.00000001Z"),
        ] {
            let timestamp = Timestamp::new(seconds, nanos).unwrap();
            assert_eq!(timestamp.to_string(), text);
            assert_eq!(text.parse(), Ok(timestamp));
        }
        assert!(Timestamp::new(i64::MAX, 0).unwrap().to_string().starts_with("+292277026596-"));
    }

    #[test]
    fn the_pair_that_dotnet_sends_for_a_time_with_offset_is_read() {
        let local = Timestamp::new(7200, 0).unwrap();
        let pair = MessagePack.payload(&(local, 120)).unwrap();
        assert_eq!(MessagePack.value::<Timestamp>(&pair).unwrap().unix_seconds(), 0);
        let other_extension = MessagePack.payload(&[(local, 120, 1)]).unwrap();
        assert!(MessagePack.value::<Timestamp>(&other_extension).is_err());
    }
}
