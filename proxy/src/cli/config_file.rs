//! Configuration file: TOML whose keys are the names of the flags of `trunkline serve`.
//!
//! Values of the file become defaults of the flags. So flags and environment variables win over it, values are checked
//! like flags, and a new flag is a key without further code. The tables of [`RULE_TABLES`] hold rules, which `routing` reads.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use toml::de::DeTable;
use toml::{Table, Value};

use crate::routing::{RULE_TABLES, TextPlace, nearest};

/// Error for a configuration file that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FileError {
    #[error("--config {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is no TOML: {source}")]
    Syntax { path: PathBuf, source: Box<toml::de::Error> },
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
    let table: Table =
        text.parse().map_err(|source| FileError::Syntax { path: path.into(), source: Box::new(source) })?;
    for (key, value) in table.into_iter().filter(|(key, _)| !RULE_TABLES.contains(&&**key)) {
        let Some(arg) = command.get_arguments().find(|arg| is_key(arg, &key)) else {
            let nearest = nearest(&key.replace('_', "-"), flags(&command).chain(RULE_TABLES));
            return Err(FileError::UnknownKey { path: path.into(), place: place_of(&key, text), key, nearest });
        };
        let values = values(arg, value).map_err(|(found, wanted)| FileError::Kind {
            path: path.into(),
            place: place_of(&key, text),
            key: key.clone(),
            found,
            wanted,
        })?;
        let id = arg.get_id().clone();
        keys.extend(arg.get_long().map(str::to_owned));
        command = command.mut_arg(id, |arg| arg.required(false).default_values(values));
    }
    Ok(WithFile { command, keys })
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

/// Returns the flags that a file may set.
fn flags(command: &Command) -> impl Iterator<Item = &str> {
    command.get_arguments().filter_map(|arg| arg.get_long()).filter(|name| !FORBIDDEN.contains(name))
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
    use crate::cli::flag::ServeArgs;

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
        let text = "upstream = [\"http://a\", \"http://b\"]\npool-size = 7\nlisten = \"[::1]:1\"\ndrain_timeout = 3";
        let from_file = args(text, &[]).unwrap();
        assert_eq!(from_file.upstreams, ["http://a", "http://b"]);
        assert_eq!((from_file.pool_size, from_file.drain.drain_timeout), (7, 3));
        assert_eq!(from_file.listen, "[::1]:1");
        let typed = args(text, &["--upstream", "http://c", "--pool-size", "9"]).unwrap();
        assert_eq!((typed.upstreams, typed.pool_size, typed.drain.drain_timeout), (vec!["http://c".to_owned()], 9, 3));
    }

    #[test]
    fn every_flag_is_a_key_and_its_values_are_checked_like_the_flag() {
        let serve = ServeArgs::augment_args(Command::new("trunkline"));
        let names: Vec<String> = flags(&serve).map(str::to_owned).collect();
        assert!(names.len() > 20, "{names:?}");
        for name in names {
            assert!(command(&format!("{name} = \"1\"")).is_ok(), "{name}");
        }
        let refused = args("upstream = \"http://a\"\npool-size = 1000", &[]).unwrap_err().to_string();
        assert!(refused.contains("--pool-size") && refused.contains("1000"), "{refused}");
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
    fn values_of_wrong_types_and_broken_files_are_refused() {
        assert_eq!(
            problem("[listen]\na = 1"),
            "t.toml, line 1, column 2: listen is a table, but must be a string or a number"
        );
        assert_eq!(
            problem("listen = [\"a\"]"),
            "t.toml, line 1, column 1: listen is a list, but must be a string or a number"
        );
        assert!(problem("listen =").starts_with("t.toml is no TOML: "));
    }
}
