//! Durations, sizes and counts in human-readable form: `30s`, `5m`, `16MiB`.

use std::time::Duration;

use anyhow::anyhow;
use bytesize::ByteSize;

/// Units for formatting durations, largest first.
const DURATION_UNITS: [(&str, u64); 3] = [("h", 3600), ("m", 60), ("s", 1)];

/// Units for formatting sizes. The first unit that divides a size is used.
const SIZE_UNITS: [(&str, u64); 5] =
    [("GiB", 1024 * 1024 * 1024), ("MiB", 1024 * 1024), ("KiB", 1024), ("GB", 1_000_000_000), ("MB", 1_000_000)];

/// Default unit of a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BareUnit {
    Seconds,
    Milliseconds,
}

pub(crate) fn parse_duration(text: &str, bare: BareUnit) -> anyhow::Result<Duration> {
    let (of_bare, name): (fn(u64) -> Duration, _) = match bare {
        BareUnit::Seconds => (Duration::from_secs, "seconds"),
        BareUnit::Milliseconds => (Duration::from_millis, "milliseconds"),
    };
    match text.trim().parse() {
        Ok(number) => Ok(of_bare(number)),
        Err(_) => humantime::parse_duration(text).map_err(|error| {
            anyhow!("not a duration ({error}): write 500ms, 30s, 5m or 1h, for example; a bare number is in {name}")
        }),
    }
}

pub(crate) fn parse_size(text: &str) -> anyhow::Result<u64> {
    let size = text.trim().parse::<ByteSize>().map(|size| size.as_u64());
    size.map_err(|_| anyhow!("not a size: write 64KiB, 16MiB or 1MB, for example; a bare number is in bytes"))
}

/// Formats a duration with the largest unit that divides it.
pub(crate) fn duration_text(duration: Duration) -> String {
    let (seconds, ms) = (duration.as_secs(), duration.as_millis());
    match duration.subsec_nanos() {
        0 if seconds == 0 => "0s".into(),
        0 => with_unit(seconds, &DURATION_UNITS),
        _ if Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)) == duration => format!("{ms}ms"),
        _ => humantime::format_duration(duration).to_string(),
    }
}

/// Formats a size with the largest unit that divides it, or as a number of bytes.
pub(crate) fn size_text(bytes: u64) -> String {
    with_unit(bytes, &SIZE_UNITS)
}

/// Formats a number of things, such as `1 node` or `2 nodes`.
pub(crate) fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

fn with_unit(number: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().find(|(_, factor)| number >= *factor && number.is_multiple_of(*factor));
    unit.map_or_else(|| number.to_string(), |(unit, factor)| format!("{}{unit}", number / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Result<Duration, String> {
        parse_duration(text, BareUnit::Seconds).map_err(|error| error.to_string())
    }

    #[test]
    fn durations_have_units_and_bare_numbers_the_unit_of_their_option() {
        let examples =
            [("30s", 30_000), ("5m", 300_000), ("1h30m", 5_400_000), ("500ms", 500), ("1.5s", 1500), ("90", 90_000)];
        for (text, ms) in examples {
            assert_eq!(seconds(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse_duration("90", BareUnit::Milliseconds).unwrap(), Duration::from_millis(90));
    }

    #[test]
    fn sizes_have_binary_and_decimal_units_and_bare_numbers_are_bytes() {
        let examples = [
            ("64KiB", 65_536),
            ("16 MiB", 16_777_216),
            ("1MB", 1_000_000),
            ("1.5KiB", 1536),
            ("4096", 4096),
            ("7B", 7),
        ];
        for (text, bytes) in examples {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn an_error_names_the_problem_and_gives_examples() {
        assert_eq!(
            seconds("5parsecs").unwrap_err(),
            "not a duration (unknown time unit \"parsecs\", supported units: ns, us/µs, ms, sec, min, hours, days, weeks, \
             months, years (and few variations)): write 500ms, 30s, 5m or 1h, for example; a bare number is in seconds"
        );
        for wrong in ["", "s", "-5", "5 5", "1..5s", "99999999999999999999h"] {
            assert!(seconds(wrong).unwrap_err().contains("30s"), "{wrong}");
        }
        for wrong in ["", "KiB", "-5", "5 5", "1..5MB", "5 miles"] {
            assert!(parse_size(wrong).unwrap_err().to_string().contains("64KiB"), "{wrong}");
        }
    }

    #[test]
    fn quantities_round_trip() {
        let durations =
            [(0, "0s"), (250, "250ms"), (1500, "1500ms"), (90_000, "90s"), (300_000, "5m"), (86_400_000, "24h")];
        for (ms, text) in durations {
            let duration = Duration::from_millis(ms);
            assert_eq!((duration_text(duration).as_str(), seconds(text)), (text, Ok(duration)));
        }
        let odd = Duration::from_nanos(1_000_001);
        assert_eq!(seconds(&duration_text(odd)), Ok(odd));
        let sizes =
            [(0, "0"), (1000, "1000"), (8192, "8KiB"), (16 << 20, "16MiB"), (30_000_000, "30MB"), (1 << 30, "1GiB")];
        for (bytes, text) in sizes {
            assert_eq!((size_text(bytes).as_str(), parse_size(text).unwrap()), (text, bytes));
        }
    }
}
