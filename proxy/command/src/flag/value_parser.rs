//! Parsers of flag values. The text of an error continues a sentence of clap that names the flag and the value.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{anyhow, bail};
use trunkline_protocol::json_text::JsonText;

use crate::quantity::{BareUnit, duration_text, parse_duration, parse_size, size_text};

/// Parser of a duration in a range of seconds. A number without a unit means seconds.
pub(crate) fn seconds(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> anyhow::Result<Duration> + Clone + Send + Sync + 'static {
    let (least, most) = (Duration::from_secs(*range.start()), Duration::from_secs(*range.end()));
    move |text| in_range(parse_duration(text, BareUnit::Seconds)?, &(least..=most))
}

/// Parser of a duration in a range of milliseconds. A number without a unit means milliseconds.
pub(crate) fn milliseconds(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> anyhow::Result<Duration> + Clone + Send + Sync + 'static {
    let (least, most) = (Duration::from_millis(*range.start()), Duration::from_millis(*range.end()));
    move |text| in_range(parse_duration(text, BareUnit::Milliseconds)?, &(least..=most))
}

pub(crate) fn whole_seconds<T: TryFrom<u64> + 'static>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> anyhow::Result<T> + Clone + Send + Sync + 'static {
    let parse = seconds(range.clone());
    move |text| {
        let duration = parse(text)?;
        if duration.subsec_nanos() > 0 {
            bail!("must be in whole seconds, such as 2s");
        }
        T::try_from(duration.as_secs()).map_err(|_| outside(&range, |end| duration_text(Duration::from_secs(*end))))
    }
}

pub(crate) fn bytes<T: TryFrom<u64> + 'static>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> anyhow::Result<T> + Clone + Send + Sync + 'static {
    move |text| {
        let size = parse_size(text)?;
        let fits = T::try_from(size).ok().filter(|_| range.contains(&size));
        fits.ok_or_else(|| match (*range.start(), *range.end()) {
            (least, u64::MAX) => anyhow!("must be at least {}", size_text(least)),
            _ => outside(&range, |end| size_text(*end)),
        })
    }
}

/// Parses a limit in bytes with a minimum; 0 means unlimited.
pub(crate) fn bytes_limit(least: u64, text: &str) -> anyhow::Result<u64> {
    match parse_size(text)? {
        0 => Ok(u64::MAX),
        size if size < least => bail!("must be 0, for no limit, or at least {}", size_text(least)),
        size => Ok(size),
    }
}

/// Parses a number in a range, with the error texts of clap's own parsers.
pub(crate) fn count(text: &str, range: &RangeInclusive<u64>) -> anyhow::Result<u64> {
    let number = text.parse::<i128>()?;
    let fits = u64::try_from(number).ok().filter(|number| range.contains(number));
    fits.ok_or_else(|| match (*range.start(), *range.end()) {
        (least, u64::MAX) => anyhow!("must be at least {least}"),
        (least, most) => anyhow!("{number} is not in {least}..={most}"),
    })
}

pub(crate) fn json_list(text: &str) -> Result<JsonText, String> {
    let example = "must be a JSON list, such as '[\"text\", 5]'";
    match serde_json::from_str::<JsonText>(text) {
        Ok(list) if list.value().is_array() => Ok(list),
        Ok(_) => Err(example.into()),
        Err(error) => Err(format!("{example}: {error}")),
    }
}

pub(crate) fn bytes_text(bytes: usize) -> String {
    size_text(u64::try_from(bytes).unwrap_or(u64::MAX))
}

fn in_range(duration: Duration, range: &RangeInclusive<Duration>) -> anyhow::Result<Duration> {
    if range.contains(&duration) { Ok(duration) } else { Err(outside(range, |end| duration_text(*end))) }
}

fn outside<T>(range: &RangeInclusive<T>, text: impl Fn(&T) -> String) -> anyhow::Error {
    anyhow!("must be from {} to {}", text(range.start()), text(range.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem<T>(result: anyhow::Result<T>) -> Option<String> {
        result.err().map(|error| error.to_string())
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_the_range_as_people_write_it() {
        assert_eq!(seconds(1..=3600)("1h").unwrap(), Duration::from_secs(3600));
        assert_eq!(problem(seconds(1..=3600)("61m")).unwrap(), "must be from 1s to 1h");
        assert_eq!(problem(seconds(1..=3600)("500ms")).unwrap(), "must be from 1s to 1h");
        assert_eq!(milliseconds(0..=60_000)("250").unwrap(), Duration::from_millis(250));
        assert_eq!(problem(milliseconds(0..=60_000)("2m")).unwrap(), "must be from 0s to 1m");
        assert_eq!(bytes::<u16>(256..=24 * 1024)("24KiB").unwrap(), 24 * 1024);
        assert_eq!(problem(bytes::<u16>(256..=24 * 1024)("24kb")), None);
        assert_eq!(problem(bytes::<u16>(256..=24 * 1024)("1MiB")).unwrap(), "must be from 256 to 24KiB");
        assert_eq!(problem(bytes::<u64>(4096..=u64::MAX)("1KiB")).unwrap(), "must be at least 4KiB");
    }

    #[test]
    fn a_number_that_is_counted_in_whole_seconds_takes_no_parts_of_one() {
        assert_eq!(whole_seconds::<u32>(0..=3600)("2m").unwrap(), 120);
        assert_eq!(problem(whole_seconds::<u32>(0..=3600)("1500ms")).unwrap(), "must be in whole seconds, such as 2s");
    }

    #[test]
    fn a_limit_of_zero_bytes_means_no_limit_and_a_tiny_one_is_refused() {
        assert_eq!(bytes_limit(4096, "0").unwrap(), u64::MAX);
        assert_eq!(bytes_limit(4096, "1MiB").unwrap(), 1 << 20);
        assert_eq!(problem(bytes_limit(4096, "1")).unwrap(), "must be 0, for no limit, or at least 4KiB");
    }

    #[test]
    fn a_number_out_of_range_is_refused_as_clap_does() {
        assert_eq!(count("7", &(1..=10)).unwrap(), 7);
        assert_eq!(problem(count("-1", &(0..=10))).unwrap(), "-1 is not in 0..=10");
        assert_eq!(problem(count("0", &(1..=u64::MAX))).unwrap(), "must be at least 1");
        assert_eq!(problem(count("x", &(0..=10))).unwrap(), "invalid digit found in string");
    }
}
