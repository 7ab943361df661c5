//! Findings of the checks: observations and recommended changes.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::shown_text::one_line;

/// Maximum length of a finding's text, because parts come from a server.
const TEXT_MAX_CHARS: usize = 900;

const EXCERPT_MAX_CHARS: usize = 160;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    Warning,
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    pub(super) seen: String,
    /// Recommended change; `None` if everything is fine.
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, seen: impl AsRef<str>) -> Self {
        Self { check, verdict: Verdict::Ok, seen: printable(seen.as_ref(), TEXT_MAX_CHARS), advice: None }
    }

    pub(super) fn warning(check: &'static str, seen: impl AsRef<str>, advice: impl AsRef<str>) -> Self {
        let advice = Some(printable(advice.as_ref(), TEXT_MAX_CHARS));
        Self { verdict: Verdict::Warning, advice, ..Self::ok(check, seen) }
    }

    pub(super) fn failed(check: &'static str, seen: impl AsRef<str>, advice: impl AsRef<str>) -> Self {
        Self { verdict: Verdict::Failed, ..Self::warning(check, seen, advice) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:<20} {}", self.verdict, self.check, self.seen)?;
        self.advice.as_ref().map_or(Ok(()), |advice| write!(f, "\n{:29} -> {advice}", ""))
    }
}

pub(super) fn excerpt(bytes: &[u8]) -> String {
    match printable(String::from_utf8_lossy(bytes).trim(), EXCERPT_MAX_CHARS) {
        text if text.is_empty() => "nothing".into(),
        text => format!("\"{text}\""),
    }
}

pub(super) fn milliseconds_text(duration: Duration) -> String {
    match duration.as_secs_f64() * 1000.0 {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.0} s", ms / 1000.0),
    }
}

pub(super) fn median(durations: impl IntoIterator<Item = Duration>) -> Option<Duration> {
    let mut all: Vec<_> = durations.into_iter().collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied()
}

/// Shortens a text and removes terminal control characters.
fn printable(text: &str, most: usize) -> String {
    let mut shown: String = one_line(text).chars().take(most).collect();
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_its_advice_another() {
        assert_eq!(Finding::ok("clock", "fits").to_string(), "ok       clock                fits");
        let text = Finding::failed("tls", "it has ended", "renew it").to_string();
        assert_eq!(text, format!("failed   tls                  it has ended\n{} -> renew it", " ".repeat(29)));
    }

    #[test]
    fn text_of_a_server_is_shortened_and_moves_no_cursor() {
        assert_eq!(excerpt(b"\x1b[2J<html>\n"), "\"\u{fffd}[2J<html>\"");
        assert_eq!(excerpt(b" \n"), "nothing");
        assert_eq!(excerpt(&[b'x'; 5000]).chars().count(), EXCERPT_MAX_CHARS + 3);
        assert_eq!(Finding::ok("x", "y".repeat(5000)).seen.chars().count(), TEXT_MAX_CHARS + 1);
    }

    #[test]
    fn durations_are_shown_as_exactly_as_they_matter() {
        let texts = [Duration::from_micros(1540), Duration::from_millis(203), Duration::from_secs(12)];
        assert_eq!(texts.map(milliseconds_text), ["1.5 ms", "203 ms", "12 s"]);
        assert_eq!(median([3, 1, 2].map(Duration::from_secs)), Some(Duration::from_secs(2)));
        assert_eq!(median([]), None);
    }
}
