//! Words: doc comments, widths of comments, and reasons of sleeps.

use crate::source::{Crate, Kind, SourceFile};
use crate::violation::Violation;

/// Maximum number of words of a doc comment that only repeats its name.
pub(crate) const SHORT_WORDS: usize = 3;

/// Maximum columns of a comment line, as for code.
const COMMENT_COLUMNS: usize = 120;

/// Mark of the reason for a sleep, on its line or the line above.
const SLEEP_MARK: &str = "// sleep:";

/// Checks that doc comments have more than three words.
pub(crate) fn short_docs(krate: &Crate) -> Vec<Violation> {
    let short = |text: &str| words(text) <= SHORT_WORDS;
    docs(krate, short, |text| format!("the doc comment \"{}\" says too little", text.trim()))
}

/// Checks the width of comment lines, except in fenced blocks and tables, and of single long words.
pub(crate) fn wide_comments(krate: &Crate) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in &krate.files {
        let mut is_block = false;
        for (number, line) in (1..).zip(file.text.lines()) {
            let Some(comment) = line.trim_start().strip_prefix("//") else {
                is_block = false;
                continue;
            };
            let text = comment.trim_start_matches(['/', '!']).trim();
            is_block ^= text.starts_with("```");
            let can_be_cut = text.contains(' ') && !text.starts_with('|');
            let columns = line.chars().count();
            if columns > COMMENT_COLUMNS && can_be_cut && !is_block {
                violations.push(Violation::new(file, number, format!("a line of a comment has {columns} columns")));
            }
        }
    }
    violations
}

/// Checks that each sleep of a test has a reason.
pub(crate) fn sleeps(krate: &Crate) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in &krate.files {
        let lines: Vec<_> = file.text.lines().collect();
        let has_reason = |line: usize| {
            let near = [line.checked_sub(1), line.checked_sub(2)].into_iter().flatten().filter_map(|at| lines.get(at));
            near.into_iter().any(|line| line.split_once(SLEEP_MARK).is_some_and(|(_, reason)| words(reason) > 1))
        };
        for place in file.facts.sleeps.iter().filter(|place| place.is_test && !has_reason(place.line)) {
            violations.push(Violation::new(file, place.line, "a test sleeps".into()));
        }
    }
    violations
}

/// The only crate that may contain unsafe code.
const UNSAFE_CRATE: &str = "proxy/vectored";

/// Checks that the root of a library or program forbids unsafe code.
pub(crate) fn unsafe_code(krate: &Crate) -> Vec<Violation> {
    let is_bound = !matches!(krate.kind, Kind::Test | Kind::Example) && krate.name != UNSAFE_CRATE;
    let root = krate.files.first().filter(|root| is_bound && !root.facts.forbids_unsafe);
    root.map(|root| Violation::new(root, 1, "the crate root does not forbid unsafe code".into())).into_iter().collect()
}

fn docs(krate: &Crate, is_bad: impl Fn(&str) -> bool, describe: impl Fn(&str) -> String) -> Vec<Violation> {
    let docs = krate.files.iter().flat_map(|file| file.facts.docs.iter().map(move |doc| (file, doc)));
    let bad = docs.filter(|(_, doc)| is_bad(&doc.text));
    bad.map(|(file, doc): (&SourceFile, _)| Violation::new(file, doc.line, describe(&doc.text))).collect()
}

fn words(text: &str) -> usize {
    text.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric)).count()
}
