//! `trunkline token`: creates access keys and access tokens.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use trunkline_protocol::access_token::{self, TokenTimes};
use trunkline_protocol::development_key::{DevelopmentKeyError, read_or_make};
use trunkline_protocol::dial_in::sign_rest_token_for;
use trunkline_protocol::key::{AccessKey, AccessKeyError};
use trunkline_proxy::parts::{AppKey, unix_seconds};

use super::flag::value_parser::whole_seconds;
use super::flag::{AccessKeyArgs, audience_host};
use super::output::{print, print_warning};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Print a new access key, to be given to all proxies and app servers; or with `--app` one for a single app.
    Key {
        /// Name of an app that is to have a key of its own. Prints `NAME=KEY`, with its hubs, as `--app-key` and the
        /// lines of `--app-key-file` have it; the app itself gets what stands between `=` and the first `;`.
        #[arg(long, value_name = "NAME", conflicts_with = "file")]
        app: Option<String>,
        /// A hub that the app's key opens, or with a `*` at the end all that begin so. May be given several times.
        /// [default: NAME, and NAME_*]
        #[arg(long = "hub", value_name = "HUB", requires = "app")]
        hubs: Vec<String>,
        /// Keep it in this file, which only its owner can read, instead of printing it. A key that is there stays.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print an access token for the REST data plane, such as for
    /// `curl -H "Authorization: Bearer $(trunkline token rest)"`.
    Rest {
        #[command(flatten)]
        access_keys: AccessKeyArgs,
        /// A hub for which the token is good alone. [default: all]
        #[arg(long, value_name = "HUB")]
        hub: Option<String>,
        /// The host that the token names, where nodes have `--rest-audience`.
        #[arg(
            long = "rest-audience",
            env = "TRUNKLINE_REST_AUDIENCE",
            value_name = "HOST",
            default_value = "trunkline"
        )]
        audience: String,
        /// How long the token is good for.
        #[arg(long, value_name = "SECONDS", default_value = "1h", value_parser = whole_seconds::<u64>(0..=u64::MAX))]
        lifetime: u64,
    },
    /// Print an access token for a user, as an app would make one.
    User {
        #[arg(help = "The user id")]
        id: String,
        #[command(flatten)]
        access_keys: AccessKeyArgs,
        /// A further claim; may be given several times, also with the same name.
        #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = parse_claim)]
        claims: Vec<(String, String)>,
        /// How long the token is good for.
        #[arg(long, value_name = "SECONDS", default_value = "1h", value_parser = whole_seconds::<u64>(0..=u64::MAX))]
        lifetime: u64,
    },
}

/// Error for `--file` of `trunkline token key`.
#[derive(Debug, thiserror::Error)]
enum KeyFileError {
    #[error("--file {path} can't be read or made: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("--file {path} holds something that is no key ({source}), and stays as it is")]
    Damaged { path: PathBuf, source: AccessKeyError },
}

/// Creates a key or token and prints it.
pub(super) fn token(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Key { app: Some(app), hubs, .. } => print(&app_key(&app, &hubs)?),
        TokenCommand::Key { file: None, .. } => print(AccessKey::random().expose()),
        TokenCommand::Key { file: Some(file), .. } => make_key_file(&file)?,
        TokenCommand::User { id, access_keys, claims, lifetime } => {
            let times = TokenTimes::from_now(unix_seconds(), lifetime);
            print(&access_token::sign(&signing_key(&access_keys)?, &id, &claims, times));
        }
        TokenCommand::Rest { access_keys, hub, audience, lifetime } => {
            let times = TokenTimes::from_now(unix_seconds(), lifetime);
            let host = audience_host(audience.split(',').next().unwrap_or_default()).map_err(anyhow::Error::msg)?;
            print(&sign_rest_token_for(&signing_key(&access_keys)?, &host, hub.as_deref(), times));
        }
    }
    Ok(())
}

/// Creates a key for an app, as a line for `--app-key-file`.
fn app_key(app: &str, hubs: &[String]) -> anyhow::Result<String> {
    let parts = std::iter::once(AccessKey::random().expose().to_owned()).chain(hubs.iter().cloned());
    let line = format!("{app}={}", parts.collect::<Vec<_>>().join(";"));
    line.parse::<AppKey>().with_context(|| format!("--app {app:?}"))?;
    Ok(line)
}

/// Signing key: the first configured key, or this machine's development key.
fn signing_key(args: &AccessKeyArgs) -> anyhow::Result<AccessKey> {
    let (keys, is_development) = args.keys_or_development(&[])?;
    if is_development {
        print_warning("no access key was given: the token is signed with this machine's development key");
    }
    keys.iter().next().context("there is no access key")
}

fn parse_claim(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a claim looks like role=admin")?;
    Ok((name.into(), value.into()))
}

/// Creates a key file, unless it exists. Of several processes, the first one wins, as with the development key.
fn make_key_file(path: &Path) -> Result<(), KeyFileError> {
    let path = path.to_owned();
    match read_or_make(&path) {
        Ok(_) => Ok(()),
        Err(DevelopmentKeyError::File { source, .. }) => Err(KeyFileError::File { path, source }),
        Err(DevelopmentKeyError::Damaged { source, .. }) => Err(KeyFileError::Damaged { path, source }),
        Err(other) => Err(KeyFileError::File { path, source: io::Error::other(other) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_a_name_and_a_value_that_may_hold_further_equals_signs() {
        assert_eq!(parse_claim("role=a=b").unwrap(), ("role".into(), "a=b".into()));
        assert!(parse_claim("role").unwrap_err().contains("role=admin"));
    }

    #[test]
    fn the_key_of_an_app_is_a_line_that_nodes_read() {
        let line = app_key("shop", &["orders".into(), "cart*".into()]).unwrap();
        assert_eq!(line.parse::<AppKey>().unwrap().to_string(), "app key shop: hubs orders, cart*");
        assert!(app_key("a b", &[]).is_err() && app_key("shop", &["a*b".into()]).is_err());
    }

    #[test]
    fn a_key_file_that_cannot_be_made_is_named() {
        let problem = make_key_file(Path::new("/proc/no/such/folder/key")).unwrap_err().to_string();
        assert!(problem.starts_with("--file /proc/no/such/folder/key can't be read or made"), "{problem}");
    }
}
