//! Flags of webhooks: URLs that hubs have in place of app servers, and their limits.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;
use trunkline_proxy::parts::{WebhookConnecting, WebhookRule, WebhookSettings};

use super::config_error::ConfigError;
use super::value_parser::{bytes, bytes_text, seconds};
use crate::quantity::duration_text;

/// Range of values that `--webhook-answer-max-bytes` takes: at most what a link carries for one client.
const ANSWER_BYTES: RangeInclusive<u64> = 1024..=16 * 1024 * 1024;

/// Range of values that `--webhook-waiting-max-bytes` takes.
const WAITING_BYTES: RangeInclusive<u64> = 64 * 1024..=16 * 1024 * 1024 * 1024;

const DEFAULT: WebhookSettings = WebhookSettings::NONE;

#[derive(Debug, Clone, Args)]
pub(crate) struct WebhookArgs {
    /// A hub without app servers, and the URL to which its events are POSTed, such as
    /// `chat=http://127.0.0.1:5000/{hub}/{category}/{event}`: clients that connect and disconnect, and each method that
    /// they call, in the form of Azure SignalR's upstream. Its clients connect at `/chat`, and with an access key also
    /// at `/client/?hub=chat`. `*` in the name stands for any characters; such hubs are at the latter only. May be
    /// given several times; the first that matches a hub counts. A comma in a URL is written `%2C`.
    #[arg(
        long = "upstream-webhook",
        env = "TRUNKLINE_UPSTREAM_WEBHOOK",
        value_name = "HUB=URL",
        value_delimiter = ','
    )]
    pub upstream_webhooks: Vec<String>,

    /// Ask the webhook about each client before it is let in: the event `connect`. Any answer but 2xx refuses the
    /// client.
    #[arg(long, env = "TRUNKLINE_WEBHOOK_CONNECT")]
    pub webhook_connect: bool,

    /// How long a webhook may take to accept a connection.
    #[arg(long, env = "TRUNKLINE_WEBHOOK_CONNECT_TIMEOUT", value_name = "SECONDS",
          default_value = duration_text(DEFAULT.connect_timeout), value_parser = seconds(1..=600))]
    pub webhook_connect_timeout: Duration,

    /// How long a webhook may take to answer an event, further attempts included. Then the client's call
    /// fails, and its next one is sent.
    #[arg(long, env = "TRUNKLINE_WEBHOOK_TIMEOUT", value_name = "SECONDS",
          default_value = duration_text(DEFAULT.answer_timeout), value_parser = seconds(1..=3600))]
    pub webhook_timeout: Duration,

    /// Largest answer of a webhook; beyond it the client's call fails. At most 16MiB.
    #[arg(long, env = "TRUNKLINE_WEBHOOK_ANSWER_MAX_BYTES", value_name = "BYTES", default_value = bytes_text(DEFAULT.answer_max_bytes),
          value_parser = bytes::<usize>(ANSWER_BYTES))]
    pub webhook_answer_max_bytes: usize,

    /// Requests to webhooks under way for one hub; further events wait their turn.
    #[arg(long, env = "TRUNKLINE_WEBHOOK_IN_FLIGHT_MAX", value_name = "N", default_value_t = DEFAULT.in_flight_max)]
    pub webhook_in_flight_max: NonZeroUsize,

    /// Requests to webhooks under way for all hubs of this node; further events wait their turn.
    #[arg(long, env = "TRUNKLINE_WEBHOOK_TOTAL_IN_FLIGHT_MAX", value_name = "N",
          default_value_t = DEFAULT.total_in_flight_max)]
    pub webhook_total_in_flight_max: NonZeroUsize,

    /// Bytes of events that wait for webhooks at this node; beyond it a client with any waiting event is read no
    /// further, and what clients that have gone leave behind is dropped and counted.
    #[arg(long, env = "TRUNKLINE_WEBHOOK_WAITING_MAX_BYTES", value_name = "BYTES",
          default_value = bytes_text(DEFAULT.waiting_max_bytes), value_parser = bytes::<usize>(WAITING_BYTES))]
    pub webhook_waiting_max_bytes: usize,
}

impl TryFrom<&WebhookArgs> for WebhookSettings {
    type Error = ConfigError;

    fn try_from(args: &WebhookArgs) -> Result<Self, ConfigError> {
        Ok(Self {
            rules: args.upstream_webhooks.iter().map(|text| rule(text)).collect::<Result<_, _>>()?,
            connect_timeout: args.webhook_connect_timeout,
            answer_timeout: args.webhook_timeout,
            answer_max_bytes: args.webhook_answer_max_bytes,
            in_flight_max: args.webhook_in_flight_max,
            total_in_flight_max: args.webhook_total_in_flight_max,
            waiting_max_bytes: args.webhook_waiting_max_bytes,
            connecting: if args.webhook_connect { WebhookConnecting::Asked } else { WebhookConnecting::Open },
        })
    }
}

fn rule(value: &str) -> Result<WebhookRule, ConfigError> {
    let shown = value.split('?').next().unwrap_or_default().to_owned();
    let rule = value.parse::<WebhookRule>();
    rule.map_err(|problem| ConfigError::Webhook { value: shown, problem: problem.to_string() })
}
