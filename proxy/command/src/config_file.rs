//! Configuration file: TOML whose keys are the names of the flags of `trunkline serve`.
//!
//! Values of the file become defaults of the flags. So flags and environment variables win over it, values are checked
//! like flags, and a new flag is a key without further code. The tables of [`RULE_TABLES`] hold rules, which `routing`
//! reads.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use toml::de::DeTable;
use toml::{Table, Value};
use trunkline_proxy::parts::{RULE_TABLES, TextPlace, nearest};

/// Error for a configuration file that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FileError {
    #[error("--config {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    /// Without the line that it is in, which may hold a secret.
    #[error("{path}, {place}: this is no TOML: {problem}")]
    Syntax { path: PathBuf, place: TextPlace, problem: String },
    #[error("{path}, {place}: there is no key {key:?}{}", suggestion(nearest))]
    UnknownKey {
        path: PathBuf,
        place: TextPlace,
        key: String,
        /// Existing key that is most like it.
        nearest: Option<String>,
    },
    /// Value of a type that the flag does not take.
    #[error("{path}, {place}: {key} is {found}, but must be {wanted}")]
    Kind { path: PathBuf, place: TextPlace, key: String, found: &'static str, wanted: &'static str },
    /// Value that the flag does not take; the problem names the flag.
    #[error("{path}, {place}: {problem}")]
    Value { path: PathBuf, place: TextPlace, problem: String },
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|nearest| format!("; is {nearest:?} meant?")).unwrap_or_default()
}

/// Command whose defaults come from a file.
#[derive(Debug)]
pub(crate) struct WithFile {
    pub(crate) command: Command,
    /// Flags that the file sets.
    pub(crate) keys: Vec<String>,
}

/// Reads a file and makes its values the defaults of a command.
///
/// # Errors
/// When the file can't be read, or holds a key that is no flag.
pub(crate) fn with_file(command: Command, path: &Path) -> Result<WithFile, FileError> {
    let text = std::fs::read_to_string(path).map_err(|source| FileError::Read { path: path.into(), source })?;
    with_text(command, path, &text)
}

pub(crate) fn with_text(mut command: Command, path: &Path, text: &str) -> Result<WithFile, FileError> {
    let mut keys = Vec::new();
    let table: Table = text.parse().map_err(|error: toml::de::Error| FileError::Syntax {
        path: path.into(),
        place: TextPlace::new(text, error.span().map_or(0, |span| span.start)),
        problem: error.message().to_owned(),
    })?;
    for (key, value) in table.into_iter().filter(|(key, _)| !RULE_TABLES.contains(&&**key)) {
        let Some(arg) = command.get_arguments().find(|arg| is_key(arg, &key)) else {
            let nearest = nearest(&key.replace('_', "-"), options(&command).map(|(name, _)| name).chain(RULE_TABLES));
            return Err(FileError::UnknownKey { path: path.into(), place: place_of(&key, text), key, nearest });
        };
        let values = values(arg, value).map_err(|(found, wanted)| FileError::Kind {
            path: path.into(),
            place: place_of(&key, text),
            key: key.clone(),
            found,
            wanted,
        })?;
        check(arg, &values).map_err(|problem| FileError::Value {
            path: path.into(),
            place: place_of(&key, text),
            problem,
        })?;
        let id = arg.get_id().clone();
        keys.extend(arg.get_long().map(str::to_owned));
        command = command.mut_arg(id, |arg| arg.required(false).default_values(values));
    }
    Ok(WithFile { command, keys })
}

/// Checks values as clap checks typed ones, and apart from all other flags, so that an error has its place in the file.
fn check(arg: &Arg, values: &[String]) -> Result<(), String> {
    let mut alone = Arg::new(arg.get_id().clone())
        .long(arg.get_long().unwrap_or_default().to_owned())
        .action(arg.get_action().clone())
        .value_parser(arg.get_value_parser().clone())
        .value_delimiter(arg.get_value_delimiter())
        .default_values(values.to_vec());
    if let Some(names) = arg.get_value_names() {
        alone = alone.value_names(names.to_vec());
    }
    let checked = Command::new("file").no_binary_name(true).arg(alone).try_get_matches_from([""; 0]);
    checked.map(drop).map_err(|error| plain_text(&error))
}

/// Text of an error of clap: what is wrong and allowed, and the nearest value, without what is about a command line.
fn plain_text(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraphs = text.trim_start_matches("error: ").split("\n\n").map(str::trim);
    let paragraphs = paragraphs.take_while(|text| !text.starts_with("Usage:") && !text.starts_with("For more"));
    paragraphs.collect::<Vec<_>>().join("; ").replace("\n  ", " ")
}

/// Writes the value of a flag as a value of the file.
pub(super) fn file_value(text: &str) -> String {
    match (text.parse::<i64>(), text.parse::<bool>()) {
        (Ok(number), _) => number.to_string(),
        (_, Ok(truth)) => truth.to_string(),
        _ => serde_json::Value::from(text).to_string(),
    }
}

/// Returns the place of a key at the top of the file.
fn place_of(key: &str, text: &str) -> TextPlace {
    let table = DeTable::parse(text).ok();
    let mut keys = table.iter().flat_map(|table| table.get_ref().iter()).map(|(name, _)| name);
    let at = keys.find(|name| *name.get_ref() == key).map_or(0, |name| name.span().start);
    TextPlace::new(text, at)
}

/// Flags that no file may set; in particular it can't name another file.
const FORBIDDEN: [&str; 3] = ["config", "help", "version"];

/// Returns the options that a file may set, each with its name.
pub(super) fn options(command: &Command) -> impl Iterator<Item = (&str, &Arg)> {
    let named = command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
    named.filter(|(name, _)| !FORBIDDEN.contains(name))
}

fn is_key(arg: &Arg, key: &str) -> bool {
    let wanted = key.replace('_', "-");
    arg.get_long().is_some_and(|name| name == wanted && !FORBIDDEN.contains(&name))
}

/// Returns the values as they would be typed; else the type that was found and the one that is wanted.
fn values(arg: &Arg, value: Value) -> Result<Vec<String>, (&'static str, &'static str)> {
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    match value {
        Value::Array(values) if is_list => values.into_iter().map(|value| one(value, "a list of strings")).collect(),
        other => Ok(vec![one(other, if is_list { "a string or a list of strings" } else { "a string or a number" })?]),
    }
}

fn one(value: Value, wanted: &'static str) -> Result<String, (&'static str, &'static str)> {
    match value {
        Value::String(text) => Ok(text),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(truth) => Ok(truth.to_string()),
        Value::Float(_) => Err(("a number with a point", wanted)),
        Value::Datetime(_) => Err(("a date", wanted)),
        Value::Array(_) => Err(("a list", wanted)),
        Value::Table(_) => Err(("a table", wanted)),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;
    use std::time::Duration;

    use crate::flag::ServeArgs;

    fn command(text: &str) -> Result<Command, FileError> {
        let command = ServeArgs::augment_args(Command::new("trunkline"));
        with_text(command, Path::new("t.toml"), text).map(|read| read.command)
    }

    fn args(text: &str, typed: &[&str]) -> Result<ServeArgs, clap::Error> {
        let matches = command(text).unwrap().try_get_matches_from([&["trunkline"], typed].concat())?;
        ServeArgs::from_arg_matches(&matches)
    }

    fn problem(text: &str) -> String {
        command(text).unwrap_err().to_string()
    }

    #[test]
    fn a_file_gives_what_flags_give_and_flags_win() {
        let text = "upstream = [\"http://a\", \"http://b\"]\npool-size = 7\nlisten = \"[::1]:1\"\ndrain_timeout = \"3m\"\nkeep-alive-timeout = 7\nhead-max-bytes = \"64KiB\"";
        let from_file = args(text, &[]).unwrap();
        assert_eq!(from_file.upstreams, ["http://a", "http://b"]);
        assert_eq!((from_file.pool_size, from_file.drain.0.timeout), (7, Duration::from_secs(180)));
        assert_eq!(from_file.limits.0.keep_alive_timeout, Duration::from_secs(7));
        assert_eq!(from_file.limits.0.head_max_bytes, 64 * 1024);
        assert_eq!(from_file.listen, "[::1]:1");
        let typed = args(text, &["--upstream", "http://c", "--pool-size", "9"]).unwrap();
        assert_eq!((typed.upstreams, typed.pool_size), (vec!["http://c".to_owned()], 9));
    }

    #[test]
    fn every_flag_is_a_key_and_its_values_are_checked_like_the_flag() {
        let serve = ServeArgs::augment_args(Command::new("trunkline"));
        let names: Vec<String> = options(&serve).map(|(name, _)| name.to_owned()).collect();
        assert!(names.len() > 20, "{names:?}");
        for name in names {
            let found = command(&format!("{name} = [[1]]")).unwrap_err().to_string();
            assert!(found.contains(&format!("{name} is a list")) || found.contains("must be a list"), "{found}");
        }
    }

    #[test]
    fn unknown_keys_are_errors_that_name_the_nearest_key() {
        assert_eq!(
            problem("pool-sise = 7"),
            "t.toml, line 1, column 1: there is no key \"pool-sise\"; is \"pool-size\" meant?"
        );
        assert_eq!(
            problem("listn = \"\""),
            "t.toml, line 1, column 1: there is no key \"listn\"; is \"listen\" meant?"
        );
        assert_eq!(
            problem("# Routes.\n\n[[route]]\nreject = 403"),
            "t.toml, line 3, column 3: there is no key \"route\"; is \"routes\" meant?"
        );
        assert_eq!(problem("zzz = 1"), "t.toml, line 1, column 1: there is no key \"zzz\"");
        assert_eq!(problem("config = \"other.toml\""), "t.toml, line 1, column 1: there is no key \"config\"");
    }

    #[test]
    fn values_that_a_flag_does_not_take_are_refused_with_their_place_and_what_is_allowed() {
        assert_eq!(
            problem("shards = 1\npool-size = 1000"),
            "t.toml, line 2, column 1: invalid value '1000' for '--pool-size <N>': 1000 is not in 1..=256"
        );
        assert_eq!(
            problem("drain-timeout = \"2h\""),
            "t.toml, line 1, column 1: invalid value '2h' for '--drain-timeout <SECONDS>': must be from 0s to 1h"
        );
        assert_eq!(
            problem("log-format = \"jason\""),
            "t.toml, line 1, column 1: invalid value 'jason' for '--log-format <FORMAT>' [possible values: human, json]; \
             tip: a similar value exists: 'json'"
        );
    }

    #[test]
    fn values_of_wrong_types_and_broken_files_are_refused() {
        assert_eq!(
            problem("[listen]\na = 1"),
            "t.toml, line 1, column 2: listen is a table, but must be a string or a number"
        );
        assert_eq!(
            problem("listen = [\"a\"]"),
            "t.toml, line 1, column 1: listen is a list, but must be a string or a number"
        );
        assert!(problem("listen =").starts_with("t.toml, line 1, column 9: this is no TOML: "));
        let secret = problem("\nadmin-token = \"SECRET\n");
        assert!(secret.starts_with("t.toml, line 2, column ") && !secret.contains("SECRET"), "{secret}");
    }
}
