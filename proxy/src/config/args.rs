//! What is typed for `trunkline serve`, and how it becomes a [`Config`].

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::Args;
use tracing::warn;
use trunkline_protocol::development_key::{self, DevelopmentKeyError};
use trunkline_protocol::key::{AccessKey, AccessKeyError, AccessKeys};
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;

use super::advertise::advertise;
use super::carried::CarriedArgs;
use super::discovery::DiscoveryArgs;
use super::path_prefix::PathPrefixError;
use super::tokens::{TokenArgs, TokenArgsError};
use super::trust::TrustError;
use super::{
    Address, AdminArgs, AdminArgsError, AdvertiseError, Config, DrainArgs, HomeArgs, LimitArgs, LinkArgs, LogArgs,
    MESSAGE_MAX_BYTES, NEGOTIATE_TIMEOUT, NobodyTrusted, OriginError, OriginPattern, OutboxArgs, PathPrefixArgs,
    ProxyProtocolArgs, RelayArgs, RelaySettings, Resolver, Settings, TlsArgs, TlsArgsError, TlsListen, TrustArgs,
    random_node_name,
};

/// Room that a client's message leaves in a link frame for what goes around it.
const ENVELOPE_BYTES: usize = 1024 * 1024;

/// Less than this the HTTP server can't read.
const HEAD_LEAST_BYTES: usize = 8 * 1024;

/// More than this no head has; each request may cost as much.
const HEAD_MOST_BYTES: usize = 1024 * 1024;

/// What `trunkline serve` takes.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// A file in TOML whose keys are the names of these flags, such as `pool-size = 5`. Flags and environment variables
    /// win over it; `trunkline check FILE` shows what comes of it.
    #[arg(long, env = "TRUNKLINE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where clients connect.
    #[arg(long, env = "TRUNKLINE_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    pub listen: String,

    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,

    /// TLS, at the listener and towards upstreams.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// The admin port.
    #[command(flatten)]
    pub admin: AdminArgs,

    /// App servers with the Trunkline SDK, such as `http://127.0.0.1:5000` or `https://app.example`: one for each address
    /// that the name resolves to. May be given several times.
    #[arg(long = "upstream", env = "TRUNKLINE_UPSTREAM", value_name = "URL", required = true, value_delimiter = ',')]
    pub upstreams: Vec<String>,

    /// Upstreams whose name has several addresses.
    #[command(flatten)]
    pub discovery: DiscoveryArgs,

    /// Links to each app server for each hub.
    #[arg(long, env = "TRUNKLINE_POOL_SIZE", value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub pool_size: u16,

    /// Threads that serve clients. [default: one per core]
    #[arg(long, env = "TRUNKLINE_SHARDS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub shards: Option<u16>,

    /// A key that this node shares with app servers and other nodes; `trunkline token key` makes one.
    /// Given twice, the first signs and both are accepted: so a key is changed without a gap.
    #[arg(
        long = "access-key",
        env = "TRUNKLINE_ACCESS_KEY",
        value_name = "KEY",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub access_keys: Vec<String>,

    /// A file that holds an access key. May be given several times.
    #[arg(long = "access-key-file", env = "TRUNKLINE_ACCESS_KEY_FILE", value_name = "FILE", value_delimiter = ',')]
    pub access_key_files: Vec<PathBuf>,

    /// Where other nodes reach this one: a host and a port, or `https://` and these where that port speaks TLS.
    /// [default: the listen address, or where that is every address of the machine, the one from which an app server is
    /// reached]
    #[arg(long, env = "TRUNKLINE_ADVERTISE", value_name = "ADDRESS")]
    pub advertise: Option<String>,

    /// The name of this node in headers, logs and metrics. [default: a random one]
    #[arg(long, env = "TRUNKLINE_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// How long an app may take to decide about a client, for hubs that want to be asked, in seconds.
    #[arg(long, env = "TRUNKLINE_NEGOTIATE_TIMEOUT", value_name = "SECONDS", default_value_t = NEGOTIATE_TIMEOUT.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=300))]
    pub negotiate_timeout: u64,

    /// What is asked of the access tokens of users.
    #[command(flatten)]
    pub tokens: TokenArgs,

    /// An origin whose pages may connect, such as `https://app.example`, or `https://*.example.com` for all below one but
    /// not itself; scheme and port count. May be given several times. `*` lets all others in too, but without cookies
    /// and other credentials. Pages of this node's own address always may; without an access key, so may all pages of
    /// this machine.
    #[arg(long = "allow-origin", env = "TRUNKLINE_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub allow_origins: Vec<String>,

    /// Load balancers whose word is taken.
    #[command(flatten)]
    pub trust: TrustArgs,

    /// What load balancers put in front of paths.
    #[command(flatten)]
    pub path_prefix: PathPrefixArgs,

    /// What they send before each connection.
    #[command(flatten)]
    pub proxy_protocol: ProxyProtocolArgs,

    /// Limits of the front door.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// Largest message of a client in bytes, whatever a hub allows.
    #[arg(long, env = "TRUNKLINE_MESSAGE_MAX_BYTES", value_name = "BYTES", default_value_t = MESSAGE_MAX_BYTES)]
    pub message_max_bytes: usize,

    /// What may wait for clients.
    #[command(flatten)]
    pub outbox: OutboxArgs,

    /// Links to app servers.
    #[command(flatten)]
    pub links: LinkArgs,

    /// Requests that are carried on.
    #[command(flatten)]
    pub relay: RelayArgs,

    /// How the node stops.
    #[command(flatten)]
    pub drain: DrainArgs,

    /// Clients whose app server is gone.
    #[command(flatten)]
    pub homes: HomeArgs,

    /// Server-Sent Events and long polling.
    #[command(flatten)]
    pub carried: CarriedArgs,
}

/// Why settings don't make sense.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// An address is none.
    #[error("{flag} {value:?} is no address like 127.0.0.1:8080 ({source})")]
    Address {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// An upstream is none.
    #[error("--upstream {value:?} {problem}")]
    Upstream {
        /// What was given.
        value: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A key is none.
    #[error("--access-key: {0}")]
    Key(#[from] AccessKeyError),
    /// A key file can't be read.
    #[error("--access-key-file {path} can't be read ({source})")]
    KeyFile {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Beyond this machine there must be a key.
    #[error(
        "{what} is not on this machine, so an access key is needed: make one with `trunkline token key` and give it \
         to this node and to the app servers by --access-key or TRUNKLINE_ACCESS_KEY"
    )]
    NoKey {
        /// What is elsewhere.
        what: String,
    },
    /// There is no development key either.
    #[error(transparent)]
    DevelopmentKey(#[from] DevelopmentKeyError),
    /// What should verify access tokens can't.
    #[error(transparent)]
    Tokens(#[from] TokenArgsError),
    /// An origin is none.
    #[error("--allow-origin {value:?} {source}")]
    Origin {
        /// What was given.
        value: String,
        /// What is wrong.
        source: OriginError,
    },
    /// A name can't be sent in a header.
    #[error("--node-name {0:?} may hold only letters, digits, '-', '_' and '.'")]
    NodeName(String),
    /// A trusted address is none.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A path prefix is none.
    #[error(transparent)]
    PathPrefix(#[from] PathPrefixError),
    /// Nobody may send PROXY protocol headers.
    #[error(transparent)]
    ProxyProtocol(#[from] NobodyTrusted),
    /// Certificates and keys don't go together.
    #[error(transparent)]
    Tls(#[from] TlsArgsError),
    /// The admin port can't be served so.
    #[error(transparent)]
    Admin(#[from] AdminArgsError),
    /// Other nodes can't use the address they are told.
    #[error(transparent)]
    Advertise(#[from] AdvertiseError),
    /// A limit is out of range.
    #[error("{flag} is {value}, but must be from {least} to {most}")]
    Limit {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: usize,
        /// The least.
        least: usize,
        /// The most.
        most: usize,
    },
}

impl Config {
    /// Checks what was typed.
    ///
    /// # Errors
    /// When it makes no sense; the text names the flag.
    pub fn new(args: ServeArgs) -> Result<Self, ConfigError> {
        let listen = address("--listen", &args.listen)?;
        let admin = address("--admin", &args.admin.admin)?;
        let tls_listen = args.tls.tls_listen.as_ref().map(|text| address("--tls-listen", text)).transpose()?;
        let tls_listen = tls_listen.map(|address| args.tls.listener(address)).transpose()?;
        let upstreams: Vec<Address> = args.upstreams.iter().map(|url| upstream(url)).collect::<Result<_, _>>()?;
        let (keys, is_development) = match keys(&args)? {
            Some(keys) => (keys, false),
            None => (development_keys(&not_here(listen, tls_listen.as_ref(), admin, &upstreams))?, true),
        };
        limit("--message-max-bytes", args.message_max_bytes, 1024, LINK_FRAME_MAX_BYTES - ENVELOPE_BYTES)?;
        limit("--head-max-bytes", args.limits.head_max_bytes, HEAD_LEAST_BYTES, HEAD_MOST_BYTES)?;
        limit("--outbox-max-bytes", args.outbox.outbox_max_bytes, 4096, usize::MAX)?;
        let outbox = args.outbox.limits();
        limit("--outbox-total-max-bytes", outbox.total_bytes, 4096, usize::MAX)?;
        let trusted = args.trust.check()?;
        let issuer_tls = args.tokens.issuer_tls();
        let settings = Settings {
            node: node_name(args.node_name)?,
            keys,
            is_development,
            advertise: Some(advertise(args.advertise, listen, &upstreams)?),
            path_prefix: args.path_prefix.check()?,
            limits: args.limits.check(),
            proxy_protocol: args.proxy_protocol.check(&trusted)?,
            trusted,
            negotiate_timeout: Duration::from_secs(args.negotiate_timeout),
            tokens: args.tokens.check()?,
            allow_origins: args.allow_origins.into_iter().map(origin).collect::<Result<_, _>>()?,
            pool_size: usize::from(args.pool_size),
            message_max_bytes: args.message_max_bytes,
            outbox,
            links: args.links.check()?,
            homes: args.homes.settings(),
            carried: args.carried.settings(),
            relay: RelaySettings::from(&args.relay),
        };
        Ok(Self {
            listen,
            tls_listen,
            admin,
            observer: args.admin.check()?,
            upstreams,
            resolve_interval: args.discovery.interval(),
            resolver: Resolver::default(),
            upstream_tls: args.tls.upstream(),
            issuer_tls,
            shards: args.shards.unwrap_or_else(one_per_core),
            drain: args.drain.settings(),
            settings,
        })
    }
}

fn one_per_core() -> u16 {
    available_parallelism().ok().and_then(|cores| u16::try_from(cores.get()).ok()).unwrap_or(1)
}

fn address(flag: &'static str, value: &str) -> Result<SocketAddr, ConfigError> {
    let failed = |source| ConfigError::Address { flag, value: value.into(), source };
    let none = || failed(std::io::ErrorKind::AddrNotAvailable.into());
    value.to_socket_addrs().map_err(failed)?.next().ok_or_else(none)
}

fn upstream(url: &str) -> Result<Address, ConfigError> {
    url.parse().map_err(|problem| ConfigError::Upstream { value: url.into(), problem })
}

fn keys(args: &ServeArgs) -> Result<Option<AccessKeys>, ConfigError> {
    let mut keys = Vec::new();
    for text in args.access_keys.iter().filter(|text| !text.trim().is_empty()) {
        keys.push(AccessKey::new(text)?);
    }
    for path in &args.access_key_files {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::KeyFile { path: path.clone(), source })?;
        keys.push(AccessKey::new(&text)?);
    }
    if keys.is_empty() { Ok(None) } else { Ok(Some(AccessKeys::new(keys)?)) }
}

/// What is not on this machine, as it was given.
fn not_here(listen: SocketAddr, tls: Option<&TlsListen>, admin: SocketAddr, upstreams: &[Address]) -> Vec<String> {
    let own = [("--listen", Some(listen)), ("--tls-listen", tls.map(|tls| tls.address)), ("--admin", Some(admin))];
    let own = own.into_iter().filter_map(|(flag, address)| Some((flag, address?)));
    let own = own.filter(|(_, address)| !address.ip().is_loopback()).map(|(flag, address)| format!("{flag} {address}"));
    let others = upstreams.iter().filter(|upstream| !upstream.is_loopback());
    own.chain(others.map(|upstream| format!("--upstream {upstream}"))).collect()
}

fn development_keys(not_here: &[String]) -> Result<AccessKeys, ConfigError> {
    if let Some(what) = not_here.first() {
        return Err(ConfigError::NoKey { what: what.clone() });
    }
    let path = development_key::path()?;
    let key = development_key::read_or_make(&path)?;
    warn!(file = %path.display(), "no access key: using this machine's development key");
    Ok(AccessKeys::new(vec![key])?)
}

fn origin(value: String) -> Result<OriginPattern, ConfigError> {
    value.parse().map_err(|source| ConfigError::Origin { value, source })
}

fn node_name(given: Option<String>) -> Result<String, ConfigError> {
    let is_plain = |name: &str| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match given {
        Some(name) if is_plain(&name) => Ok(name),
        Some(name) => Err(ConfigError::NodeName(name)),
        None => Ok(random_node_name()),
    }
}

pub(super) fn limit(flag: &'static str, value: usize, least: usize, most: usize) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) { Ok(()) } else { Err(ConfigError::Limit { flag, value, least, most }) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{IdentityFiles, LinkSettings};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        serve: ServeArgs,
    }

    const KEY: &str = "a-key-of-the-fleet-long-enough";

    fn config(args: &[&str]) -> Result<Config, ConfigError> {
        Config::new(Cli::parse_from([&["trunkline"], args].concat()).serve)
    }

    fn problem(args: &[&str]) -> String {
        config(args).unwrap_err().to_string()
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
        assert_eq!(config.settings.links, LinkSettings::default());
        assert_eq!(config.settings.links.resume_window_ms, 10_000);
    }

    #[test]
    fn beyond_this_machine_a_key_is_needed_and_the_text_says_how_to_make_one() {
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
    fn tls_takes_a_key_for_each_certificate() {
        let base = ["--upstream", "http://localhost", "--access-key", KEY, "--tls-listen", "[::1]:8443"];
        let with = |more: &[&str]| config(&[&base, more].concat());
        let listen = with(&["--tls-cert", "a.pem,b.pem", "--tls-key", "a.key", "--tls-key", "b.key"]).unwrap();
        let listen = listen.tls_listen.unwrap();
        assert_eq!(listen.address, "[::1]:8443".parse().unwrap());
        assert_eq!(listen.identities[1], IdentityFiles { certificate: "b.pem".into(), key: "b.key".into() });
        let problem = with(&["--tls-cert", "a.pem"]).unwrap_err().to_string();
        assert!(problem.contains("1 of --tls-cert and 0 of --tls-key"), "{problem}");
    }

    #[test]
    fn the_proxy_protocol_needs_somebody_who_is_trusted() {
        let base = ["--upstream", "http://localhost", "--access-key", KEY, "--proxy-protocol"];
        assert!(problem(&base).contains("needs --trust"));
        let config = config(&[&base[..], &["--trust", "10.0.0.0/8"]].concat()).unwrap();
        assert!(config.settings.proxy_protocol.unwrap().from.contains("10.1.1.1".parse().unwrap()));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_flag() {
        assert!(problem(&["--upstream", "ftp://x"]).starts_with("--upstream \"ftp://x\""));
        assert!(
            problem(&["--upstream", "http://localhost", "--access-key", KEY, "--trust", "10.0.0.0/33"])
                .starts_with("--trust \"10.0.0.0/33\"")
        );
        assert!(problem(&["--upstream", "http://x/path", "--access-key", KEY]).contains("has a path"));
        assert!(problem(&["--upstream", "http://localhost", "--access-key", "short"]).starts_with("--access-key: "));
        assert!(
            problem(&["--upstream", "http://localhost", "--access-key", KEY, "--allow-origin", "app.example"])
                .starts_with("--allow-origin \"app.example\" has to begin with")
        );
        assert!(
            problem(&["--upstream", "http://localhost", "--access-key", KEY, "--node-name", "a b"])
                .contains("--node-name")
        );
        assert!(
            problem(&["--upstream", "http://localhost", "--access-key", KEY, "--message-max-bytes", "1"])
                .contains("--message-max-bytes is 1, but must be from 1024")
        );
        assert!(
            problem(&["--upstream", "http://localhost", "--access-key", KEY, "--link-ring-max-bytes", "1"])
                .contains("--link-ring-max-bytes is 1, but must be from 65536")
        );
    }
}
