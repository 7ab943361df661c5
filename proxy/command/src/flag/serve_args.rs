//! Flags of `trunkline serve`, and their conversion into a [`Config`].

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use tracing::warn;
use trunkline_protocol::key::AccessKeys;
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;
use trunkline_proxy::parts::{
    AccessSettings, Address, AdminSettings, AdminTokenSource, AppKey, DrainSettings, FrontendLimits, GroupLimits,
    HostRules, HttpTransportSettings, LineCounts, LinkSettings, MESSAGE_MAX_BYTES, NEGOTIATE_TIMEOUT, OutboxLimits,
    PathPrefix, PortSharing, ProxyProtocolSettings, RehomeSettings, RelaySettings, RestSettings, RuleFile,
    SecretSources, TlsListener, TrustedHeaders, TrustedNetworks, WebhookSettings, client_files_max, random_node_name,
};
use trunkline_proxy::{Config, Resolver, Settings};

use super::access_key_args::AccessKeyArgs;
use super::admin_args::AdminArgs;
use super::advertised_address::advertised_address;
use super::app_key_args::AppKeyArgs;
use super::history_args::HistoryArgs;
use super::nats_args::NatsArgs;
use super::otlp_args::OtlpArgs;
use super::rest_args::RestArgs;
use super::settings_flag::Flags;
use super::socket_address::socket_address;
use super::tls_args::TlsArgs;
use super::token_args::TokenArgs;
use super::value_parser::{bytes, bytes_text, seconds};
use super::webhook_args::WebhookArgs;
use super::{LogArgs, TrustArgs, all_parsed};
use crate::logging::LOG_TARGET;
use crate::quantity::duration_text;

/// Room in a link frame around a client message.
const ENVELOPE_BYTES: usize = 1024 * 1024;

const MESSAGE_BYTES: RangeInclusive<u64> = 1024..=(LINK_FRAME_MAX_BYTES - ENVELOPE_BYTES) as u64;
const NODE_NAME_MAX_BYTES: usize = 64;

/// Syntax of values, shown at the end of `trunkline serve --help`.
const VALUES: &str = "\
Durations have a unit, such as 500ms, 30s, 5m or 1h; a bare number is in SECONDS or MS, as shown for the option.
Sizes have a unit, such as 64KiB, 16MiB or 1MB; a bare number is in BYTES.
Addresses are 127.0.0.1:8080, [::1]:8080, node-1:8080, or :8080 for every address of this machine.";

/// Flags of `trunkline serve`.
#[derive(Debug, Clone, Args)]
#[command(after_help = VALUES)]
pub struct ServeArgs {
    /// TOML file with the names of these flags as keys, such as `pool-size = 5`. Flags and environment variables
    /// override it; `trunkline check FILE` prints the result.
    #[arg(long, env = "TRUNKLINE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    #[arg(
        help = "Address on which clients connect",
        long,
        env = "TRUNKLINE_LISTEN",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8080"
    )]
    pub(crate) listen: String,

    /// Share the ports of --listen, --tls-listen and --rest-listen with other nodes of the same user that also have
    /// this flag: the system distributes connections over them. This replaces a node without a load balancer. Without
    /// the flag a node does not start on a port in use. Only on Unix; not for sockets passed by a supervisor.
    #[arg(long, env = "TRUNKLINE_SHARE_PORT")]
    pub(crate) share_port: bool,

    #[command(flatten)]
    pub(crate) log: LogArgs,

    #[command(flatten)]
    pub(crate) tls: TlsArgs,

    #[command(flatten)]
    pub(crate) admin: AdminArgs,

    /// App servers with the Trunkline SDK that this node dials, such as `http://127.0.0.1:5000` or
    /// `https://app.example`: one app server for each address of the name. May be given several times.
    #[arg(long = "upstream", env = "TRUNKLINE_UPSTREAM", value_name = "URL", value_delimiter = ',')]
    pub(crate) upstreams: Vec<String>,

    #[command(flatten)]
    pub(crate) webhooks: WebhookArgs,

    /// Interval at which the names of upstreams are resolved again: each address is a separate app server, unless
    /// several addresses lead to the same one. Host header and TLS server name remain the name. 0: a name is one app
    /// server, at any of its addresses.
    #[arg(long, env = "TRUNKLINE_RESOLVE_INTERVAL", value_name = "SECONDS", default_value = "5s",
          value_parser = seconds(0..=3600))]
    pub(crate) resolve_interval: Duration,

    /// Links to each app server for each hub.
    #[arg(long, env = "TRUNKLINE_POOL_SIZE", value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) pool_size: u16,

    /// Number of consecutive clients assigned to the same link. Messages in quick succession share a write only on the
    /// same link, so small numbers of clients cost less. 1 distributes clients evenly from the start.
    #[arg(long, env = "TRUNKLINE_POOL_TURN", value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) pool_turn: u16,

    /// Threads that serve clients. [default: one per core]
    #[arg(long, env = "TRUNKLINE_SHARDS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) shards: Option<u16>,

    #[command(flatten)]
    pub(crate) access_keys: AccessKeyArgs,

    #[command(flatten)]
    pub(crate) app_keys: AppKeyArgs,

    /// Address at which other nodes reach this node: host and port, with `https://` in front if the port uses TLS.
    /// [default: the listen address, or where that is every address of the machine, the one from which an app server is
    /// reached]
    #[arg(long, env = "TRUNKLINE_ADVERTISE", value_name = "ADDRESS")]
    pub(crate) advertise: Option<String>,

    /// Name of this node in headers, logs and metrics. Duplicate names are harmless, but make nodes hard to
    /// distinguish. [default: a random one]
    #[arg(long, env = "TRUNKLINE_NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: Option<String>,

    /// Time limit for an app's decision about a negotiating client, for hubs with such a check.
    #[arg(long, env = "TRUNKLINE_NEGOTIATE_TIMEOUT", value_name = "SECONDS", default_value = duration_text(NEGOTIATE_TIMEOUT),
          value_parser = seconds(1..=300))]
    pub(crate) negotiate_timeout: Duration,

    #[command(flatten)]
    pub(crate) tokens: TokenArgs,

    /// Allowed origin of pages, such as `https://app.example`, or `https://*.example.com` for all subdomains but not
    /// the domain; scheme and port must match. Other schemes, such as `capacitor://localhost`, and `null` are compared
    /// as text. May be given several times. `*` allows all other origins, but without cookies and other credentials.
    /// Pages of this node's own address are always allowed; without an access key, so are all pages of this machine.
    #[arg(long = "allow-origin", env = "TRUNKLINE_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub(crate) allow_origins: Vec<String>,

    /// Allowed Host of requests, such as `chat.example`, or `*.example.com` for all subdomains but not the domain. May
    /// be given several times. Protects from DNS rebinding. IP addresses and names of this machine are always allowed.
    /// [default: any; without an access key, numbers and names of this machine]
    #[arg(long = "allow-host", env = "TRUNKLINE_ALLOW_HOST", value_name = "HOST", value_delimiter = ',')]
    pub(crate) allow_hosts: Vec<String>,

    #[command(flatten)]
    pub(crate) trust: TrustArgs,

    #[arg(
        help = "Prefix that a load balancer adds to every path, such as `/realtime`: removed before paths are matched. \
                Paths without the prefix are served too",
        long,
        env = "TRUNKLINE_PATH_PREFIX",
        value_name = "PATH"
    )]
    pub(crate) path_prefix: Option<String>,

    #[command(flatten)]
    pub(crate) proxy_protocol: ProxyProtocolArgs,

    #[command(flatten)]
    pub(crate) limits: Flags<FrontendLimits>,

    /// Maximum size of a client message, even if its hub allows more.
    #[arg(long, env = "TRUNKLINE_MESSAGE_MAX_BYTES", value_name = "BYTES", default_value = bytes_text(MESSAGE_MAX_BYTES),
          value_parser = bytes::<usize>(MESSAGE_BYTES))]
    pub(crate) message_max_bytes: usize,

    #[command(flatten)]
    pub(crate) outbox: Flags<OutboxLimits>,

    #[command(flatten)]
    pub(crate) groups: Flags<GroupLimits>,

    #[command(flatten)]
    pub(crate) links: Flags<LinkSettings>,

    #[command(flatten)]
    pub(crate) relay: Flags<RelaySettings>,

    #[command(flatten)]
    pub(crate) drain: Flags<DrainSettings>,

    #[command(flatten)]
    pub(crate) rehoming: Flags<RehomeSettings>,

    #[command(flatten)]
    pub(crate) http_transports: Flags<HttpTransportSettings>,

    #[command(flatten)]
    pub(crate) rest: RestArgs,

    #[command(flatten)]
    pub(crate) history: HistoryArgs,

    #[command(flatten)]
    pub(crate) nats: NatsArgs,

    #[command(flatten)]
    pub(crate) otlp: OtlpArgs,
}

/// Flags of the PROXY protocol.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ProxyProtocolArgs {
    /// Load balancers of --trust begin each connection with a PROXY protocol header (version 1 or 2) with the client's
    /// address. Their connections without the header are refused, and so are connections with the header from other
    /// addresses.
    #[arg(long, env = "TRUNKLINE_PROXY_PROTOCOL")]
    pub proxy_protocol: bool,

    /// Time limit for a PROXY protocol header.
    #[arg(long, env = "TRUNKLINE_PROXY_PROTOCOL_TIMEOUT", value_name = "SECONDS", default_value = "5s",
          value_parser = seconds(1..=300))]
    pub proxy_protocol_timeout: Duration,
}

impl ProxyProtocolArgs {
    /// Returns the settings, or `None` if the PROXY protocol is off. Fails if it is on but `--trust` is empty.
    pub(super) fn settings(&self, trusted: &TrustedNetworks) -> anyhow::Result<Option<ProxyProtocolSettings>> {
        match (self.proxy_protocol, trusted.is_empty()) {
            (false, _) => Ok(None),
            (true, true) => bail!("--proxy-protocol needs --trust with the addresses of the load balancers"),
            (true, false) => {
                let timeout = self.proxy_protocol_timeout;
                Ok(Some(ProxyProtocolSettings { from: trusted.clone(), timeout }))
            }
        }
    }
}

struct NodeAddresses {
    listen: SocketAddr,
    tls_listen: Option<TlsListener>,
    admin: SocketAddr,
    rest_listen: Option<SocketAddr>,
    upstreams: Vec<Address>,
    webhooks: WebhookSettings,
    file: RuleFile,
}

impl TryFrom<&ServeArgs> for NodeAddresses {
    type Error = anyhow::Error;

    fn try_from(args: &ServeArgs) -> anyhow::Result<Self> {
        let listen = socket_address("--listen", &args.listen)?;
        let admin = socket_address("--admin", &args.admin.admin)?;
        let tls_listen = args.tls.tls_listen.as_ref();
        let tls_listen = tls_listen.map(|text| socket_address("--tls-listen", text)).transpose()?;
        let tls_listen = tls_listen.map(|address| args.tls.listener(address)).transpose()?;
        let upstreams = all_parsed("--upstream", &args.upstreams)?;
        let file = args.config.as_deref().map(RuleFile::read).transpose()?.unwrap_or_default();
        let rest_listen = RestSettings::try_from(&args.rest)?.listen;
        let webhooks = WebhookSettings::try_from(&args.webhooks)?;
        Ok(Self { listen, tls_listen, admin, rest_listen, upstreams, webhooks, file })
    }
}

impl NodeAddresses {
    /// Returns the addresses on other machines, each with its flag.
    fn remote(&self) -> Vec<String> {
        let tls = self.tls_listen.as_ref().map(|tls| tls.address);
        let own = [
            ("--listen", Some(self.listen)),
            ("--tls-listen", tls),
            ("--admin", Some(self.admin)),
            ("--rest-listen", self.rest_listen),
        ];
        let own = own.into_iter().filter_map(|(flag, address)| Some((flag, address?)));
        let own = own.filter(|(_, address)| !address.ip().is_loopback());
        let own = own.map(|(flag, address)| format!("{flag} {address}"));
        let upstreams = self.upstreams.iter().filter(|upstream| !upstream.is_loopback());
        let upstreams = upstreams.map(|upstream| format!("--upstream {upstream}"));
        own.chain(upstreams).chain(self.remote_webhooks()).chain(self.remote_in_groups()).collect()
    }

    /// Returns the webhooks on other machines, which verify signatures with the key.
    fn remote_webhooks(&self) -> impl Iterator<Item = String> {
        let remote = self.webhooks.rules.iter().filter(|rule| !rule.template.address().is_loopback());
        remote.map(|rule| format!("--upstream-webhook {}", rule.template))
    }

    /// Returns the app servers on other machines in groups without their own keys.
    fn remote_in_groups(&self) -> impl Iterator<Item = String> {
        let remote = self.file.rules.keyless_upstreams().filter(|(_, address)| !address.is_loopback());
        remote.map(|(group, address)| format!("upstream {address} of group {group}"))
    }

    fn has_upstreams(&self) -> bool {
        !self.upstreams.is_empty() || self.file.rules.has_upstreams()
    }
}

impl TryFrom<ServeArgs> for Config {
    type Error = anyhow::Error;

    fn try_from(args: ServeArgs) -> anyhow::Result<Self> {
        let addresses = NodeAddresses::try_from(&args)?;
        let (observer, issuer_tls) = (args.admin.clone(), args.tokens.issuer_tls());
        let (resolve_interval, upstream_tls) = (args.resolve_interval, (&args.tls).try_into()?);
        let (shards, drain) = (args.shards.unwrap_or_else(one_per_core), args.drain.0);
        let (rules_file, otlp) = (args.config.clone(), args.otlp.settings()?);
        let admin_settings = AdminSettings::try_from(&observer)?;
        let in_force = observer.admin_token_file.clone().zip(admin_settings.token.clone());
        let key_sources = SecretSources {
            access: args.access_keys.sources()?,
            apps: args.app_keys.keys.sources()?,
            webhooks: args.webhooks.secret_sources()?,
            webhook_headers: args.webhooks.header_sources()?,
            tokens: args.tokens.sources(),
            admin: in_force.map(|(file, in_force)| AdminTokenSource { file, in_force }),
            counts: LineCounts::default(),
        };
        let (settings, access) = settings(args, &addresses)?;
        Ok(Self {
            listen: addresses.listen,
            tls_listen: addresses.tls_listen,
            admin: addresses.admin,
            observer: admin_settings,
            upstreams: addresses.upstreams,
            resolve_interval,
            resolver: Resolver::default(),
            upstream_tls,
            issuer_tls,
            shards,
            drain,
            otlp,
            rules_file,
            key_sources,
            access,
            settings,
        })
    }
}

fn settings(args: ServeArgs, addresses: &NodeAddresses) -> anyhow::Result<(Settings, AccessSettings)> {
    let app_keys = args.app_keys.keys.sources()?.read_lines()?;
    let access_keys = args.access_keys.sources()?.read()?;
    AppKey::check_all(app_keys.iter().chain(&addresses.file.access.app_keys), &access_keys)?;
    let has_app_keys = !app_keys.is_empty() || !addresses.file.access.app_keys.is_empty();
    if has_app_keys && access_keys.is_empty() {
        bail!(
            "apps have their own keys, so the fleet needs an access key, too: make one by `trunkline token key`, and give \
             it only to the nodes, by --access-key-file or TRUNKLINE_ACCESS_KEY"
        );
    }
    let (keys, is_development) = args.access_keys.keys_or_development(&addresses.remote())?;
    warn_of_typed(&keys, app_keys.iter().chain(&addresses.file.access.app_keys));
    addresses
        .webhooks
        .warnings(&addresses.file.rules)
        .iter()
        .for_each(|warning| warn!(target: LOG_TARGET, "{warning}"));
    let trusted = TrustedNetworks::parse(args.trust.trust.iter().map(String::as_str))
        .map_err(|error| anyhow!("--trust {error}"))?;
    let knows_balancers = !trusted.is_empty();
    let access = AccessSettings { app_keys, tokens: args.tokens.try_into()?, tables: addresses.file.access.clone() };
    let settings = Settings {
        node: node_name(args.node_name)?,
        keys,
        is_development,
        // A node without its own key leaves the dial-in paths to its upstreams.
        accepts_dial_in: !is_development || !addresses.has_upstreams(),
        needs_encrypted_dial_in: args.app_keys.require_encrypted_dial_in,
        has_upstreams: addresses.has_upstreams(),
        advertise: Some(advertised_address(args.advertise, addresses.listen, &addresses.upstreams)?),
        path_prefix: path_prefix(args.path_prefix.as_deref())?,
        limits: args.limits.0.by_address(knows_balancers),
        proxy_protocol: args.proxy_protocol.settings(&trusted)?,
        trusted,
        trusted_headers: TrustedHeaders::new(&args.trust.trust_headers)
            .map_err(|error| anyhow!("--trust-headers {error}"))?,
        negotiate_timeout: args.negotiate_timeout,
        allow_origins: all_parsed("--allow-origin", &args.allow_origins)?,
        hosts: HostRules { named: all_parsed("--allow-host", &args.allow_hosts)?, is_development },
        port_sharing: port_sharing(args.share_port)?,
        pool_size: usize::from(args.pool_size),
        pool_turn: usize::from(args.pool_turn),
        message_max_bytes: args.message_max_bytes,
        outbox: args.outbox.0,
        groups: args.groups.0,
        links: args.links.0.by_address(knows_balancers).by_files(client_files_max()),
        rehoming: args.rehoming.0,
        http_transports: args.http_transports.0,
        relay: args.relay.0.by_address(knows_balancers).by_files(client_files_max()),
        webhooks: addresses.webhooks.clone(),
        fleet: (&args.admin).try_into()?,
        rest: args.rest.settings(is_development && !addresses.has_upstreams())?,
        history: (&args.history).into(),
        nats: args.nats.settings()?,
        sampling: args.otlp.sampling()?,
        rules: Arc::new(addresses.file.rules.clone()),
    };
    Ok((settings, access))
}

/// Warns about keys that look typed: any holder of a client token can try guesses against it.
fn warn_of_typed<'a>(keys: &AccessKeys, apps: impl Iterator<Item = &'a AppKey>) {
    let of_fleet = keys.iter().map(|key| (key, "the access key".to_owned()));
    let of_apps = apps.map(|app| (app.key().clone(), format!("the key of app {}", app.name())));
    for (_, name) in of_fleet.chain(of_apps).filter(|(key, _)| key.looks_typed()) {
        warn!(
            target: LOG_TARGET,
            "{name} looks hand-typed: holders of tokens signed with it can guess it offline; `trunkline token key` \
             makes a random key"
        );
    }
}

fn one_per_core() -> u16 {
    available_parallelism().ok().and_then(|cores| u16::try_from(cores.get()).ok()).unwrap_or(1)
}

fn port_sharing(is_wanted: bool) -> anyhow::Result<PortSharing> {
    match is_wanted {
        true if cfg!(not(unix)) => bail!("--share-port works only on Unix; omit it, or use a load balancer"),
        true => Ok(PortSharing::WithNodes),
        false => Ok(PortSharing::Alone),
    }
}

fn path_prefix(given: Option<&str>) -> anyhow::Result<PathPrefix> {
    let prefix = given.map_or(Ok(PathPrefix::default()), PathPrefix::new);
    prefix.map_err(|error| anyhow!("--path-prefix {error}"))
}

fn node_name(given: Option<String>) -> anyhow::Result<String> {
    let is_plain = |name: &str| {
        (1..=NODE_NAME_MAX_BYTES).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match given {
        Some(name) if is_plain(&name) => Ok(name),
        Some(name) => bail!("--node-name {name:?} may hold only letters, digits, '-', '_' and '.'"),
        None => Ok(random_node_name()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use trunkline_proxy::parts::IdentityFiles;

    #[derive(Parser)]
    struct ServeCli {
        #[command(flatten)]
        serve: ServeArgs,
    }

    const KEY: &str = "a-key-of-the-fleet-long-enough";

    fn config(args: &[&str]) -> anyhow::Result<Config> {
        Config::try_from(ServeCli::parse_from([&["trunkline"], args].concat()).serve)
    }

    fn problem(args: &[&str]) -> String {
        format!("{:#}", config(args).unwrap_err())
    }

    #[test]
    fn a_source_of_keys_that_is_none_is_refused_with_its_flag() {
        for (source, words) in [
            ("ftp://issuer.example/", "is neither a file nor a URL"),
            ("https://me@issuer.example/", "is neither a file nor a URL"),
            ("http://issuer.example/keys", "fetches keys without TLS"),
            ("https://a.example=https://a.example/keys", "[issuers.NAME]"),
            ("https://a.example/tenant=https://a.example/keys", "[issuers.NAME]"),
            ("https://a.example=/etc/keys.json", "[issuers.NAME]"),
        ] {
            let problem = problem(&["--upstream", "http://localhost", "--access-key", KEY, "--jwt-jwks", source]);
            assert!(problem.contains("--jwt-jwks") && problem.contains(words), "{problem}");
        }
    }

    /// Error for a value that its flag rejects, independent of other flags.
    fn refused(flag: &str, value: &str) -> String {
        ServeCli::try_parse_from(["trunkline", flag, value]).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        let config = config(&["--upstream", "http://127.0.0.1:5000", "--access-key", KEY]).unwrap();
        assert_eq!(config.listen, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(config.admin, "127.0.0.1:8090".parse().unwrap());
        assert_eq!(config.upstreams, ["http://127.0.0.1:5000".parse().unwrap()]);
        assert!(config.tls_listen.is_none() && config.settings.proxy_protocol.is_none());
        assert_eq!((config.settings.pool_size, config.settings.is_development), (5, false));
        assert_eq!(config.settings.advertise, "http://127.0.0.1:8080".parse().ok());
        let relay = config.settings.relay;
        assert!(relay.pass_through && relay.forward);
        assert_eq!(relay.upstream_connect_timeout, Duration::from_secs(5));
        assert_eq!(relay.upstream_answer_timeout, Duration::from_secs(60));
        assert_eq!(relay.hop_timeout, Duration::from_secs(5));
        assert_eq!(config.settings.links, LinkSettings::default().by_files(client_files_max()));
        assert_eq!(config.settings.links.resume_window_ms, 10_000);
    }

    #[test]
    fn a_comma_is_part_of_an_audience_and_of_a_claim() {
        let line = "--access-key K --jwt-audience a,b --jwt-audience c --user-claim d,e";
        let config = config(&line.replace('K', KEY).split(' ').collect::<Vec<_>>()).unwrap();
        let tokens = config.access.tokens;
        assert_eq!((tokens.audiences, tokens.user_claims), (vec!["a,b".into(), "c".into()], vec!["d,e".to_owned()]));
    }

    #[test]
    fn beyond_this_machine_a_key_is_required_and_the_text_explains_how_to_create_one() {
        for args in [
            ["--upstream", "http://10.0.0.1:5000", "--listen", "127.0.0.1:1"],
            ["--upstream", "http://localhost", "--listen", "0.0.0.0:1"],
            ["--upstream", "http://localhost", "--admin", "[::]:1"],
            ["--upstream", "https://[2001:db8::1]:5000", "--listen", "[::1]:1"],
        ] {
            let text = problem(&args);
            assert!(text.contains("trunkline token key"), "{text}");
        }
    }

    #[test]
    fn the_rules_of_the_file_are_read_and_groups_beyond_this_machine_need_a_key() {
        let path = std::env::temp_dir().join(format!("trunkline-rules-{}.toml", std::process::id()));
        let with = |rules: &str| {
            std::fs::write(&path, rules).unwrap();
            let args = ["--config", path.to_str().unwrap(), "--upstream", "http://localhost"];
            (config(&args), config(&[&args[..], &["--access-key", KEY]].concat()))
        };
        let (refused, config) = with("groups.canary.upstream = 'http://10.0.0.1'\n[[routes]]\ngroup = 'canary'");
        let refused = refused.unwrap_err().to_string();
        let (config, rules_file) = (config.unwrap(), Some(path.clone()));
        assert!(refused.starts_with("upstream http://10.0.0.1:80 of group canary is not on this machine"), "{refused}");
        let lines: Vec<_> = config.settings.rules.lines().collect();
        assert!(
            matches!(&lines[..], [group, route] if group.contains("canary") && route.contains("canary")),
            "{lines:?}"
        );
        assert_eq!(config.rules_file, rules_file);
        let (_, bad) = with("# A comment.\n[[routes]]\ngroup = 'canary'");
        std::fs::remove_file(&path).unwrap();
        let expected = format!("{}, line 3, column 9: there is no group \"canary\"", path.display());
        let bad = bad.unwrap_err().to_string();
        assert!(bad.starts_with(&expected), "{bad}");
    }

    #[test]
    fn ports_are_shared_only_if_requested_and_possible() {
        let base = ["--upstream", "http://localhost", "--access-key", KEY];
        assert_eq!(config(&base).unwrap().settings.port_sharing, PortSharing::Alone);
        let shared = config(&[&base[..], &["--share-port"]].concat()).map(|config| config.settings.port_sharing);
        match shared {
            Ok(sharing) => assert!(cfg!(unix) && sharing == PortSharing::WithNodes),
            Err(error) => assert!(cfg!(not(unix)) && error.to_string().starts_with("--share-port"), "{error}"),
        }
    }

    #[test]
    fn tls_takes_a_key_for_each_certificate() {
        let base = ["--upstream", "http://localhost", "--access-key", KEY, "--tls-listen", "[::1]:8443"];
        let with = |more: &[&str]| config(&[&base, more].concat());
        let listen = with(&["--tls-cert", "a.pem,b.pem", "--tls-key", "a.key", "--tls-key", "b.key"]).unwrap();
        let listen = listen.tls_listen.unwrap();
        assert_eq!(listen.address, "[::1]:8443".parse().unwrap());
        assert_eq!(listen.identities[1], IdentityFiles { certificate: "b.pem".into(), key: "b.key".into() });
        let problem = with(&["--tls-cert", "a.pem"]).unwrap_err().to_string();
        assert!(problem.contains("--tls-cert is given 1 times and --tls-key 0 times"), "{problem}");
    }

    #[test]
    fn the_proxy_protocol_needs_a_trusted_load_balancer() {
        let base = ["--upstream", "http://localhost", "--access-key", KEY, "--proxy-protocol"];
        assert!(problem(&base).contains("needs --trust"));
        let config = config(&[&base[..], &["--trust", "10.0.0.0/8"]].concat()).unwrap();
        assert!(config.settings.proxy_protocol.unwrap().from.contains("10.1.1.1".parse().unwrap()));
    }

    #[test]
    fn a_webhook_needs_a_key_beyond_this_machine_and_its_secret_is_not_shown() {
        let webhook = ["--upstream-webhook", "chat=https://app.example/{event}?code=secret"];
        let remote = problem(&webhook);
        assert!(remote.starts_with("--upstream-webhook https://app.example:443/{event} is not on"), "{remote}");
        let config = config(&[&webhook[..], &["--access-key", KEY]].concat()).unwrap();
        assert!(!config.settings.has_upstreams && config.settings.webhooks.rule_for("chat").is_some());
        let given = problem(&["--webhook-header", "X-Key: secret", "--webhook-header", "Host: secret"]);
        assert!(given.starts_with("--webhook-header number 2: host is set by the node"), "{given}");
        let wrong = problem(&["--upstream-webhook", "chat=http://localhost/{hub?code=secret"]);
        assert!(wrong.starts_with("--upstream-webhook \"chat=http://localhost/{hub?…\": the URL has {hub"), "{wrong}");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_flag() {
        assert!(problem(&["--upstream", "ftp://x"]).starts_with("--upstream \"ftp://x\""));
        assert!(
            problem(&["--upstream", "http://localhost", "--access-key", KEY, "--trust", "10.0.0.0/33"])
                .starts_with("--trust \"10.0.0.0/33\"")
        );
        assert!(problem(&["--upstream", "http://x/path", "--access-key", KEY]).contains("has a path"));
        assert!(
            problem(&["--upstream", "http://localhost", "--access-key", KEY, "--trust-headers", "for,forwarded"])
                .starts_with("--trust-headers has forwarded together with for")
        );
        assert!(problem(&["--upstream", "http://localhost", "--access-key", "short"]).starts_with("--access-key: "));
        assert!(
            problem(&["--upstream", "http://localhost", "--access-key", KEY, "--allow-origin", "app.example"])
                .starts_with("--allow-origin \"app.example\" has to be an origin with its scheme")
        );
        assert!(
            problem(&["--upstream", "http://localhost", "--access-key", KEY, "--node-name", "a b"])
                .contains("--node-name")
        );
        let address = problem(&["--upstream", "http://localhost", "--listen", "8080"]);
        assert!(
            address.starts_with("--listen \"8080\" is not an address") && address.contains(":8080 for every"),
            "{address}"
        );
    }

    #[test]
    fn a_duration_or_size_out_of_range_is_refused_with_the_range() {
        for (flag, value, allowed) in [
            ("--message-max-bytes", "1KB", "must be from 1KiB to 16MiB"),
            ("--link-ring-max-bytes", "1", "must be at least 64KiB"),
            ("--webhook-answer-max-bytes", "17MiB", "must be from 1KiB to 16MiB"),
            ("--outbox-total-max-bytes", "1", "must be 0, for no limit, or at least 4KiB"),
            ("--disconnect-timeout", "2h", "must be from 1s to 1h"),
            ("--drain-timeout", "5 parsecs", "30s, 5m or 1h, for example; a bare number is in seconds"),
            ("--connect-wait-ms", "x", "a bare number is in milliseconds"),
        ] {
            let refused = refused(flag, value);
            assert!(refused.contains(flag) && refused.contains(&format!("'{value}'")), "{refused}");
            assert!(refused.contains(allowed), "{refused}");
        }
    }

    #[test]
    fn an_unknown_flag_or_value_is_refused_with_the_nearest() {
        assert!(refused("--drain-timout", "3").contains("'--drain-timeout'"));
        assert!(refused("--log-format", "jason").contains("'json'"));
    }

    #[test]
    fn an_admin_port_alone_is_refused_as_open_to_other_machines() {
        let remote = problem(&["--upstream", "http://localhost", "--admin", ":8090"]);
        assert!(remote.contains(":8090 is not on this machine"), "{remote}");
    }
}
