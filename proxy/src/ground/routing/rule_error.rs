//! Errors of rules in a configuration file: the problem, the allowed values, the position and a similar name.

use std::fmt;
use std::path::PathBuf;

use trunkline_protocol::key::AccessKeyError;
use trunkline_protocol::pattern::PatternError;

use crate::ground::auth::key::KeyError;

/// Error in a rule, with its position.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct RuleError {
    pub place: TextPlace,
    pub(crate) problem: RuleProblem,
}

impl RuleError {
    pub(super) fn new(text: &str, fault: Fault) -> Self {
        Self { place: TextPlace::new(text, fault.at), problem: fault.problem }
    }
}

/// Error of an unusable rules file. Its text includes the cause, which error chains would repeat as a source.
#[derive(Debug, thiserror::Error)]
pub enum RuleFileError {
    #[error("{path} can't be read ({cause})")]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("{path}, {cause}")]
    Rules { path: PathBuf, cause: RuleError },
}

#[derive(Debug)]
pub(super) struct Fault {
    pub at: usize,
    pub problem: RuleProblem,
}

/// Problem with a rule; the text states what is allowed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuleProblem {
    #[error("{0}")]
    Syntax(String),
    #[error("the file has more than {most} bytes, the limit for rules")]
    FileTooLarge { most: usize },
    #[error("unknown key {key:?} in {table}{}; allowed: {allowed}", suggestion(.nearest.as_deref()))]
    UnknownKey { key: String, table: &'static str, nearest: Option<String>, allowed: String },
    #[error("{table} has no {key}: {advice}")]
    Missing { table: &'static str, key: &'static str, advice: &'static str },
    #[error("{key} is {found}, but must be {wanted}")]
    Kind { key: &'static str, found: &'static str, wanted: &'static str },
    #[error("{key} is {found}, but must be from {least} to {most}")]
    Range { key: &'static str, found: String, least: String, most: String },
    #[error("{key} is {found:?}, but must be {wanted}")]
    Choice { key: &'static str, found: String, wanted: &'static str },
    #[error("{key} has {count} entries, but may have at most {most}")]
    TooMany { key: &'static str, count: usize, most: usize },
    #[error("{key} is an empty list: {advice}")]
    EmptyList { key: &'static str, advice: &'static str },
    #[error("{key} has {bytes} bytes, but may have at most {most}")]
    TooLong { key: &'static str, bytes: usize, most: usize },
    #[error("{key} {text:?} {source}")]
    Pattern { key: &'static str, text: String, source: PatternError },
    #[error("{key} {text:?} {problem}")]
    Address { key: &'static str, text: String, problem: &'static str },
    #[error("{key} {text:?} is not an upstream of this group; weights are only for addresses in `upstream`")]
    StrangeWeight { key: &'static str, text: String },
    #[error("address {text:?} is neither an address like 10.1.2.3 or ::1 nor a network like 10.0.0.0/8")]
    Network { text: String },
    #[error("{key} {text:?} must have 1 to {most} letters, digits, '-', '_' and '.'")]
    Name { key: &'static str, text: String, most: usize },
    #[error("{key} {text:?} is used twice; each needs its own name")]
    Duplicate { key: &'static str, text: String },
    #[error("there is no group {name:?}{}; give its app servers in [groups.{name}]", suggestion(.nearest.as_deref()))]
    UnknownGroup { name: String, nearest: Option<String> },
    #[error(
        "group {name:?} is used by a route or message rule, but a mirror discards its answers: give the mirror a \
         separate group"
    )]
    MirrorOfServingGroup { name: String },
    #[error("a route needs exactly one of group, reject and next = true, but this one has {found}")]
    Action { found: String },
    #[error("{key} has no meaning without {needed}")]
    Alone { key: &'static str, needed: &'static str },
    #[error("{key} and {other} exclude each other")]
    Exclusive { key: &'static str, other: &'static str },
    #[error("a condition about {key} needs exactly one of equals, prefix and present, but this one has {found}")]
    Operator { key: &'static str, found: String },
    #[error("{table} is empty: {advice}")]
    Empty { table: &'static str, advice: &'static str },
    #[error("[groups.default] has no {key}: its app servers are those of `{flag}` at the top of the file")]
    DefaultGroup { key: &'static str, flag: &'static str },
    #[error("{key} {path} can't be read ({source})")]
    File { key: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{key} names a file of more than {most} bytes")]
    NamedFileTooLarge { key: &'static str, most: usize },
    #[error("{key}: {source}")]
    Key { key: &'static str, source: AccessKeyError },
    #[error("{key} is not possible at a webhook hub: {reason}")]
    Impossible { key: &'static str, reason: &'static str },
    #[error("{key}: {problem}")]
    Header { key: &'static str, problem: String },
    #[error("the key of app {app:?}: {problem}")]
    AppKey { app: String, problem: String },
    #[error("a key of issuer {issuer:?} {source}")]
    IssuerKey { issuer: String, source: KeyError },
    #[error("the key set of issuer {issuer:?}: {problem}")]
    IssuerJwks { issuer: String, problem: String },
    #[error("the hubs of issuer {issuer:?}: {problem}")]
    IssuerHubs { issuer: String, problem: String },
}

impl RuleProblem {
    /// Attaches a byte offset to the problem.
    pub(super) fn at(self, at: usize) -> Fault {
        Fault { at, problem: self }
    }
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; is {nearest:?} meant?")).unwrap_or_default()
}

/// Position in a text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextPlace {
    /// Line of the file, from 1.
    pub line: usize,
    /// Character of the line, from 1.
    pub column: usize,
}

impl TextPlace {
    /// Position of a byte of the text.
    #[must_use]
    pub fn new(text: &str, at: usize) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        Self { line: before.matches('\n').count() + 1, column }
    }
}

impl fmt::Display for TextPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Minimum similarity (Jaro-Winkler) for suggesting a known name.
const LIKENESS: f64 = 0.7;

/// Returns the known name most similar to an unknown one, if any is similar.
#[must_use]
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let likeness = |name: &str| strsim::jaro_winkler(name, unknown);
    let best = known.max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(best) >= LIKENESS).then(|| best.to_owned())
}
