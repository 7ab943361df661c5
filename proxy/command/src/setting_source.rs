//! Sources of settings: flags, environment variables and the configuration file, with a common value syntax: white
//! space around values and list items is ignored; an empty value means unset.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::{Arg, Command};
use trunkline_proxy::parts::{TextPlace, nearest};

const PREFIX: &str = "TRUNKLINE_";

/// Variables of the SDK and of the shipped Compose and Swarm files, which may share the environment.
const OF_OTHERS: [&str; 4] =
    ["TRUNKLINE_DIALLED_AS", "TRUNKLINE_DIAL_PLAIN_HTTP", "TRUNKLINE_IMAGE", "TRUNKLINE_STATUS_IMAGE"];

/// Trunkline's environment variables of this process, with their values.
#[derive(Debug, Default)]
pub(crate) struct Environment(pub BTreeMap<String, OsString>);

/// Source of a value other than a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Variable of this name.
    Environment(String),
    File {
        path: PathBuf,
        place: TextPlace,
    },
}

/// Sources of a command's settings, by flag. Defaults and typed flags have no entry.
#[derive(Debug, Default)]
pub(crate) struct Sources(pub BTreeMap<String, Source>);

impl Environment {
    pub(crate) fn of_process() -> Self {
        let named = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self(named.filter(|(name, _)| name.starts_with(PREFIX)).collect())
    }

    /// Returns a warning for each unknown variable and each quoted value.
    pub(crate) fn warnings(&self, command: &Command) -> Vec<String> {
        let mut known = BTreeSet::from(OF_OTHERS.map(str::to_owned));
        collect_names(command, &mut known);
        let unknown = self.0.iter().filter(|(name, value)| !known.contains(*name) && !is_service_link(name, value));
        let warning = |name: &str| {
            let short = |name: &'_ str| name.strip_prefix(PREFIX).unwrap_or_default().to_owned();
            let names: Vec<_> = known.iter().map(|name| short(name)).collect();
            let like = nearest(&short(name), names.iter().map(|name| &**name));
            let hint = like.map(|like| format!("; is {PREFIX}{like} meant?")).unwrap_or_default();
            format!("{name} in the environment is unknown and ignored{hint}")
        };
        let quoted = self.0.iter().filter(|(name, value)| known.contains(*name) && is_quoted(value));
        let quoted_warning = |name: &str| {
            format!(
                "{name} in the environment contains quotes, which are part of the value: `docker run --env-file` and \
                 Compose 1 don't remove quotes"
            )
        };
        unknown.map(|(name, _)| warning(name)).chain(quoted.map(|(name, _)| quoted_warning(name))).collect()
    }
}

fn is_quoted(value: &OsString) -> bool {
    let text = value.to_str().unwrap_or_default().trim();
    ['"', '\''].iter().any(|&quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote))
}

fn collect_names(command: &Command, names: &mut BTreeSet<String>) {
    names.extend(command.get_arguments().filter_map(variable));
    command.get_subcommands().for_each(|below| collect_names(below, names));
}

/// Whether Kubernetes or Docker created this variable for a service or container named `trunkline` or `trunkline-*`.
fn is_service_link(name: &str, value: &OsString) -> bool {
    let is_of_port = name.rsplit_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    let is_url = name.ends_with("_PORT") && value.to_str().is_some_and(|value| value.contains("://"));
    let is_of_service = ["_SERVICE_HOST", "_SERVICE_PORT"].iter().any(|end| name.ends_with(end));
    is_of_port || is_url || is_of_service || name.contains("_SERVICE_PORT_")
}

pub(crate) fn variable(arg: &Arg) -> Option<String> {
    arg.get_env().map(|name| name.to_string_lossy().into_owned())
}

/// Values of a setting in the common syntax; empty if unset.
pub(crate) fn cleaned(arg: &Arg, text: &str) -> Vec<String> {
    let parts = match arg.get_value_delimiter() {
        Some(delimiter) => text.split(delimiter).collect(),
        None => vec![text],
    };
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Applies the common syntax to the settings of a command line.
pub(crate) fn cleaned_line(command: &Command, line: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let (mut command, mut cleaned_line, mut rest) = (command, Vec::new(), line.into_iter().peekable());
    while let Some(part) = rest.next() {
        let text = part.to_str().unwrap_or_default();
        command = command.find_subcommand(text).unwrap_or(command);
        let (flag, attached) =
            text.split_once('=').map_or((text, None), |(flag, value)| (flag, Some(value.to_owned())));
        let setting = command.get_arguments().find(|arg| {
            let is_named = arg.get_long().is_some_and(|long| flag.strip_prefix("--") == Some(long));
            is_named && arg.get_env().is_some() && arg.get_action().takes_values()
        });
        // A following flag is not a value; clap reports the missing value.
        let follows = |next: &OsString| next.to_str().is_some_and(|next| !next.starts_with('-'));
        let value = setting.and_then(|_| attached.or_else(|| rest.next_if(follows)?.into_string().ok()));
        match setting.zip(value) {
            Some((setting, value)) => {
                let values = cleaned(setting, &value);
                cleaned_line.extend(values.iter().map(|value| format!("{flag}={value}").into()));
            }
            None => cleaned_line.push(part.clone()),
        }
        if text == "--" {
            cleaned_line.extend(rest.by_ref());
        }
    }
    cleaned_line
}

impl Sources {
    /// Adds the source before a text that begins with a flag from another source.
    pub(crate) fn named_in(&self, text: &str) -> String {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let flag = text.strip_prefix("--").and_then(|rest| rest.split(|c| !is_part(c)).next());
        let source = flag.and_then(|flag| self.0.get(flag));
        source.map(|source| format!("{source}: {text}")).unwrap_or_else(|| text.to_owned())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "{name} in the environment"),
            Self::File { path, place } => write!(f, "{}, {place}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{ArgAction, Args};

    use super::*;
    use crate::flag::ServeArgs;

    fn command() -> Command {
        Command::new("trunkline").subcommand(ServeArgs::augment_args(Command::new("serve")))
    }

    fn warnings(variables: &[(&str, &str)]) -> Vec<String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value)));
        Environment(variables.collect()).warnings(&command())
    }

    #[test]
    fn an_unknown_variable_is_reported_with_the_nearest_one_and_without_its_value() {
        for (name, meant) in [
            ("TRUNKLINE_UPSTREAMS", "TRUNKLINE_UPSTREAM"),
            ("TRUNKLINE_ALLOW_ORIGINS", "TRUNKLINE_ALLOW_ORIGIN"),
            ("TRUNKLINE_REQUIRE_AUTH", "TRUNKLINE_REQUIRE_AUTHENTICATION"),
            ("TRUNKLINE_ACCESS_KEYFILE", "TRUNKLINE_ACCESS_KEY_FILE"),
            ("TRUNKLINE_ADMIN_PORT", "TRUNKLINE_ADMIN"),
        ] {
            let expected = format!("{name} in the environment is unknown and ignored; is {meant} meant?");
            assert_eq!(warnings(&[(name, "secret")]), [expected]);
        }
        assert_eq!(warnings(&[("TRUNKLINE_ZZZ", "1")]), ["TRUNKLINE_ZZZ in the environment is unknown and ignored"]);
    }

    #[test]
    fn a_value_that_keeps_its_quotes_is_reported_by_its_name_alone() {
        for quoted in ["\"https://i\"", " 'https://i'\n", "\"a\",\"b\""] {
            let shown = warnings(&[("TRUNKLINE_JWT_ISSUER", quoted)]);
            assert!(shown.iter().all(|line| line.starts_with("TRUNKLINE_JWT_ISSUER in") && !line.contains("https")));
            assert_eq!(shown.len(), 1, "{quoted}: {shown:?}");
        }
        for plain in ["https://i", "\"", "\"https://i", "it's", "\"a'"] {
            assert_eq!(warnings(&[("TRUNKLINE_JWT_ISSUER", plain)]).len(), 0, "{plain}");
        }
    }

    #[test]
    fn known_variables_and_service_links_cause_no_warning() {
        let none: &[&str] = &[];
        assert_eq!(
            warnings(&[
                ("TRUNKLINE_UPSTREAM", "http://a"),
                ("TRUNKLINE_KEEP_ALIVE_TIMEOUT", "3"),
                ("TRUNKLINE_IMAGE", "trunkline:1"),
                ("TRUNKLINE_PORT", "tcp://10.0.0.1:8080"),
                ("TRUNKLINE_NODES_PORT", "tcp://10.0.0.1:8080"),
                ("TRUNKLINE_SERVICE_HOST", "10.0.0.1"),
                ("TRUNKLINE_SERVICE_PORT", "8080"),
                ("TRUNKLINE_SERVICE_PORT_HTTP", "8080"),
                ("TRUNKLINE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
                ("TRUNKLINE_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ]),
            none
        );
    }

    #[test]
    fn typed_values_lose_blanks_and_empty_ones_their_flag() {
        let line = |parts: &[&str]| -> Vec<String> {
            let line = cleaned_line(&command(), parts.iter().map(OsString::from));
            line.into_iter().map(|part| part.into_string().unwrap()).collect()
        };
        assert_eq!(
            line(&["trunkline", "serve", "--upstream", "http://a, http://b ,", "--node-name=", "--listen", " :1\n"]),
            ["trunkline", "serve", "--upstream=http://a", "--upstream=http://b", "--listen=:1"]
        );
        let untouched = ["trunkline", "serve", "--share-port", "--listen", "--admin", "--no-flag", " x ", "--listen"];
        assert_eq!(line(&untouched), untouched);
        assert_eq!(line(&["trunkline", "serve", "--", "--listen="]), ["trunkline", "serve", "--", "--listen="]);
    }

    #[test]
    fn a_text_that_begins_with_a_flag_names_its_source() {
        let source = Source::Environment("TRUNKLINE_UPSTREAM".to_owned());
        let sources = Sources(BTreeMap::from([("upstream".to_owned(), source)]));
        assert_eq!(
            sources.named_in("--upstream \"x\" is not a URL"),
            "TRUNKLINE_UPSTREAM in the environment: --upstream \"x\" is not a URL"
        );
        for other in ["--upstream-ca x", "--listen x", "upstream"] {
            assert_eq!(sources.named_in(other), other);
        }
    }

    #[test]
    fn every_setting_has_a_variable_and_blanks_are_no_values() {
        let list = Arg::new("l").action(ArgAction::Append).value_delimiter(',');
        assert_eq!(cleaned(&list, " a, b,,c \n"), ["a", "b", "c"]);
        assert_eq!(cleaned(&Arg::new("one"), " a, b\n"), ["a, b"]);
        let none: &[&str] = &[];
        assert_eq!(cleaned(&Arg::new("one"), " \n"), none);
        let serve = ServeArgs::augment_args(Command::new("serve"));
        assert!(serve.get_arguments().all(|arg| variable(arg).is_some()));
    }
}
