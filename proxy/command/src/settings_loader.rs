//! Loader of settings from flags, environment variables and the configuration file, in this order of precedence. The
//! file is TOML with the flag names of `trunkline serve` as keys.
//!
//! Values of environment and file become defaults of the flags. So flags take precedence, values are validated like
//! flags, and a new flag automatically has a variable and a key. Of two mutually exclusive flags, the one from the
//! stronger source wins. `routing` parses the tables in [`RULE_TABLES`].

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Id};
use toml::de::DeTable;
use toml::{Table, Value};
use trunkline_proxy::parts::{RULE_TABLES, TextPlace, nearest};

use super::setting_source::{Environment, Source, Sources, cleaned, variable};

/// Command with the settings of environment and file as defaults.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) command: Command,
    pub(crate) sources: Sources,
}

struct Given {
    id: Id,
    flag: String,
    values: Vec<String>,
    at: Source,
}

/// Loads a command's settings from the environment and a file, unless typed as flags.
pub(crate) fn load(
    command: Command,
    typed: Option<&ArgMatches>,
    environment: &Environment,
    file: Option<&Path>,
) -> anyhow::Result<Loaded> {
    let text = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("--config {}", path.display()));
    let in_file = file.map(|path| values_of_file(&command, path, &text(path)?)).transpose()?.unwrap_or_default();
    let in_environment = values_of_environment(environment, &command)?;
    load_layers(command, typed, [in_environment, in_file])
}

/// Loads a command's settings only from the text of a file.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn load_text(command: Command, path: &Path, text: &str) -> anyhow::Result<Loaded> {
    let in_file = values_of_file(&command, path, text)?;
    load_layers(command, None, [Vec::new(), in_file])
}

pub(crate) fn config_file(command: &Command, typed: &ArgMatches, environment: &Environment) -> Option<PathBuf> {
    let arg = command.get_arguments().find(|arg| arg.get_id() == "config")?;
    let in_environment = || cleaned(arg, environment.0.get(&variable(arg)?)?.to_str()?).pop().map(PathBuf::from);
    typed.get_one::<PathBuf>("config").cloned().or_else(in_environment)
}

fn load_layers(command: Command, typed: Option<&ArgMatches>, layers: [Vec<Given>; 2]) -> anyhow::Result<Loaded> {
    let is_typed =
        |id: &Id| typed.is_some_and(|typed| typed.value_source(id.as_str()) == Some(ValueSource::CommandLine));
    let rivals = rivals(&command);
    let are_rivals =
        |one: &Id, other: &Id| rivals.iter().any(|(a, b)| (a, b) == (one, other) || (b, a) == (one, other));
    let of_flags = command.get_arguments().map(Arg::get_id).filter(|id| is_typed(id)).cloned();
    let mut stronger: Vec<Id> = of_flags.collect();
    let mut loaded = Loaded { command: command.mut_args(|arg| arg.env(None)), sources: Sources::default() };
    for layer in layers {
        let is_overruled = |one: &Given| stronger.iter().any(|id| *id == one.id || are_rivals(id, &one.id));
        let (_, layer): (Vec<_>, Vec<_>) = layer.into_iter().partition(is_overruled);
        let conflict = layer
            .iter()
            .find_map(|one| layer.iter().find(|other| are_rivals(&one.id, &other.id)).map(|other| (one, other)));
        if let Some((one, other)) = conflict {
            let (Given { flag, at, .. }, Given { flag: other, at: other_at, .. }) = (one, other);
            bail!("{at}: --{flag} can't be used with --{other} ({other_at}): remove one of them");
        }
        stronger.extend(layer.iter().map(|given| given.id.clone()));
        for given in layer {
            loaded = loaded.with(given)?;
        }
    }
    Ok(loaded)
}

fn rivals(command: &Command) -> Vec<(Id, Id)> {
    let settings = command.get_arguments().filter(|arg| arg.get_env().is_some());
    let pairs = settings.flat_map(|arg| {
        let others = command.get_arg_conflicts_with(arg).into_iter();
        others.map(|other| (arg.get_id().clone(), other.get_id().clone()))
    });
    pairs.collect()
}

impl Loaded {
    /// Makes the values the defaults of their flag.
    fn with(mut self, given: Given) -> anyhow::Result<Self> {
        let Given { id, flag, values, at } = given;
        let as_default = |arg: Arg| {
            let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
            let arg = arg.required(false).default_values(values.clone());
            if is_switch { arg.value_parser(truth) } else { arg }
        };
        self.command = self.command.mut_arg(&id, as_default);
        if let Some(arg) = self.command.get_arguments().find(|arg| *arg.get_id() == id) {
            check(arg, &values).map_err(|problem| anyhow!("{at}: {problem}"))?;
        }
        self.sources.0.insert(flag, at);
        Ok(self)
    }
}

fn truth(text: &str) -> Result<bool, &'static str> {
    match &*text.to_ascii_lowercase() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be true, 1, yes or on, or false, 0, no or off"),
    }
}

fn values_of_environment(environment: &Environment, command: &Command) -> anyhow::Result<Vec<Given>> {
    let mut all = Vec::new();
    for arg in command.get_arguments() {
        let Some((name, value)) = variable(arg).and_then(|name| Some((name.clone(), environment.0.get(&name)?))) else {
            continue;
        };
        let at = Source::Environment(name);
        let values = cleaned(arg, value.to_str().with_context(|| format!("{at} is not UTF-8"))?);
        if !values.is_empty() {
            all.push(Given { id: arg.get_id().clone(), flag: flag_name(arg), values, at });
        }
    }
    Ok(all)
}

/// Values of a file. A command that supports only some settings of a node ignores the others.
fn values_of_file(command: &Command, path: &Path, text: &str) -> anyhow::Result<Vec<Given>> {
    let at = |place| Source::File { path: path.into(), place };
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        // Without the affected line, which may contain a secret.
        let at = at(TextPlace::new(text, error.span().map_or(0, |span| span.start)));
        anyhow!("{at}: invalid TOML: {}", error.message())
    })?;
    let takes_all = command.get_arguments().any(|arg| arg.get_id() == "listen");
    let mut all = Vec::new();
    for (key, value) in table.into_iter().filter(|(key, _)| !RULE_TABLES.contains(&&**key)) {
        let at = at(place_of(&key, text));
        let Some(arg) = command.get_arguments().find(|arg| is_key(arg, &key)) else {
            if !takes_all {
                continue;
            }
            let nearest = nearest(&key.replace('_', "-"), options(command).map(|(name, _)| name).chain(RULE_TABLES));
            let suggestion = nearest.map(|nearest| format!("; is {nearest:?} meant?")).unwrap_or_default();
            bail!("{at}: unknown key {key:?}{suggestion}");
        };
        let is_empty_list = value.as_array().is_some_and(Vec::is_empty);
        let found =
            values(arg, value).map_err(|(found, wanted)| anyhow!("{at}: {key} is {found}, but must be {wanted}"))?;
        let values: Vec<String> = found.iter().flat_map(|text| cleaned(arg, text)).collect();
        if !values.is_empty() || is_empty_list {
            all.push(Given { id: arg.get_id().clone(), flag: flag_name(arg), values, at });
        }
    }
    Ok(all)
}

fn flag_name(arg: &Arg) -> String {
    let of_variable = || Some(variable(arg)?.strip_prefix("TRUNKLINE_")?.to_lowercase().replace('_', "-"));
    arg.get_long().map(str::to_owned).or_else(of_variable).unwrap_or_default()
}

/// Validates values like typed ones, separately from other flags, so that an error can name the source.
fn check(arg: &Arg, values: &[String]) -> Result<(), String> {
    let mut alone = Arg::new(arg.get_id().clone())
        .long(flag_name(arg))
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

/// Text of a clap error: the problem, allowed values and the nearest match, without command-line usage.
fn plain_text(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraphs = text.trim_start_matches("error: ").split("\n\n").map(str::trim);
    let paragraphs = paragraphs.take_while(|text| !text.starts_with("Usage:") && !text.starts_with("For more"));
    paragraphs.collect::<Vec<_>>().join("; ").replace("\n  ", " ")
}

/// Formats a flag value in file syntax.
pub(super) fn file_value(text: &str) -> String {
    match (text.parse::<i64>(), text.parse::<bool>()) {
        (Ok(number), _) => number.to_string(),
        (_, Ok(truth)) => truth.to_string(),
        _ => serde_json::Value::from(text).to_string(),
    }
}

/// Position of a top-level key in the file.
fn place_of(key: &str, text: &str) -> TextPlace {
    let table = DeTable::parse(text).ok();
    let mut keys = table.iter().flat_map(|table| table.get_ref().iter()).map(|(name, _)| name);
    let at = keys.find(|name| *name.get_ref() == key).map_or(0, |name| name.span().start);
    TextPlace::new(text, at)
}

/// Flags that a file can't set; in particular, a file can't name another file.
const FORBIDDEN: [&str; 3] = ["config", "help", "version"];

/// Options that a file may set, each with its name.
pub(super) fn options(command: &Command) -> impl Iterator<Item = (&str, &Arg)> {
    let named = command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
    named.filter(|(name, _)| !FORBIDDEN.contains(name))
}

fn is_key(arg: &Arg, key: &str) -> bool {
    let wanted = key.replace('_', "-");
    arg.get_env().is_some() && flag_name(arg) == wanted && !FORBIDDEN.contains(&&*wanted)
}

/// Converts a value to typed form, or returns the found and expected types.
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

    fn serve() -> Command {
        ServeArgs::augment_args(Command::new("trunkline"))
    }

    fn command(text: &str) -> anyhow::Result<Command> {
        load_text(serve(), Path::new("t.toml"), text).map(|loaded| loaded.command)
    }

    /// Settings from flags, an environment and a file.
    fn loaded(typed: &[&str], variables: &[(&str, &str)], text: &str) -> Result<(ServeArgs, Sources), String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), value.into()));
        let environment = Environment(variables.collect());
        let draft = serve().mut_args(|arg| arg.env(None)).no_binary_name(true).get_matches_from(typed);
        let in_file = values_of_file(&serve(), Path::new("t.toml"), text).map_err(|error| error.to_string())?;
        let layers = values_of_environment(&environment, &serve()).map(|given| [given, in_file]);
        let loaded = layers.and_then(|layers| load_layers(serve(), Some(&draft), layers));
        let loaded = loaded.map_err(|error| error.to_string())?;
        let matches = loaded.command.no_binary_name(true).try_get_matches_from(typed);
        let args = matches.and_then(|matches| ServeArgs::from_arg_matches(&matches));
        Ok((args.map_err(|error| error.to_string())?, loaded.sources))
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let file = "pool-size = 3\nshards = 3\nlisten = ':3'\n";
        let variables = [("TRUNKLINE_POOL_SIZE", "2"), ("TRUNKLINE_SHARDS", " 2\n"), ("TRUNKLINE_NODE_NAME", "")];
        let (args, sources) = loaded(&["--pool-size", "1"], &variables, file).unwrap();
        assert_eq!((args.pool_size, args.shards, &*args.listen, args.node_name), (1, Some(2), ":3", None));
        let shown: Vec<_> = sources.0.iter().map(|(flag, source)| format!("{flag}: {source}")).collect();
        assert_eq!(shown, ["listen: t.toml, line 3, column 1", "shards: TRUNKLINE_SHARDS in the environment"]);
    }

    #[test]
    fn an_empty_value_is_unset_and_lists_may_hold_blanks_in_every_source() {
        for option in options(&serve()) {
            let name = variable(option.1).unwrap();
            let args = loaded(&[], &[(&name, " \n")], &format!("{} = ' '", option.0));
            assert!(args.is_ok_and(|(_, sources)| sources.0.is_empty()), "{name}");
        }
        let variables = [("TRUNKLINE_TRUST", "10.0.0.0/8, 172.16.0.0/12,"), ("TRUNKLINE_LOG", "info, h2=warn ")];
        let (args, _) = loaded(&[], &variables, "upstream = [' http://a ', '', 'http://b,http://c']").unwrap();
        assert_eq!(args.trust.trust, ["10.0.0.0/8", "172.16.0.0/12"]);
        assert_eq!(
            (args.upstreams, &*args.log.log),
            (["a", "b", "c"].map(|host| format!("http://{host}")).into(), "info, h2=warn")
        );
        assert!(loaded(&[], &[], "trust-headers = []").unwrap().0.trust.trust_headers.is_empty());
    }

    #[test]
    fn a_switch_takes_the_usual_words() {
        for (word, expected) in [
            ("true", true),
            ("1", true),
            ("Yes", true),
            ("on", true),
            ("FALSE", false),
            ("0", false),
            ("no", false),
            ("off", false),
        ] {
            let variables = [("TRUNKLINE_REQUIRE_AUTHENTICATION", word), ("TRUNKLINE_HOLD_NEW", word)];
            let (args, _) = loaded(&[], &variables, &format!("share-port = '{word}'")).unwrap();
            let found = [args.tokens.require_authentication, args.rehoming.0.holds_new, args.share_port];
            assert_eq!(found, [expected; 3], "{word}");
        }
        assert!(!loaded(&[], &[("TRUNKLINE_REST", "no")], "rest = true").unwrap().0.rest.rest);
        assert_eq!(
            loaded(&[], &[("TRUNKLINE_REST", "maybe")], "").unwrap_err(),
            "TRUNKLINE_REST in the environment: invalid value 'maybe' for '--rest': must be true, 1, yes or on, or \
             false, 0, no or off"
        );
    }

    #[test]
    fn of_settings_that_exclude_each_other_the_stronger_source_counts() {
        let variables = [("TRUNKLINE_ADMIN_TOKEN_FILE", "/t")];
        let (args, _) = loaded(&[], &variables, "admin-token = 'in the file'").unwrap();
        assert_eq!((args.admin.admin_token, args.admin.admin_token_file), (None, Some("/t".into())));
        let (args, _) = loaded(&["--admin-token", "typed"], &variables, "").unwrap();
        assert_eq!((args.admin.admin_token.as_deref(), args.admin.admin_token_file), (Some("typed"), None));
        let both = [variables[0], ("TRUNKLINE_ADMIN_TOKEN", "x")];
        assert_eq!(
            loaded(&[], &both, "").unwrap_err(),
            "TRUNKLINE_ADMIN_TOKEN in the environment: --admin-token can't be used with --admin-token-file \
             (TRUNKLINE_ADMIN_TOKEN_FILE in the environment): remove one of them"
        );
    }

    #[test]
    fn a_variable_that_a_flag_does_not_take_is_named() {
        assert_eq!(
            loaded(&[], &[("TRUNKLINE_POOL_SIZE", "1000")], "").unwrap_err(),
            "TRUNKLINE_POOL_SIZE in the environment: invalid value '1000' for '--pool-size <N>': 1000 is not in 1..=256"
        );
    }

    fn args(text: &str, typed: &[&str]) -> Result<ServeArgs, clap::Error> {
        let matches = command(text).unwrap().try_get_matches_from([&["trunkline"], typed].concat())?;
        ServeArgs::from_arg_matches(&matches)
    }

    fn problem(text: &str) -> String {
        command(text).unwrap_err().to_string()
    }

    #[test]
    fn a_file_sets_the_same_values_as_flags_and_flags_take_precedence() {
        let text = "upstream = [\"http://a\", \"http://b\"]\npool-size = 7\nlisten = \"[::1]:1\"\ndrain_timeout = \
                    \"3m\"\nkeep-alive-timeout = 7\nhead-max-bytes = \"64KiB\"";
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
            "t.toml, line 1, column 1: unknown key \"pool-sise\"; is \"pool-size\" meant?"
        );
        assert_eq!(problem("listn = \"\""), "t.toml, line 1, column 1: unknown key \"listn\"; is \"listen\" meant?");
        assert_eq!(
            problem("# Routes.\n\n[[route]]\nreject = 403"),
            "t.toml, line 3, column 3: unknown key \"route\"; is \"routes\" meant?"
        );
        assert_eq!(problem("zzz = 1"), "t.toml, line 1, column 1: unknown key \"zzz\"");
        assert_eq!(problem("config = \"other.toml\""), "t.toml, line 1, column 1: unknown key \"config\"");
    }

    #[test]
    fn invalid_values_are_refused_with_their_position_and_the_allowed_values() {
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
            "t.toml, line 1, column 1: invalid value 'jason' for '--log-format <FORMAT>' [possible values: human, \
             json]; tip: a similar value exists: 'json'"
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
        assert!(problem("listen =").starts_with("t.toml, line 1, column 9: invalid TOML: "));
        let secret = problem("\nadmin-token = \"SECRET\n");
        assert!(secret.starts_with("t.toml, line 2, column ") && !secret.contains("SECRET"), "{secret}");
    }
}
