//! `trunkline token`: creates access keys and access tokens.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use trunkline_protocol::access_token::{self, TokenTimes};
use trunkline_protocol::development_key::{DevelopmentKeyError, read_or_make};
use trunkline_protocol::dial_in::sign_rest_token_for;
use trunkline_protocol::key::AccessKey;
use trunkline_proxy::parts::{AppKey, RuleFile, unix_seconds};

use super::flag::value_parser::whole_seconds;
use super::flag::{AccessKeyArgs, AppKeyList, audience_host};
use super::output::{print, print_warning};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Print a new access key for all proxies and app servers, or with `--app` a key for a single app.
    Key {
        /// Name of an app, for a separate key. Prints `NAME=KEY` with its hubs, in the format of `--app-key` and the
        /// lines of `--app-key-file`; give the app itself only the part between `=` and the first `;`.
        #[arg(long, value_name = "NAME", conflicts_with = "file")]
        app: Option<String>,
        /// Hub for which the app's key is valid; with a `*` at the end, all hubs with that prefix. May be given several
        /// times. [default: NAME, and NAME_*]
        #[arg(long = "hub", value_name = "HUB", requires = "app")]
        hubs: Vec<String>,
        /// Store the key in this file, which only its owner can read, instead of printing it. An existing key is kept.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print an access token for the REST data plane, such as for
    /// `curl -H "Authorization: Bearer $(trunkline token rest)"`.
    Rest {
        #[command(flatten)]
        signer: SignerArgs,
        /// The configuration file of the nodes, with their keys.
        #[arg(long, env = "TRUNKLINE_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
        /// Limit the token to this hub. [default: all]
        #[arg(long, value_name = "HUB")]
        hub: Option<String>,
        /// Host in the audience of the token, for nodes with `--rest-audience`.
        #[arg(
            long = "rest-audience",
            env = "TRUNKLINE_REST_AUDIENCE",
            value_name = "HOST",
            default_value = "trunkline"
        )]
        audience: String,
        /// Lifetime of the token.
        #[arg(long, value_name = "SECONDS", default_value = "1h", value_parser = whole_seconds::<u64>(0..=u64::MAX))]
        lifetime: u64,
    },
    /// Print an access token for a user, as an app would create it.
    User {
        #[arg(help = "The user id")]
        id: String,
        #[command(flatten)]
        signer: SignerArgs,
        /// The configuration file of the nodes, with their keys, and the table of `--issuer`.
        #[arg(long, env = "TRUNKLINE_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
        /// Limit the token to this hub, by its audience; `/client/?hub=HUB` needs this. [default: all with a path of
        /// their own]
        #[arg(long, value_name = "HUB")]
        hub: Option<String>,
        /// Issuer `[issuers.NAME]` with a secret. The token is signed with its first secret, and has its `iss` and
        /// audiences. [default: an access key signs]
        #[arg(long, value_name = "NAME", conflicts_with_all = ["app", "hub"])]
        issuer: Option<String>,
        /// A further claim; may be given several times, also with the same name.
        #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = parse_claim)]
        claims: Vec<(String, String)>,
        /// Lifetime of the token.
        #[arg(long, value_name = "SECONDS", default_value = "1h", value_parser = whole_seconds::<u64>(0..=u64::MAX))]
        lifetime: u64,
    },
}

/// Flags of the key that signs a token.
#[derive(Debug, Args)]
pub(super) struct SignerArgs {
    #[command(flatten)]
    access_keys: AccessKeyArgs,
    #[command(flatten)]
    app_keys: AppKeyList,
    /// Sign with the key of this app. [default: the access key; without one, the only app, or that of `--hub`]
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
}

pub(super) fn token(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Key { app: Some(app), hubs, .. } => print(&app_key(&app, &hubs)?),
        TokenCommand::Key { file: None, .. } => print(AccessKey::random().expose()),
        TokenCommand::Key { file: Some(file), .. } => make_key_file(&file)?,
        TokenCommand::User { id, signer, config, hub, issuer, mut claims, lifetime } => {
            let times = TokenTimes::from_now(unix_seconds(), lifetime);
            let key = match issuer {
                Some(name) => issuer_key(config.as_deref(), &name, &mut claims)?,
                None => signer.key(config.as_deref(), hub.as_deref())?,
            };
            claims.extend(hub.map(|hub| ("aud".to_owned(), client_audience(&hub))));
            print(&access_token::sign(&key, &id, &claims, times));
        }
        TokenCommand::Rest { signer, config, hub, audience, lifetime } => {
            let times = TokenTimes::from_now(unix_seconds(), lifetime);
            let key = signer.key(config.as_deref(), hub.as_deref())?;
            let host = audience_host(audience.split(',').next().unwrap_or_default()).map_err(anyhow::Error::msg)?;
            print(&sign_rest_token_for(&key, &host, hub.as_deref(), times));
        }
    }
    Ok(())
}

/// Creates a key for an app, as a line for `--app-key-file`.
fn app_key(app: &str, hubs: &[String]) -> anyhow::Result<String> {
    let parts = std::iter::once(AccessKey::random().expose().to_owned()).chain(hubs.iter().cloned());
    let line = format!("{app}={}", parts.collect::<Vec<_>>().join(";"));
    line.parse::<AppKey>().map_err(|problem| anyhow!("--app {app:?}: {problem}"))?;
    Ok(line)
}

/// Key that signs for an issuer with a table, and adds the claims that its tokens need.
fn issuer_key(config: Option<&Path>, name: &str, claims: &mut Vec<(String, String)>) -> anyhow::Result<AccessKey> {
    let config = config.context("--issuer needs a file with the issuer's table: give --config FILE")?;
    let tables = RuleFile::read(config)?.access;
    let issuer = tables.issuers.iter().find(|issuer| issuer.name() == name);
    let issuer = issuer.with_context(|| format!("{} has no table [issuers.{name}]", config.display()))?;
    let (secret, iss, audiences) = issuer.signing().with_context(|| {
        format!("issuer {name:?} has no secret among its `keys`: only the issuer itself can sign with its private key")
    })?;
    claims.push(("iss".into(), iss.into()));
    claims.extend(audiences.iter().map(|audience| ("aud".into(), audience.clone())));
    Ok(AccessKey::new(secret)?)
}

impl SignerArgs {
    /// Key that signs a token: of an app from flags, files and the tables of the configuration file, or the access key.
    fn key(&self, config: Option<&Path>, hub: Option<&str>) -> anyhow::Result<AccessKey> {
        let mut apps = self.app_keys.sources()?.read_lines()?;
        if let Some(config) = config {
            apps.extend(RuleFile::read(config)?.access.app_keys);
        }
        let has_access_key = self.access_keys.keys()?.is_some();
        match app_of_token(&apps, self.app.as_deref(), hub, has_access_key)? {
            Some(app) => Ok(app.key().clone()),
            None => signing_key(&self.access_keys),
        }
    }
}

/// Audience of the clients of a hub. Nodes ignore its host.
fn client_audience(hub: &str) -> String {
    let hub: String = form_urlencoded::byte_serialize(hub.as_bytes()).collect();
    format!("http://trunkline/client/?hub={hub}")
}

/// App with the key that signs a token; `None` for the access key.
fn app_of_token<'a>(
    apps: &'a [AppKey],
    name: Option<&str>,
    hub: Option<&str>,
    has_access_key: bool,
) -> anyhow::Result<Option<&'a AppKey>> {
    let names = || {
        let names: BTreeSet<_> = apps.iter().map(AppKey::name).collect();
        if names.is_empty() { "no app".to_owned() } else { names.into_iter().collect::<Vec<_>>().join(", ") }
    };
    let is_for_hub = |app: &&AppKey| hub.is_none_or(|hub| app.opens(hub));
    if let Some(name) = name {
        let is_named = |app: &&AppKey| app.name().eq_ignore_ascii_case(name);
        let known = apps.iter().find(is_named).with_context(|| {
            format!("--app {name:?} has no key ({} has one): give it by --app-key, --app-key-file or --config", names())
        })?;
        let app = apps.iter().filter(is_named).find(is_for_hub);
        return app.map(Some).with_context(|| format!("--hub {:?}: {known} does not open it", hub.unwrap_or_default()));
    }
    if has_access_key || apps.is_empty() {
        return Ok(None);
    }
    let fitting: Vec<_> = apps.iter().filter(is_for_hub).collect();
    let others = fitting.iter().filter(|app| fitting.iter().any(|one| !one.name().eq_ignore_ascii_case(app.name())));
    match fitting.first() {
        Some(app) if others.count() == 0 => Ok(Some(app)),
        Some(_) => bail!("several apps have a key ({}): choose one by --app NAME, or give --access-key", names()),
        None => bail!("--hub {:?} is opened by none of the keys of {}", hub.unwrap_or_default(), names()),
    }
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
    let (name, value) = text.split_once('=').ok_or("a claim has the form role=admin")?;
    Ok((name.into(), value.into()))
}

/// Creates a key file, unless it exists. Of several processes, the first one wins, as with the development key.
fn make_key_file(path: &Path) -> anyhow::Result<()> {
    let cause = match read_or_make(path) {
        Ok(_) => return Ok(()),
        Err(DevelopmentKeyError::Damaged { source, .. }) => {
            bail!("--file {} does not contain a key ({source}), and was not changed", path.display())
        }
        Err(DevelopmentKeyError::File { source, .. }) => source.into(),
        Err(other) => anyhow::Error::new(other),
    };
    Err(cause.context(format!("--file {} can't be read or created", path.display())))
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
    fn a_token_is_signed_by_the_app_that_is_named_or_the_only_one_for_its_hub() {
        let key = |text: &str| text.parse::<AppKey>().unwrap();
        let apps = [key("shop=0123456789abcdefgh;cart"), key("news=hgfedcba9876543210"), key("news=hgfedcba98765432")];
        let app = |apps: &[AppKey], name, hub, has_access_key| {
            let app = app_of_token(apps, name, hub, has_access_key).map_err(|error| error.to_string())?;
            Ok::<_, String>(app.map(|app| app.key().expose().to_owned()))
        };
        let shop = Ok(Some("0123456789abcdefgh".to_owned()));
        assert_eq!(app(&apps, Some("Shop"), None, true), shop);
        assert_eq!(app(&apps, None, Some("cart"), false), shop);
        assert_eq!(app(&apps[..1], None, None, false), shop);
        assert_eq!(app(&apps[1..], None, None, false), Ok(Some("hgfedcba9876543210".into())), "two keys of one app");
        assert_eq!((app(&apps, None, Some("cart"), true), app(&[], None, None, false)), (Ok(None), Ok(None)));
        for (name, hub, problem) in [
            (Some("shops"), None, "--app \"shops\" has no key (news, shop has one)"),
            (Some("shop"), Some("news"), "app key shop: hubs cart does not open it"),
            (None, None, "several apps have a key (news, shop): choose one by --app NAME"),
            (None, Some("other"), "--hub \"other\" is opened by none of the keys of news, shop"),
        ] {
            let told = app(&apps, name, hub, false).unwrap_err();
            assert!(told.contains(problem) && !told.contains("0123"), "{told}");
        }
    }

    #[test]
    fn the_audience_of_a_user_s_token_names_its_hub() {
        let part = trunkline_protocol::access_token::ServicePart::from_audience(&client_audience("a b&c"));
        assert_eq!(part, Some(trunkline_protocol::access_token::ServicePart::Client("a b&c".into())));
    }

    #[test]
    fn the_key_of_an_app_is_a_line_that_nodes_read() {
        let line = app_key("shop", &["orders".into(), "cart*".into()]).unwrap();
        assert_eq!(line.parse::<AppKey>().unwrap().to_string(), "app key shop: hubs orders, cart*");
        assert!(app_key("a b", &[]).is_err() && app_key("shop", &["a*b".into()]).is_err());
    }

    #[test]
    fn an_issuer_signs_with_its_secret_its_iss_and_its_audiences() {
        let folder = std::env::temp_dir().join(format!("trunkline-token-issuer-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (key, file) = (folder.join("key"), folder.join("trunkline.toml"));
        std::fs::write(&key, "a secret that is long enough\n").unwrap();
        let table = format!("[issuers.shop]\nkeys = {key:?}\nissuer = 'https://shop'\naudiences = ['a', 'b']\n");
        std::fs::write(&file, table + "[issuers.staff]\njwks = 'https://staff/keys'\nissuer = 'staff'\n").unwrap();
        let mut claims = Vec::new();
        let signing = issuer_key(Some(&file), "shop", &mut claims).unwrap();
        assert_eq!(signing.expose(), "a secret that is long enough");
        let expected = [("iss", "https://shop"), ("aud", "a"), ("aud", "b")];
        assert_eq!(claims, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for (name, words) in [("staff", "has no secret"), ("news", "has no table [issuers.news]")] {
            let problem = issuer_key(Some(&file), name, &mut Vec::new()).unwrap_err().to_string();
            assert!(problem.contains(words), "{problem}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_key_file_that_cannot_be_made_is_named() {
        let problem = make_key_file(Path::new("/proc/no/such/folder/key")).unwrap_err().to_string();
        assert!(problem.starts_with("--file /proc/no/such/folder/key can't be read or created"), "{problem}");
    }
}
