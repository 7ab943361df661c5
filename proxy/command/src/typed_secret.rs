//! Secrets typed on the command line, which every user of the machine can see in the process list.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

/// Returns a warning for each secret in the typed flags of a command and its subcommands.
pub(super) fn warnings(command: &Command, matches: &ArgMatches) -> Vec<String> {
    let mut warnings: Vec<_> = command
        .get_arguments()
        .filter(|arg| arg.is_hide_env_values_set())
        .filter(|arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine))
        .filter_map(|arg| warning(command, arg))
        .collect();
    if let Some((name, below)) = matches.subcommand()
        && let Some(command) = command.find_subcommand(name)
    {
        warnings.extend(self::warnings(command, below));
    }
    warnings
}

fn warning(command: &Command, arg: &Arg) -> Option<String> {
    let flag = arg.get_long()?;
    let file = format!("{flag}-file");
    let file = command.get_arguments().any(|arg| arg.get_long() == Some(&file)).then(|| format!("--{file}"));
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
    let others: Vec<_> = variable.into_iter().chain(file).collect();
    let advice = if others.is_empty() { String::new() } else { format!(": use {}", others.join(" or ")) };
    Some(format!("--{flag} is visible in the process list to every user of this machine{advice}"))
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;
    use crate::flag::ServeArgs;

    fn warnings_of(typed: &[&str]) -> Vec<String> {
        let command = Command::new("trunkline").subcommand(ServeArgs::augment_args(Command::new("serve")));
        let matches = command
            .clone()
            .get_matches_from([&["trunkline", "serve", "--upstream", "http://127.0.0.1:1"], typed].concat());
        warnings(&command, &matches)
    }

    #[test]
    fn a_typed_secret_is_named_with_the_other_ways_to_give_it_and_never_shown() {
        let secret = "the-very-secret-of-this-fleet";
        let shown = warnings_of(&["--access-key", secret, "--admin-token", secret, "--metrics-token", secret]);
        assert_eq!(shown.len(), 3, "{shown:?}");
        assert!(shown.iter().all(|line| !line.contains(secret)), "{shown:?}");
        let ways = ["TRUNKLINE_ACCESS_KEY or --access-key-file", "TRUNKLINE_ADMIN_TOKEN or --admin-token-file"];
        for way in ways.into_iter().chain(["TRUNKLINE_METRICS_TOKEN"]) {
            assert!(shown.iter().any(|line| line.contains(way)), "{way}: {shown:?}");
        }
    }

    #[test]
    fn files_and_other_flags_are_no_secrets() {
        let none: &[&str] = &[];
        assert_eq!(warnings_of(&["--access-key-file", "/k", "--listen", "127.0.0.1:1"]), none);
    }
}
