//! Flags of webhooks: URLs that replace a hub's app servers, and the keys that sign their requests.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use trunkline_proxy::parts::{
    ConnectItem, GivenKeys, WebhookConnecting, WebhookHeader, WebhookRule, WebhookSecret, WebhookSettings, shown_url,
};

use super::settings_flag::Flags;

#[derive(Debug, Clone, Args)]
pub(crate) struct WebhookArgs {
    /// Hub without app servers, and the URL to which its events are POSTed, such as
    /// `chat=http://127.0.0.1:5000/{hub}/{category}/{event}`: connects, disconnects and method calls of its clients, in
    /// the format of Azure SignalR's upstream. Clients connect at `/chat`, and with an access key also at
    /// `/client/?hub=chat`. `*` in the name matches any characters; clients of such hubs connect only at the latter.
    /// May be given several times; the first one that matches a hub is used. Write a comma in a URL as `%2C`.
    #[arg(
        long = "upstream-webhook",
        env = "TRUNKLINE_UPSTREAM_WEBHOOK",
        value_name = "HUB=URL",
        value_delimiter = ','
    )]
    pub upstream_webhooks: Vec<String>,

    /// Secret that signs the requests of a hub's webhook instead of the access key, so that its back end does not need
    /// that key: `HUB=SECRET`, where `*` in the hub matches any characters. May be given several times: all secrets of
    /// a hub sign, for a rotation without interruption.
    #[arg(
        long = "webhook-secret",
        env = "TRUNKLINE_WEBHOOK_SECRET",
        value_name = "HUB=SECRET",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub webhook_secrets: Vec<String>,

    /// File with secrets of webhooks, one `HUB=SECRET` on each line. May be given several times. Reloaded when it
    /// changes, and on SIGHUP.
    #[arg(
        long = "webhook-secret-file",
        env = "TRUNKLINE_WEBHOOK_SECRET_FILE",
        value_name = "FILE",
        value_delimiter = ','
    )]
    pub webhook_secret_files: Vec<PathBuf>,

    /// Header of each request of the webhooks, for a gateway in front of the back end: `Name: value`, such as
    /// `Authorization: Basic ...`. May be given several times, in the environment variable one on each line. For a
    /// secret rather give --webhook-header-file, because every user of the machine can see command lines. A table
    /// `[webhooks.HUB]` of the configuration file may have `headers` of one hub. Headers that nodes set themselves are
    /// refused.
    #[arg(
        long = "webhook-header",
        env = "TRUNKLINE_WEBHOOK_HEADER",
        value_name = "HEADER",
        value_delimiter = '\n',
        hide_env_values = true
    )]
    pub webhook_headers: Vec<String>,

    /// File with headers of the webhooks' requests, one `Name: value` on each line. May be given several times.
    /// Reloaded when it changes, and on SIGHUP.
    #[arg(
        long = "webhook-header-file",
        env = "TRUNKLINE_WEBHOOK_HEADER_FILE",
        value_name = "FILE",
        value_delimiter = ','
    )]
    pub webhook_header_files: Vec<PathBuf>,

    /// Ask the webhook about each client that connects, by the event `connect`. A response of 2xx may name the user,
    /// groups, claims and data of the client; any other response refuses the client.
    #[arg(long, env = "TRUNKLINE_WEBHOOK_CONNECT")]
    pub webhook_connect: bool,

    /// An item of the client's request for the event `connect`: `address`, `header:NAME` or `cookie:NAME`. May be given
    /// several times.
    #[arg(
        long = "webhook-connect-item",
        env = "TRUNKLINE_WEBHOOK_CONNECT_ITEM",
        value_name = "ITEM",
        value_delimiter = ','
    )]
    pub webhook_connect_items: Vec<ConnectItem>,

    #[command(flatten)]
    pub settings: Flags<WebhookSettings>,
}

impl WebhookArgs {
    pub(super) fn secret_sources(&self) -> anyhow::Result<GivenKeys<WebhookSecret>> {
        let typed = self.webhook_secrets.iter().map(|text| text.parse());
        let typed = typed.collect::<Result<_, String>>().map_err(|problem| anyhow!("--webhook-secret: {problem}"))?;
        Ok(GivenKeys { typed, files: self.webhook_secret_files.clone() })
    }

    pub(super) fn header_sources(&self) -> anyhow::Result<GivenKeys<WebhookHeader>> {
        let given = (1..).zip(&self.webhook_headers).filter(|(_, text)| !text.trim().is_empty());
        // The error names the header by number, because its text may be a secret.
        let typed = given.map(|(number, text): (usize, _)| {
            text.parse().map_err(|problem| anyhow!("--webhook-header number {number}: {problem}"))
        });
        Ok(GivenKeys { typed: typed.collect::<anyhow::Result<_>>()?, files: self.webhook_header_files.clone() })
    }
}

impl TryFrom<&WebhookArgs> for WebhookSettings {
    type Error = anyhow::Error;

    fn try_from(args: &WebhookArgs) -> anyhow::Result<Self> {
        Ok(Self {
            rules: args.upstream_webhooks.iter().map(|text| rule(text)).collect::<Result<_, _>>()?,
            secrets: args.secret_sources()?.read_lines()?,
            headers: args.header_sources()?.read_lines()?,
            connecting: if args.webhook_connect { WebhookConnecting::Asked } else { WebhookConnecting::Open },
            connect_items: args.webhook_connect_items.clone(),
            ..args.settings.0.clone()
        })
    }
}

fn rule(value: &str) -> anyhow::Result<WebhookRule> {
    let rule = value.parse::<WebhookRule>();
    rule.map_err(|problem| anyhow!("--upstream-webhook {:?}: {problem}", shown_url(value)))
}
