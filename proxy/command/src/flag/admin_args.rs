//! Flags of the admin port.

use std::path::PathBuf;

use anyhow::{anyhow, bail};
use clap::{Args, ValueEnum};
use http::Uri;
use trunkline_proxy::AdminToken;
use trunkline_proxy::parts::{Address, AdminSettings, AdminTokenSource, ConditionReceiver, FleetSettings};

use super::all_parsed;
use crate::logging::levels;

const PEERS_MAX: usize = 64;

#[derive(Debug, Clone, Args)]
pub(crate) struct AdminArgs {
    /// Address of health checks, metrics and the observer page; keep it private. On other than loopback addresses the
    /// page and its API need --admin-token.
    #[arg(long, env = "TRUNKLINE_ADMIN", value_name = "HOST:PORT", default_value = "127.0.0.1:8090")]
    pub admin: String,

    /// Token for the observer page and its API, at least 16 characters. On a loopback address only changes and payloads
    /// of clients need the token.
    #[arg(long, env = "TRUNKLINE_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,

    /// File with the token of --admin-token. Reloaded when it changes, and on SIGHUP; log-ins with the old token then
    /// end.
    #[arg(long, env = "TRUNKLINE_ADMIN_TOKEN_FILE", value_name = "FILE", conflicts_with = "admin_token")]
    pub admin_token_file: Option<PathBuf>,

    /// Token required for `/metrics`; without it, metrics are open to everyone who can reach the admin port.
    #[arg(long, env = "TRUNKLINE_METRICS_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub metrics_token: Option<String>,

    /// URL to which a JSON message is posted when a condition begins or ends: an outage, a full budget, a certificate
    /// that ends. Chat services show its member `text`. [default: none is posted]
    #[arg(long, env = "TRUNKLINE_CONDITION_WEBHOOK", value_name = "URL", hide_env_values = true)]
    pub condition_webhook: Option<String>,

    /// Admin ports of the other nodes, such as `http://proxy-b:8090`, or one name for all addresses that it resolves to
    /// (resolved again every few seconds). Such nodes form a fleet: they forward messages for clients at other nodes,
    /// and each shows all nodes. All nodes need the same access key. The list may include this node. May be given
    /// several times.
    #[arg(long, env = "TRUNKLINE_PEERS", value_name = "URL", value_delimiter = ',')]
    pub peers: Vec<String>,

    /// Let the nodes of a fleet find and reach each other through NATS, so that each node needs only its way to NATS:
    /// no --peers, and no open ports between nodes. With --peers as well, as in a rollout, nodes use either way.
    #[arg(long, env = "TRUNKLINE_FLEET_BY", value_name = "WAY", requires = "nats")]
    pub fleet_by: Option<FleetWay>,
}

/// Way between the nodes of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FleetWay {
    /// Through the servers of --nats.
    Nats,
}

impl TryFrom<&AdminArgs> for AdminSettings {
    type Error = anyhow::Error;

    fn try_from(args: &AdminArgs) -> anyhow::Result<Self> {
        let token = match (&args.admin_token, &args.admin_token_file) {
            (Some(text), _) => Some(token("--admin-token", text)?),
            (None, Some(path)) => Some(AdminTokenSource::read(path)?),
            (None, None) => None,
        };
        let metrics_token =
            args.metrics_token.as_deref().map(|text| self::token("--metrics-token", text)).transpose()?;
        let condition_webhook = args.condition_webhook.as_deref().map(receiver).transpose()?;
        Ok(Self { token: token.map(Into::into), metrics_token, condition_webhook, log: levels() })
    }
}

impl TryFrom<&AdminArgs> for FleetSettings {
    type Error = anyhow::Error;

    fn try_from(args: &AdminArgs) -> anyhow::Result<Self> {
        if args.peers.len() > PEERS_MAX {
            bail!(
                "--peers names {} nodes, but at most {PEERS_MAX} are allowed: give one name that resolves to all of them",
                args.peers.len()
            );
        }
        Ok(Self { peers: all_parsed("--peers", &args.peers)?, by_nats: args.fleet_by == Some(FleetWay::Nats) })
    }
}

/// Parses a webhook. The error does not show it: webhook URLs of chat services are secrets.
fn receiver(url: &str) -> anyhow::Result<ConditionReceiver> {
    let uri = url.parse::<Uri>().map_err(|_| "is not a URL such as https://chat.example/hook");
    let receiver = uri.and_then(|uri| Address::try_from(&uri).map(|_| ConditionReceiver(uri)));
    receiver.map_err(|problem| anyhow!("--condition-webhook {problem}"))
}

fn token(flag: &str, text: &str) -> anyhow::Result<AdminToken> {
    AdminToken::new(text).map_err(|problem| anyhow!("{flag} {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(peers: Vec<String>, metrics_token: Option<&str>) -> AdminArgs {
        let metrics_token = metrics_token.map(str::to_owned);
        AdminArgs {
            admin: String::new(),
            admin_token: None,
            admin_token_file: None,
            metrics_token,
            condition_webhook: None,
            peers,
            fleet_by: None,
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_its_flag() {
        let problem = |peers| FleetSettings::try_from(&args(peers, None)).unwrap_err().to_string();
        assert!(problem(vec!["ftp://x".into()]).starts_with("--peers \"ftp://x\" is not a URL"));
        assert!(problem(vec!["http://x".into(); 65]).starts_with("--peers names 65 nodes"));
        let short = AdminSettings::try_from(&args(Vec::new(), Some("short"))).unwrap_err().to_string();
        assert!(short.starts_with("--metrics-token must have"), "{short}");
    }

    #[test]
    fn the_settings_do_not_show_the_path_of_the_receiver_of_conditions() {
        let mut args = args(Vec::new(), None);
        args.condition_webhook = Some("https://chat.example/hooks/SECRET?key=SECRET".into());
        let shown = format!("{:?}", AdminSettings::try_from(&args).unwrap());
        assert!(shown.contains("chat.example") && !shown.contains("SECRET"), "{shown}");
        args.condition_webhook = Some("ftp://chat.example/SECRET".into());
        assert!(!AdminSettings::try_from(&args).unwrap_err().to_string().contains("SECRET"));
    }
}
