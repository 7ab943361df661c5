//! Durations: text in JSON, a number of ticks in MessagePack, like .NET's `TimeSpan`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

const TICKS_PER_SECOND: u64 = 10_000_000;
const NANOS_PER_TICK: u64 = 100;
const DAY_SECONDS: u64 = 86_400;
const FRACTION: usize = 7;

/// Duration in ticks of 100 ns, like .NET's `TimeSpan`: a text such as `1.02:03:04.5000000` in JSON, the number of
/// ticks in MessagePack. A `Duration` of the standard library would be a map of seconds and nanoseconds.
///
/// ```
/// use std::time::Duration;
/// use trunkline::value::TimeSpan;
///
/// let span = TimeSpan::try_from(Duration::from_millis(90_500))?;
/// assert_eq!(span.to_string(), "00:01:30.5000000");
/// assert_eq!("-1.00:00:00".parse::<TimeSpan>()?.ticks(), -864_000_000_000);
/// assert_eq!(Duration::try_from(span)?, Duration::from_millis(90_500));
/// # Ok::<(), trunkline::value::TimeSpanError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpan(i64);

/// Error for a text that is not a duration, or for a duration that the target type cannot represent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a span of time: days.hours:minutes:seconds are needed, such as 1.02:03:04.5")]
pub struct TimeSpanError;

impl TimeSpan {
    /// Creates a duration from ticks of 100 ns.
    #[must_use]
    pub fn from_ticks(ticks: i64) -> Self {
        Self(ticks)
    }

    /// Number of ticks of 100 ns.
    #[must_use]
    pub fn ticks(self) -> i64 {
        self.0
    }
}

impl TryFrom<Duration> for TimeSpan {
    type Error = TimeSpanError;

    /// Converts a duration. Fractions of a tick are dropped.
    fn try_from(duration: Duration) -> Result<Self, TimeSpanError> {
        i64::try_from(duration.as_nanos() / u128::from(NANOS_PER_TICK)).map(Self).map_err(|_| TimeSpanError)
    }
}

impl TryFrom<TimeSpan> for Duration {
    type Error = TimeSpanError;

    fn try_from(span: TimeSpan) -> Result<Self, TimeSpanError> {
        let ticks = u64::try_from(span.0).map_err(|_| TimeSpanError)?;
        let fraction = Duration::from_nanos(ticks % TICKS_PER_SECOND * NANOS_PER_TICK);
        Ok(Duration::from_secs(ticks / TICKS_PER_SECOND) + fraction)
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, fraction) = (self.0.unsigned_abs() / TICKS_PER_SECOND, self.0.unsigned_abs() % TICKS_PER_SECOND);
        let (days, second) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
        f.write_str(if self.0 < 0 { "-" } else { "" })?;
        if days > 0 {
            write!(f, "{days}.")?;
        }
        write!(f, "{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)?;
        if fraction > 0 { write!(f, ".{fraction:0FRACTION$}") } else { Ok(()) }
    }
}

impl FromStr for TimeSpan {
    type Err = TimeSpanError;

    fn from_str(text: &str) -> Result<Self, TimeSpanError> {
        parse(text).map(Self).ok_or(TimeSpanError)
    }
}

/// Parses a text in .NET's culture-independent format. Returns ticks.
fn parse(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix('-');
    let (rest, second) = unsigned.unwrap_or(text).rsplit_once(':')?;
    let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
    let (rest, minute) = rest.split_once(':')?;
    let (day, hour) = rest.split_once('.').unwrap_or(("0", rest));
    let seconds =
        number(day)?.checked_mul(DAY_SECONDS)? + below(24, hour)? * 3600 + below(60, minute)? * 60 + below(60, second)?;
    let zeros = u32::try_from(FRACTION.checked_sub(fraction.len())?).ok()?;
    let ticks = seconds.checked_mul(TICKS_PER_SECOND)?.checked_add(number(fraction)? * 10_u64.pow(zeros))?;
    match unsigned {
        Some(_) => 0_i64.checked_sub_unsigned(ticks),
        None => i64::try_from(ticks).ok(),
    }
}

fn below(bound: u64, text: &str) -> Option<u64> {
    number(text).filter(|number| *number < bound)
}

/// Parses a number with at most eight digits, the maximum number of days.
fn number(text: &str) -> Option<u64> {
    let is_number = matches!(text.len(), 1..=8) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not with `is_human_readable`, which serde loses when it buffers for `flatten` and untagged enums.
        deserializer.deserialize_any(TextOrTicks)
    }
}

struct TextOrTicks;

impl Visitor<'_> for TextOrTicks {
    type Value = TimeSpan;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text of a span of time, or its ticks")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<TimeSpan, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, ticks: i64) -> Result<TimeSpan, E> {
        Ok(TimeSpan(ticks))
    }

    fn visit_u64<E: Error>(self, ticks: u64) -> Result<TimeSpan, E> {
        i64::try_from(ticks).map(TimeSpan).map_err(|_| E::custom(TimeSpanError))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_dotnet_are_written_and_read_back() {
        for (ticks, text) in [
            (0, "00:00:00"),
            (905_000_000, "00:01:30.5000000"),
            (-1, "-00:00:00.0000001"),
            (i64::MAX, "10675199.02:48:05.4775807"),
            (i64::MIN, "-10675199.02:48:05.4775808"),
        ] {
            assert_eq!(TimeSpan(ticks).to_string(), text);
            assert_eq!(text.parse(), Ok(TimeSpan(ticks)));
        }
        assert_eq!("1.2:3:4.5".parse(), Ok(TimeSpan(937_845_000_000)));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "1",
            "1:2",
            "24:00:00",
            "00:60:00",
            "00:00:60",
            "00:00:00.",
            "00:00:00.12345678",
            "--1:00:00",
            "+1:00:00",
            "10675199.02:48:05.4775808",
            "99999999.00:00:00",
            "a:b:c",
            "1.1.1:00:00",
            ":::",
        ] {
            assert_eq!(text.parse::<TimeSpan>(), Err(TimeSpanError), "{text}");
        }
    }

    #[test]
    fn standard_durations_round_trip() {
        let duration = Duration::new(5, 123_456_700);
        assert_eq!(TimeSpan::try_from(duration).map(Duration::try_from), Ok(Ok(duration)));
        assert!(TimeSpan::try_from(Duration::MAX).is_err());
        assert!(Duration::try_from(TimeSpan(-1)).is_err());
    }
}
