//! `trunkline connection-string`: prints the connection string for apps with Azure's SDK to dial in.
//!
//! Accepts the flags, environment and configuration file of `serve`, so that the string matches the node they start.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};

use anyhow::{Context, anyhow, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use serde_json::json;
use trunkline_protocol::dial_in::{ConnectionString, ServiceScheme, ServiceUrl, ServiceUrlError};
use trunkline_protocol::key::{AccessKey, AccessKeyError};
use trunkline_proxy::Config;
use trunkline_proxy::parts::{AppKey, is_loopback_host, shown_url};

use super::flag::{ServeArgs, needs_key};
use super::output::{print, print_hint, print_warning};

const EXAMPLES: &str = "\
Examples:
  dotnet user-secrets set Azure:SignalR:ConnectionString \"$(trunkline connection-string)\"
  trunkline connection-string --config node.toml --app shop --endpoint https://chat.example
  trunkline connection-string --format env >>app.env

All other flags of `trunkline serve` and their environment variables are accepted, too. Without an access key the
connection string has the development key of this machine, which nodes without an access key accept.";

/// Ids of the `serve` flags shown in the help. Other flags are accepted but ignored.
const SHOWN: [&str; 7] =
    ["config", "listen", "tls_listen", "access_keys", "access_key_files", "app_keys", "app_key_files"];

/// Name of the setting in .NET. Its environment variable has `__` instead of each `:`.
const SETTING: &str = "Azure:SignalR:ConnectionString";

/// Arguments of `trunkline connection-string`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ConnectionStringArgs {
    /// Use the key of this app, from --app-key, --app-key-file or the configuration file. [default: the access key]
    #[arg(long, value_name = "NAME")]
    app: Option<String>,

    /// URL at which the app and its clients reach the nodes, such as `https://chat.example`. [default: this machine, at
    /// the port of --listen]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    /// Plain text, a line of an environment file, or a section of `appsettings.json`.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LineFormat::Text)]
    format: LineFormat,

    #[command(flatten)]
    node: NodeFlags,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LineFormat {
    Text,
    Env,
    Json,
}

/// Flags of `serve` in a command that starts no node.
#[derive(Debug, Clone)]
struct NodeFlags(ServeArgs);

/// Connection string for an app, with an optional warning.
#[derive(Debug)]
struct ConnectionLine {
    text: String,
    warning: Option<String>,
}

impl Args for NodeFlags {
    fn augment_args(command: Command) -> Command {
        let serve = ServeArgs::augment_args(Command::new("serve"));
        command.args(serve.get_arguments().map(|arg| {
            let is_hidden = !SHOWN.contains(&arg.get_id().as_str());
            arg.clone().hide(is_hidden)
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for NodeFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        ServeArgs::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// Prints the connection string; for a person, also instructions and warnings.
pub(super) fn connection_string(args: ConnectionStringArgs) -> anyhow::Result<()> {
    let format = args.format;
    let config = Config::try_from(args.node.0)?;
    let line = connection_line(&config, args.app.as_deref(), args.endpoint)?;
    print(format.shown(&line.text).trim_end());
    line.warning.iter().for_each(|warning| print_warning(warning));
    if io::stdout().is_terminal() {
        print_hint(&format!(
            "store the connection string in an app by: dotnet user-secrets set {SETTING} \"$(trunkline \
                             connection-string)\""
        ));
    }
    Ok(())
}

impl LineFormat {
    fn shown(self, line: &str) -> String {
        match self {
            Self::Text => line.to_owned(),
            Self::Env => format!("{}={line}", SETTING.replace(':', "__")),
            Self::Json => {
                let settings = SETTING.rsplit(':').fold(json!(line), |value, name| json!({ name: value }));
                format!("{settings:#}")
            }
        }
    }
}

fn connection_line(config: &Config, app: Option<&str>, endpoint: Option<String>) -> anyhow::Result<ConnectionLine> {
    if !config.settings.accepts_dial_in {
        bail!(
            "without an access key a node with --upstream does not accept app servers that dial in: make a key by \
             `trunkline token key`, and give it to the node by --access-key or TRUNKLINE_ACCESS_KEY"
        );
    }
    let value = endpoint.map_or_else(|| own_endpoint(config), Ok)?;
    let wrong = |problem: ServiceUrlError| anyhow!("--endpoint {:?} can't be used: {problem}", shown_url(&value));
    let endpoint: ServiceUrl = value.parse().map_err(wrong)?;
    let is_here = is_loopback_host(&endpoint.authority());
    if config.settings.is_development && !is_here {
        return Err(needs_key(&format!("--endpoint {endpoint}")));
    }
    let key = key(config, app)?;
    let text = format!("Endpoint={endpoint};AccessKey={};Version=1.0;", key.expose());
    // Parse it like an app would: a key with a semicolon would be cut there.
    let unspeakable = |cause| {
        anyhow!("a connection string can't contain this key{cause}; `trunkline token key` makes a suitable one")
    };
    let read = text.parse::<ConnectionString>().map_err(|error| unspeakable(format!(": {error}")))?;
    if read.access_key() != &key {
        return Err(unspeakable(", because the key has a `;`".into()));
    }
    let is_open = endpoint.scheme() == ServiceScheme::Http && !is_here;
    let warning = is_open.then(|| {
        format!(
            "{endpoint} is plain HTTP to another machine: anyone on the network path can read and forge messages of \
             the app and its clients; use --tls-listen at the nodes or a load balancer with a certificate, and \
             https:// in the endpoint"
        )
    });
    Ok(ConnectionLine { text, warning })
}

/// Address of the node for local apps and clients.
fn own_endpoint(config: &Config) -> anyhow::Result<String> {
    match config.listen.ip() {
        _ if config.tls_listen.is_some() => bail!(
            "clients connect by --tls-listen, and the host name of the certificate is unknown: give it as in --endpoint \
             https://chat.example"
        ),
        any if any.is_unspecified() => Ok(format!("http://localhost:{}", config.listen.port())),
        _ => Ok(format!("http://{}", config.listen)),
    }
}

/// Signing key of the app: its own, or the first shared key of the nodes.
fn key(config: &Config, app: Option<&str>) -> anyhow::Result<AccessKey> {
    let Some(app) = app else {
        return config.settings.keys.iter().next().ok_or(AccessKeyError::None).context("--access-key");
    };
    let of_apps = || config.access.app_keys.iter().chain(&config.access.tables.app_keys);
    let found = of_apps().find(|known| known.name() == app);
    found.map(|known| known.key().clone()).with_context(|| {
        let names: BTreeSet<_> = of_apps().map(AppKey::name).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let known = if names.is_empty() { "no app has one".into() } else { format!("{names} have one") };
        format!(
            "--app {app:?} has no key: {known}; set keys of apps by --app-key, --app-key-file or the tables \
             [app-keys.NAME] of --config"
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use trunkline_proxy::Settings;

    use super::*;

    #[derive(Parser)]
    struct LineCli {
        #[command(flatten)]
        args: ConnectionStringArgs,
    }

    const KEY: &str = "a-key-of-the-fleet-long-enough";

    fn line(args: &[&str]) -> Result<ConnectionLine, String> {
        line_of(args, |_| ())
    }

    /// Creates the connection string for a node with modified settings.
    fn line_of(args: &[&str], change: impl FnOnce(&mut Settings)) -> Result<ConnectionLine, String> {
        let args = LineCli::parse_from([&["connection-string"], args].concat()).args;
        let mut config = Config::try_from(args.node.0).map_err(|error| format!("{error:#}"))?;
        change(&mut config.settings);
        connection_line(&config, args.app.as_deref(), args.endpoint).map_err(|error| format!("{error:#}"))
    }

    fn text(args: &[&str]) -> String {
        line(&[&["--access-key", KEY], args].concat()).unwrap().text
    }

    #[test]
    fn the_line_has_the_address_of_the_node_on_this_machine_and_the_first_key() {
        assert_eq!(text(&[]), format!("Endpoint=http://127.0.0.1:8080;AccessKey={KEY};Version=1.0;"));
        let more = ["--listen", ":9000", "--access-key", "another-key-of-the-fleet"];
        assert_eq!(text(&more), format!("Endpoint=http://localhost:9000;AccessKey={KEY};Version=1.0;"));
        assert!(text(&["--listen", "[::1]:9000"]).starts_with("Endpoint=http://[::1]:9000;"));
    }

    #[test]
    fn an_app_gets_its_own_key_and_an_unknown_app_the_list_of_apps() {
        let apps = ["--app-key", "shop=0123456789abcdefgh;cart", "--app-key", "news=hgfedcba9876543210"];
        let with = |app: &str| line(&[&apps[..], &["--access-key", KEY, "--app", app]].concat());
        assert!(with("shop").unwrap().text.contains(";AccessKey=0123456789abcdefgh;Version"));
        let problem = with("shops").unwrap_err();
        assert!(problem.starts_with("--app \"shops\" has no key: news, shop have one;"), "{problem}");
        assert!(!problem.contains(KEY) && !problem.contains("0123456789"), "{problem}");
        let problem = line(&["--access-key", KEY, "--app", "shop"]).unwrap_err();
        assert!(problem.contains("no app has one"), "{problem}");
    }

    #[test]
    fn plain_http_beyond_this_machine_brings_a_warning() {
        let warning = |endpoint: &str| line(&["--access-key", KEY, "--endpoint", endpoint]).unwrap().warning;
        for safe in ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "https://chat.example/realtime"] {
            assert_eq!(warning(safe), None, "{safe}");
        }
        for open in ["http://chat.example", "http://10.0.0.1:8080", "http://[2001:db8::1]"] {
            let warning = warning(open).unwrap();
            assert!(warning.starts_with(&format!("{open} is plain HTTP")) && !warning.contains(KEY), "{warning}");
        }
        assert!(line(&["--access-key", KEY, "--listen", "10.0.0.1:8080"]).unwrap().warning.is_some());
    }

    #[test]
    fn an_unusable_connection_string_is_refused() {
        let tls = ["--access-key", KEY, "--tls-listen", ":443", "--tls-cert", "a.pem", "--tls-key", "a.key"];
        assert!(line(&tls).unwrap_err().contains("--endpoint https://chat.example"));
        let named = line(&[&tls[..], &["--endpoint", "https://chat.example"]].concat()).unwrap();
        assert_eq!(named.text, format!("Endpoint=https://chat.example;AccessKey={KEY};Version=1.0;"));
        let problem = line(&["--access-key", KEY, "--endpoint", "chat.example"]).unwrap_err();
        assert!(problem.starts_with("--endpoint \"chat.example\" can't be used: it must begin with"), "{problem}");
        for key in ["0123456789abcdef;0123456789", "0123456789abcdef;Version=1.0"] {
            let problem = line(&["--access-key", key]).unwrap_err();
            assert!(problem.starts_with("a connection string can't contain this key"), "{problem}");
        }
        let far = ["--access-key", KEY, "--endpoint", "https://chat.example"];
        let problem = line_of(&far, |settings| settings.is_development = true).unwrap_err();
        let expected = "--endpoint https://chat.example is not on this machine, so an access key is needed";
        assert!(problem.starts_with(expected), "{problem}");
        let problem = line_of(&["--access-key", KEY], |settings| settings.accepts_dial_in = false).unwrap_err();
        assert!(problem.contains("does not accept app servers that dial in"), "{problem}");
    }

    #[test]
    fn the_connection_string_is_printed_as_a_variable_or_as_settings() {
        assert_eq!(LineFormat::Env.shown("Endpoint=x;"), "Azure__SignalR__ConnectionString=Endpoint=x;");
        let settings: serde_json::Value = serde_json::from_str(&LineFormat::Json.shown("Endpoint=x;")).unwrap();
        assert_eq!(settings, json!({ "Azure": { "SignalR": { "ConnectionString": "Endpoint=x;" } } }));
    }

    #[test]
    fn each_flag_of_a_node_is_accepted_and_some_are_shown() {
        let command = NodeFlags::augment_args(Command::new("connection-string"));
        let shown: Vec<_> = command.get_arguments().filter(|arg| !arg.is_hide_set()).collect();
        assert_eq!(shown.len(), SHOWN.len());
        assert_eq!(text(&["--pool-size", "7", "--upstream", "http://localhost:5000"]), text(&[]));
    }
}
