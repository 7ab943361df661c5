//! `trunkline check`: prints the effective settings as a configuration file, and the effect of its rules.

use std::fmt::{Debug, Write};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use tracing::field::Field;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use trunkline_proxy::parts::{RuleSample, client_files_max, shown_url};
use trunkline_proxy::{Config, Node};

use super::exposed_secret;
use super::flag::ServeArgs;
use super::logging::{audit_log_refused, parse_flag};
use super::output::text_with_causes;
use super::runtime::runtime;
use super::setting_source::{Environment, Source, Sources};
use super::settings_loader::{Loaded, file_value, load};

const REDACTED: &str = "(secret)";

/// Arguments of `trunkline check`.
#[derive(Debug, Clone, Args)]
pub(super) struct CheckArgs {
    #[arg(help = "The file")]
    file: PathBuf,

    /// Connection, request or message, such as 'hub=chat user=ann target=Say': prints the rules that match it, and why
    /// earlier rules don't, instead of the settings. Further keys are path (of a passed-through request), query,
    /// address, connection (the id), bytes (of the message), header:NAME, cookie:NAME and claim:NAME. May be given
    /// several times.
    #[arg(long = "sample", value_name = "FACTS")]
    samples: Vec<RuleSample>,
}

#[derive(Debug)]
pub(super) struct CheckReport {
    /// Settings and rules, or explanations of the samples.
    pub text: String,
    /// Warnings, including the ones that `serve` would log.
    pub warnings: Vec<String>,
}

/// Checks a configuration file, the environment, and all files that they name. Returns the settings that `serve
/// --config FILE` would use, without secrets, and its rules; with samples, the result for each.
pub(super) fn check(args: CheckArgs, environment: &Environment, whole: &Command) -> anyhow::Result<CheckReport> {
    let serve = ServeArgs::augment_args(Command::new("trunkline serve"));
    let Loaded { command, sources } = load(serve, None, environment, Some(&args.file))?;
    let matches = command.clone().no_binary_name(true).get_matches_from([""; 0]);
    let serve = ServeArgs { config: Some(args.file), ..ServeArgs::from_arg_matches(&matches)? };
    let mut warnings = exposed_secret::warnings(&command, &matches, &sources);
    warnings.extend(environment.warnings(whole));
    warnings.extend(serve.relay.0.note_of_files(client_files_max()));
    let logged = LoggedWarnings::default();
    let config = tracing::subscriber::with_default(Registry::default().with(logged.clone()), || checked(serve));
    let config = config.map_err(|error| anyhow::Error::msg(sources.named_in(&text_with_causes(&error))))?;
    let rules = &config.settings.rules;
    let explained: Vec<_> = args.samples.iter().map(|sample| rules.explain(sample).to_string()).collect();
    if !explained.is_empty() {
        return Ok(CheckReport { text: explained.join("\n\n"), warnings: Vec::new() });
    }
    warnings.extend(logged.take());
    warnings.extend(rules.warnings(&config.upstreams));
    let text = effective_settings(&command, &matches, &sources) + &rules_in_force(&config);
    Ok(CheckReport { text, warnings })
}

fn checked(serve: ServeArgs) -> anyhow::Result<Config> {
    parse_flag(&serve.log.log)?;
    if let Some(file) = serve.log.audit_log.as_deref() {
        check_audit_log(file).map_err(|error| audit_log_refused(file, &error))?;
    }
    let config = Config::try_from(serve)?;
    runtime()?.block_on(async { Node::check(config.clone()) })?;
    Ok(config)
}

/// Checks that a file can be appended to, without creating it.
fn check_audit_log(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match path.metadata() {
        Ok(found) if found.is_file() => File::options().append(true).open(path).map(drop),
        Ok(_) => Ok(()),
        Err(_) => std::fs::read_dir(folder).map(drop),
    }
}

/// Layer that collects warnings instead of logging them.
#[derive(Debug, Clone, Default)]
struct LoggedWarnings(Arc<Mutex<Vec<String>>>);

impl LoggedWarnings {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: Subscriber> Layer<S> for LoggedWarnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() <= Level::WARN {
            let mut text = String::new();
            event.record(&mut |field: &Field, value: &dyn Debug| {
                // Writing to a string can't fail.
                let _ = match field.name() {
                    "message" => write!(text, "{value:?}"),
                    name => write!(text, " {name}={value:?}"),
                };
            });
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
    }
}

/// Formats each rule as a comment line.
fn rules_in_force(config: &Config) -> String {
    let keys = config.key_sources.tokens.lines();
    config
        .settings
        .rules
        .lines()
        .chain(config.access.tables.lines())
        .chain(keys)
        .map(|rule| format!("# {rule}\n"))
        .collect()
}

/// Formats each flag that has a value, with its source; values other than the defaults first.
fn effective_settings(command: &Command, matches: &ArgMatches, sources: &Sources) -> String {
    let (mut given, mut defaults) = (String::new(), String::new());
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let Some(name) = arg.get_long().filter(|name| *name != "config" && matches.value_source(id).is_some()) else {
            continue;
        };
        let values: Vec<String> = raw(matches, id).into_iter().map(|value| shown(arg, &value)).collect();
        let value = match arg.get_action() {
            ArgAction::Append => format!("[{}]", values.join(", ")),
            _ => values.join(", "),
        };
        let (lines, source) = match sources.0.get(name) {
            Some(Source::Environment(variable)) => (&mut given, &**variable),
            Some(Source::File { .. }) => (&mut given, "file"),
            None => (&mut defaults, "default"),
        };
        // Writing to a string can't fail.
        let _ = writeln!(lines, "{name} = {value} # {source}");
    }
    if given.is_empty() { defaults } else { format!("{given}\n{defaults}") }
}

fn raw(matches: &ArgMatches, id: &str) -> Vec<String> {
    let values = matches.get_raw(id).into_iter().flatten();
    values.map(|value| value.to_string_lossy().into_owned()).collect()
}

/// Formats a value as TOML.
fn shown(arg: &Arg, value: &str) -> String {
    if arg.is_hide_env_values_set() {
        return serde_json::Value::from(REDACTED).to_string();
    }
    file_value(&if value.contains("://") { shown_url(value) } else { value.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use trunkline_proxy::parts::TextPlace;

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
    fn a_second_issuer_needs_a_table_which_is_shown() {
        let folder = std::env::temp_dir().join(format!("trunkline-check-issuers-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, secret) = (folder.join("trunkline.toml"), folder.join("secret"));
        std::fs::write(&secret, "a secret that is long enough").unwrap();
        let checked = |rest: &str| {
            let settings = "upstream = 'http://127.0.0.1:1'\naccess-key = 'a key that is long enough'\n";
            std::fs::write(&file, format!("{settings}{rest}")).unwrap();
            let args = CheckArgs { file: file.clone(), samples: Vec::new() };
            check(args, &Environment::default(), &Command::new("trunkline"))
        };
        let refused = checked("jwt-issuer = ['https://a', 'https://b']").unwrap_err().to_string();
        assert!(refused.contains("\"https://b\", but flags describe one issuer"), "{refused}");
        let table = format!("[issuers.b]\nissuer = 'https://b'\nkeys = {secret:?}\nhubs = 'shop'");
        let report = checked(&format!("jwt-issuer = 'https://a'\n{table}")).unwrap();
        let line = "# issuer b: iss https://b, audiences any, hubs shop, keys in 1 files";
        assert!(report.text.contains(line), "{}", report.text);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn settings_of_webhooks_without_an_effect_are_warnings() {
        let file = std::env::temp_dir().join(format!("trunkline-check-webhooks-{}.toml", std::process::id()));
        std::fs::write(&file, "access-key = 'a key that is long enough'\nwebhook-connect = true\n").unwrap();
        let args = CheckArgs { file: file.clone(), samples: Vec::new() };
        let report = check(args, &Environment::default(), &Command::new("trunkline"));
        std::fs::remove_file(&file).unwrap();
        let warnings = report.unwrap().warnings;
        let is_named = |warning: &String| warning.contains("--webhook-connect: no effect");
        assert_eq!(warnings.iter().filter(|warning| is_named(warning)).count(), 1, "{warnings:?}");
    }

    #[test]
    fn each_value_is_shown_with_its_source_and_secrets_are_redacted() {
        assert_eq!(
            shown(&Arg::new("url"), "https://issuer.example/keys?key=hush"),
            "\"https://issuer.example/keys?…\""
        );
        let matches = command().get_matches_from(["trunkline", "--access-key", "the very secret", "--name", "a \"b\""]);
        let place = TextPlace::new("", 0);
        let sources = Sources(BTreeMap::from([
            ("access-key".to_owned(), Source::Environment("TRUNKLINE_ACCESS_KEY".to_owned())),
            ("name".to_owned(), Source::File { path: "t.toml".into(), place }),
        ]));
        let expected = "access-key = \"(secret)\" # TRUNKLINE_ACCESS_KEY\nname = \"a \\\"b\\\"\" # file\n\nport = [80] \
                        # default\n";
        assert_eq!(effective_settings(&command(), &matches, &sources), expected);
    }
}
