//! Human-readable report of a replay: counts, then the first differences. Pure.

use std::fmt::Write;

use super::answer_ledger::{Answer, Difference, Tally};
use super::player::ReplayOutcome;
use crate::shown_text::one_line;

/// Characters shown on each side of a value's first difference.
const SHOWN_CHARS: usize = 80;

/// Whether the report shows values, which may be secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    Hidden,
    Shown,
}

pub(super) fn report(outcome: &ReplayOutcome, values: Values) -> String {
    let ReplayOutcome { tally, differences, .. } = outcome;
    let mut text = counts(outcome);
    notes(outcome, &mut text);
    for difference in differences {
        line_of(difference, values, &mut text);
    }
    let more = tally.wrong().saturating_sub(differences.len() as u64);
    if more > 0 {
        // Writing to a string can't fail.
        let _ = writeln!(text, "and {more} more: see --differences");
    }
    text
}

fn counts(outcome: &ReplayOutcome) -> String {
    let ReplayOutcome { tally, connections, sent, .. } = outcome;
    let Tally { equal, different, missing, surplus, not_compared, .. } = tally;
    let compared = equal + different;
    format!(
        "connections: {connections}, messages sent: {sent}, answers compared: {compared}: {equal} equal, {different} \
         differ, {missing} missing, {surplus} surplus, {not_compared} not compared\n"
    )
}

fn notes(outcome: &ReplayOutcome, text: &mut String) {
    for (count, note) in [
        (outcome.tally.reordered, "equal answers in a different order"),
        (outcome.sent_without_secrets, "messages sent without their secrets, whose answers may differ"),
        (outcome.unsent, "messages not sent, because their connection is missing or they were recorded incompletely"),
        (outcome.opened_anew, "reopened connections that were open before the recording"),
        (outcome.lost, "messages missing in the recording, because they exceeded the limit of the node"),
    ] {
        if count > 0 {
            let _ = writeln!(text, "note: {note}: {count}");
        }
    }
}

fn line_of(difference: &Difference, values: Values, text: &mut String) {
    let Difference { connection, expected, received, method } = difference;
    let named = |answer| named(answer, method.as_deref());
    let at = difference.first_byte();
    let _ = match (expected, received) {
        (Some(expected), Some(_)) => {
            let (line, length) = (expected.line, length(expected));
            let at = at.unwrap_or_default();
            writeln!(text, "differs: {} of {connection}, line {line}: byte {} of {length}", named(expected), at + 1)
        }
        (Some(expected), None) => {
            writeln!(text, "missing: {} of {connection}, line {}", named(expected), expected.line)
        }
        (None, Some(received)) => {
            writeln!(text, "surplus: {} of {connection}, {} bytes", named(received), length(received))
        }
        (None, None) => Ok(()),
    };
    if values == Values::Shown {
        for (side, answer) in [("recorded", expected), ("received", received)] {
            if let Some(bytes) = answer.as_ref().and_then(|answer| answer.bytes.as_ref()) {
                let _ = writeln!(text, "  {side}: {}", shown(bytes, at.unwrap_or_default()));
            }
        }
    }
}

/// Describes an answer by its kind and the called method.
fn named(answer: &Answer, method: Option<&str>) -> String {
    let name = &answer.name;
    let mut text = one_line(&name.kind).into_owned();
    if let Some(target) = &name.target {
        let _ = write!(text, " {target:?}");
    }
    if let Some(method) = method {
        let _ = write!(text, " to {method:?}");
    }
    if let Some(id) = &name.invocation_id {
        let _ = write!(text, " (invocation {})", one_line(id));
    }
    text
}

fn length(answer: &Answer) -> usize {
    answer.bytes.as_ref().map_or(0, |bytes| bytes.len())
}

/// Part of a value around a byte, without terminal control characters.
fn shown(bytes: &[u8], at: usize) -> String {
    let (from, to) = (at.saturating_sub(SHOWN_CHARS), (at + SHOWN_CHARS).min(bytes.len()));
    let part = String::from_utf8_lossy(bytes.get(from..to).unwrap_or_default());
    let part: String = part.chars().flat_map(|char| char.escape_debug()).collect();
    let begin = if from > 0 { "…" } else { "" };
    let end = if to < bytes.len() { "…" } else { "" };
    format!("{begin}{part}{end}")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::replay_command::answer_ledger::AnswerName;

    fn answer(text: &str, line: u64) -> Option<Answer> {
        let (target, invocation_id) = (Some("Say".into()), Some("3".into()));
        let name = AnswerName { kind: "invocation".into(), target, invocation_id };
        Some(Answer { name, bytes: Some(Bytes::copy_from_slice(text.as_bytes())), line })
    }

    fn outcome() -> ReplayOutcome {
        let difference = |expected, received| Difference { connection: "c1".into(), expected, received, method: None };
        ReplayOutcome {
            tally: Tally { equal: 5, different: 1, missing: 1, surplus: 7, not_compared: 2, reordered: 0 },
            differences: vec![
                difference(answer("total 10", 4), answer("total 12\u{1b}[2J", 0)),
                difference(answer("x", 5), None),
                difference(None, answer("xyz", 0)),
            ],
            connections: 2,
            sent: 9,
            lost: 3,
            ..ReplayOutcome::default()
        }
    }

    #[test]
    fn counts_are_first_and_each_difference_is_listed_without_values() {
        let expected = "\
connections: 2, messages sent: 9, answers compared: 6: 5 equal, 1 differ, 1 missing, 7 surplus, 2 not compared
note: messages missing in the recording, because they exceeded the limit of the node: 3
differs: invocation \"Say\" (invocation 3) of c1, line 4: byte 8 of 8
missing: invocation \"Say\" (invocation 3) of c1, line 5
surplus: invocation \"Say\" (invocation 3) of c1, 3 bytes
and 6 more: see --differences
";
        assert_eq!(report(&outcome(), Values::Hidden), expected);
    }

    #[test]
    fn a_difference_names_its_method() {
        let name = AnswerName { kind: "completion".into(), target: None, invocation_id: Some("7".into()) };
        let answer = Answer { name, bytes: None, line: 1 };
        assert_eq!(named(&answer, Some("Total")), "completion to \"Total\" (invocation 7)");
        assert_eq!(named(&answer, None), "completion (invocation 7)");
    }

    #[test]
    fn values_are_shown_on_request_around_the_first_difference_and_escaped() {
        let text = report(&outcome(), Values::Shown);
        assert!(text.contains("  recorded: total 10\n  received: total 12\\u{1b}[2J\n"), "{text}");
        let long = "a".repeat(500);
        assert_eq!(shown(long.as_bytes(), 250).chars().count(), 2 * SHOWN_CHARS + 2);
    }
}
