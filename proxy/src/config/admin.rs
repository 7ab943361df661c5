//! The admin port: who may read there, who may act, and which other nodes are shown.

#[cfg(feature = "cli")]
use clap::Args;
#[cfg(feature = "cli")]
use std::path::PathBuf;

use crate::auth::AdminToken;
use crate::net::address::Address;

/// Names of other nodes that are taken.
#[cfg(feature = "cli")]
const PEERS_MAX: usize = 64;

/// Options for the admin port.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    /// Where health, metrics and the observer page are served; keep it private. Beyond this machine page and API are
    /// served only with --admin-token.
    #[arg(long, env = "TRUNKLINE_ADMIN", value_name = "HOST:PORT", default_value = "127.0.0.1:8090")]
    pub admin: String,

    /// The token that opens the observer page and its API, at least 16 characters. On a loopback address reading needs
    /// none, but closing clients and showing what they say does. All nodes of --peers have the same.
    #[arg(long, env = "TRUNKLINE_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,

    /// A file that holds it.
    #[arg(long, env = "TRUNKLINE_ADMIN_TOKEN_FILE", value_name = "FILE", conflicts_with = "admin_token")]
    pub admin_token_file: Option<PathBuf>,

    /// The token that `/metrics` wants; without one it is open to whoever reaches the admin port.
    #[arg(long, env = "TRUNKLINE_METRICS_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub metrics_token: Option<String>,

    /// Admin ports of the other nodes, such as `http://proxy-b:8090`, or one name for all addresses that it resolves to:
    /// the observer page shows them too. May name this node. May be given several times.
    #[arg(long, env = "TRUNKLINE_PEERS", value_name = "URL", value_delimiter = ',')]
    pub peers: Vec<String>,
}

/// What the admin port goes by.
#[derive(Debug, Clone, Default)]
pub struct AdminSettings {
    /// Who shows it may act, and may read wherever the port is.
    pub token: Option<AdminToken>,
    /// Who shows it may read metrics; `None`: whoever comes.
    pub metrics_token: Option<AdminToken>,
    /// The admin ports of other nodes.
    pub peers: Vec<Address>,
}

/// Why settings of the admin port don't make sense.
#[cfg(feature = "cli")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminArgsError {
    /// A token is none.
    #[error("{flag} {problem}")]
    Token {
        /// The flag.
        flag: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// A token's file can't be read.
    #[error("--admin-token-file {path} can't be read ({source})")]
    TokenFile {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A node's URL is none.
    #[error("--peers {value:?} {problem}")]
    Peer {
        /// What was given.
        value: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// There are too many.
    #[error("--peers names {0} nodes, at most {PEERS_MAX} are taken: give one name that resolves to all of them")]
    TooManyPeers(usize),
}

#[cfg(feature = "cli")]
impl AdminArgs {
    /// Checks what was typed.
    ///
    /// # Errors
    /// When it makes no sense; the text names the flag.
    pub fn check(&self) -> Result<AdminSettings, AdminArgsError> {
        let given = self.admin_token.as_deref().filter(|text| !text.is_empty());
        let token = match (given, &self.admin_token_file) {
            (Some(text), _) => Some(token("--admin-token", text)?),
            (None, Some(path)) => {
                let unread = |source| AdminArgsError::TokenFile { path: path.clone(), source };
                Some(token("--admin-token-file", &std::fs::read_to_string(path).map_err(unread)?)?)
            }
            (None, None) => None,
        };
        let metrics_token = self.metrics_token.as_deref().filter(|text| !text.is_empty());
        let peers: Vec<&String> = self.peers.iter().filter(|url| !url.is_empty()).collect();
        if peers.len() > PEERS_MAX {
            return Err(AdminArgsError::TooManyPeers(peers.len()));
        }
        let peer = |url: &String| url.parse().map_err(|problem| AdminArgsError::Peer { value: url.clone(), problem });
        Ok(AdminSettings {
            token,
            metrics_token: metrics_token.map(|text| self::token("--metrics-token", text)).transpose()?,
            peers: peers.into_iter().map(peer).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(feature = "cli")]
fn token(flag: &'static str, text: &str) -> Result<AdminToken, AdminArgsError> {
    AdminToken::new(text).map_err(|problem| AdminArgsError::Token { flag, problem })
}
