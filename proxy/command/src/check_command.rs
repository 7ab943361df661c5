//! `trunkline check`: prints the effective settings in the form of a configuration file, and what its rules do.

use std::fmt::Write;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use trunkline_proxy::Config;
use trunkline_proxy::parts::{RuleSample, Ruleset, client_files_max};

use super::config_file::{WithFile, file_value, with_file};
use super::flag::ServeArgs;

/// Placeholder for the value of a secret.
const REDACTED: &str = "(secret)";

/// Arguments of `trunkline check`.
#[derive(Debug, Clone, Args)]
pub(super) struct CheckArgs {
    #[arg(help = "The file")]
    file: PathBuf,

    /// A connection, request or message, such as 'hub=chat user=ann target=Say': prints which rules it hits, and why
    /// not those before, in place of the settings. Further keys are path (of a request that is passed through), query,
    /// address, connection (its id), bytes (of the message), header:NAME, cookie:NAME and claim:NAME. May be given
    /// several times.
    #[arg(long = "sample", value_name = "FACTS")]
    samples: Vec<RuleSample>,
}

/// Report about a sound configuration file.
#[derive(Debug)]
pub(super) struct CheckReport {
    /// Settings and rules, or explanations of the samples.
    pub text: String,
    /// Warnings about the rules.
    pub warnings: Vec<String>,
}

/// Checks a configuration file; returns the settings that `serve --config FILE` would use, without secrets, and its
/// rules. With samples it returns what becomes of these.
pub(super) fn check(args: CheckArgs) -> anyhow::Result<CheckReport> {
    let serve = ServeArgs::augment_args(Command::new("trunkline serve"));
    let WithFile { command, keys } = with_file(serve, &args.file)?;
    let matches = command.clone().no_binary_name(true).get_matches_from([""; 0]);
    let serve = ServeArgs { config: Some(args.file), ..ServeArgs::from_arg_matches(&matches)? };
    let note = serve.relay.0.note_of_files(client_files_max());
    let config = Config::try_from(serve)?;
    let rules = &config.settings.rules;
    let explained: Vec<_> = args.samples.iter().map(|sample| rules.explain(sample).to_string()).collect();
    if !explained.is_empty() {
        return Ok(CheckReport { text: explained.join("\n\n"), warnings: Vec::new() });
    }
    let text = effective_settings(&command, &matches, &keys) + &rules_in_force(rules);
    Ok(CheckReport { text, warnings: note.into_iter().chain(rules.warnings(&config.upstreams)).collect() })
}

/// Returns a line for each rule, as a comment of the settings.
fn rules_in_force(rules: &Ruleset) -> String {
    rules.lines().map(|rule| format!("# {rule}\n")).collect()
}

/// Returns a line for each flag that has a value: the value and its source. `keys` are those of the file.
fn effective_settings(command: &Command, matches: &ArgMatches, keys: &[String]) -> String {
    let mut lines = String::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let (Some(name), Some(source)) = (arg.get_long(), matches.value_source(id)) else { continue };
        if name == "config" {
            continue;
        }
        let values: Vec<String> = raw(matches, id).into_iter().map(|value| shown(arg, &value)).collect();
        let value = match arg.get_action() {
            ArgAction::Append => format!("[{}]", values.join(", ")),
            _ => values.join(", "),
        };
        // Writing to a string does not fail.
        let _ = writeln!(lines, "{name} = {value} # {}", source_name(arg, source, keys));
    }
    lines
}

fn raw(matches: &ArgMatches, id: &str) -> Vec<String> {
    let values = matches.get_raw(id).into_iter().flatten();
    values.map(|value| value.to_string_lossy().into_owned()).collect()
}

/// Writes a value as TOML.
fn shown(arg: &Arg, value: &str) -> String {
    if arg.is_hide_env_values_set() {
        return serde_json::Value::from(REDACTED).to_string();
    }
    // The query of a URL may hold a key.
    let value = match value.split_once('?') {
        Some((url, _)) if url.contains("://") => &format!("{url}?…"),
        _ => value,
    };
    file_value(value)
}

fn source_name(arg: &Arg, source: ValueSource, keys: &[String]) -> String {
    let is_in_file = arg.get_long().is_some_and(|name| keys.iter().any(|key| key == name));
    match source {
        ValueSource::EnvVariable => arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        ValueSource::DefaultValue if is_in_file => "file".into(),
        ValueSource::DefaultValue => "default".into(),
        _ => "flag".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command::new("trunkline").args([
            Arg::new("ports").long("port").action(ArgAction::Append).default_value("80"),
            Arg::new("key").long("access-key").hide_env_values(true),
            Arg::new("name").long("name").default_value("n"),
            Arg::new("none").long("none"),
        ])
    }

    #[test]
    fn each_value_is_shown_with_its_source_and_secrets_are_redacted() {
        assert_eq!(
            shown(&Arg::new("url"), "https://issuer.example/keys?key=hush"),
            "\"https://issuer.example/keys?…\""
        );
        let matches = command().get_matches_from(["trunkline", "--access-key", "the very secret", "--name", "a \"b\""]);
        let expected = "port = [80] # file\naccess-key = \"(secret)\" # flag\nname = \"a \\\"b\\\"\" # flag\n";
        assert_eq!(effective_settings(&command(), &matches, &["port".to_owned()]), expected);
    }
}
