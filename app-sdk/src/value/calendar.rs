//! Timestamps as ISO 8601 text: the proleptic Gregorian calendar in UTC, without leap seconds.
//!
//! Our own implementation, because JavaScript and .NET dates have years that small crates do not support, and large
//! crates bring time zones. The algorithms are Howard Hinnant's
//! (<https://howardhinnant.github.io/date_algorithms.html>).

use std::fmt;

const DAY_SECONDS: i64 = 86_400;
/// Period after which the calendar repeats, in years and in days.
const ERA_YEARS: i64 = 400;
const ERA_DAYS: i64 = 146_097;
/// Days from 1 March of year 0, where eras begin, to 1 January 1970.
const DAYS_TO_1970: i64 = 719_468;

/// Formats date and time without a zone. The fraction is as long as needed.
pub(super) fn write(f: &mut fmt::Formatter<'_>, seconds: i64, nanos: u32) -> fmt::Result {
    let (year, month, day) = date(seconds.div_euclid(DAY_SECONDS));
    // Same format as JavaScript for years before 0 or above 9999.
    match year {
        0..=9999 => write!(f, "{year:04}")?,
        _ => write!(f, "{}{:06}", if year < 0 { '-' } else { '+' }, year.abs())?,
    }
    let second = seconds.rem_euclid(DAY_SECONDS);
    write!(f, "-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)?;
    if nanos != 0 {
        write!(f, ".{}", format!("{nanos:09}").trim_end_matches('0'))?;
    }
    Ok(())
}

/// Offset from UTC in minutes, from the zone at the end of the text; 0 without a zone.
pub(super) fn offset_minutes(text: &str) -> i16 {
    let time = text.find(['T', ' ']).and_then(|at| text.get(at..)).unwrap_or_default();
    let zone = time.find(['+', '-']).and_then(|at| time.get(at..)).unwrap_or_default();
    Text(zone.as_bytes()).zone_minutes().and_then(|minutes| i16::try_from(minutes).ok()).unwrap_or_default()
}

/// Parses a timestamp. Without a zone, UTC is assumed. Digits beyond nanoseconds are ignored.
pub(super) fn parse_iso_8601(text: &str) -> Option<(i64, u32)> {
    let mut text = Text(text.as_bytes());
    let year = match text.sign() {
        Some(sign) => sign * text.number(6)?,
        None => text.number(4)?,
    };
    text.literal(b'-')?;
    let month = text.number(2)?;
    text.literal(b'-')?;
    let days = day_number(year, month, text.number(2)?)?;
    let (mut seconds, mut nanos) = (days * DAY_SECONDS, 0);
    if text.literal(b'T').or_else(|| text.literal(b' ')).is_some() {
        seconds += text.clock()? * 60;
        if text.literal(b':').is_some() {
            seconds += text.number(2).filter(|second| *second < 60)?;
            nanos = text.fraction()?;
        }
        seconds -= text.zone_minutes()? * 60;
    }
    text.0.is_empty().then_some((seconds, nanos))
}

fn date(day: i64) -> (i64, i64, i64) {
    let day = day + DAYS_TO_1970;
    let (era, day) = (day.div_euclid(ERA_DAYS), day.rem_euclid(ERA_DAYS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months are counted from March, so that the leap day is the last day of the year.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * ERA_YEARS + year + next, month, day)
}

/// Day number relative to 1 January 1970; `None` for an invalid date.
fn day_number(year: i64, month: i64, day: i64) -> Option<i64> {
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, in_era) = (shifted_year.div_euclid(ERA_YEARS), shifted_year.rem_euclid(ERA_YEARS));
    let in_year = (153 * shifted_month + 2) / 5 + day - 1;
    let number = era * ERA_DAYS + in_era * 365 + in_era / 4 - in_era / 100 + in_year - DAYS_TO_1970;
    (date(number) == (year, month, day)).then_some(number)
}

struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn literal(&mut self, wanted: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[wanted])?;
        Some(())
    }

    fn sign(&mut self) -> Option<i64> {
        self.literal(b'+').map(|()| 1).or_else(|| self.literal(b'-').map(|()| -1))
    }

    /// Parses a number with exactly `digits` digits.
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (head, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        head.iter().try_fold(0, |number, &digit| Some(number * 10 + i64::from(as_digit(digit)?)))
    }

    /// Parses hours and minutes. Returns minutes.
    fn clock(&mut self) -> Option<i64> {
        let hours = self.number(2).filter(|hour| *hour < 24)?;
        // The colon is optional in offsets.
        let _ = self.literal(b':');
        Some(hours * 60 + self.number(2).filter(|minute| *minute < 60)?)
    }

    /// Parses an optional fraction as nanoseconds.
    fn fraction(&mut self) -> Option<u32> {
        if self.literal(b'.').is_none() {
            return Some(0);
        }
        let length = self.0.iter().take_while(|digit| as_digit(**digit).is_some()).count();
        let (digits, rest) = self.0.split_at_checked(length).filter(|(digits, _)| !digits.is_empty())?;
        self.0 = rest;
        let padded = digits.iter().copied().chain(std::iter::repeat(b'0')).take(9);
        padded.map(as_digit).try_fold(0, |nanos, digit| Some(nanos * 10 + digit?))
    }

    fn zone_minutes(&mut self) -> Option<i64> {
        if self.0.is_empty() || self.literal(b'Z').is_some() {
            return Some(0);
        }
        Some(self.sign()? * self.clock()?)
    }
}

fn as_digit(byte: u8) -> Option<u32> {
    char::from(byte).to_digit(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_javascript_and_dotnet_are_read() {
        let at = 946_684_800;
        for (text, moment) in [
            ("2000-01-01T00:00:00.000Z", (at, 0)),
            ("2000-01-01T00:00:00", (at, 0)),
            ("2000-01-01", (at, 0)),
            ("2000-01-01T00:00Z", (at, 0)),
            ("2000-01-01T02:30:00+02:30", (at, 0)),
            ("1999-12-31T22:00:00.5-0200", (at, 500_000_000)),
            ("2000-01-01T00:00:00.1234567+00:00", (at, 123_456_700)),
            ("2000-01-01T00:00:00.1234567899Z", (at, 123_456_789)),
            ("+002000-01-01T00:00:00Z", (at, 0)),
            ("-000001-12-31T23:59:59Z", (-62_167_219_201, 0)),
            ("9999-12-31T23:59:59Z", (253_402_300_799, 0)),
        ] {
            assert_eq!(parse_iso_8601(text), Some(moment), "{text}");
        }
    }

    #[test]
    fn malformed_timestamps_are_refused() {
        for text in [
            "",
            "2000",
            "2000-13-01",
            "2000-00-01",
            "2001-02-29",
            "1900-02-29",
            "2000-04-31",
            "2000-01-00",
            "2000-01-01T24:00:00Z",
            "2000-01-01T00:60:00Z",
            "2000-01-01T00:00:60Z",
            "2000-01-01T00:00:00.Z",
            "2000-01-01T00:00:00X",
            "2000-01-01T00:00:00Z ",
            "20000-01-01",
            "２０００-01-01",
        ] {
            assert_eq!(parse_iso_8601(text), None, "{text}");
        }
    }

    #[test]
    fn days_round_trip_through_dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(day_number(2000, 2, 29), Some(11_016));
        assert_eq!(date(-719_162), (1, 1, 1));
        for day in (-800_000..800_000).step_by(17) {
            let (year, month, day_of_month) = date(day);
            assert_eq!(day_number(year, month, day_of_month), Some(day));
        }
    }
}
