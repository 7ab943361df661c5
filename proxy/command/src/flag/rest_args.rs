//! Flags of the REST data plane.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;

use clap::Args;
use trunkline_proxy::parts::{RestSettings, host_of_url};

use super::config_error::ConfigError;
use super::socket_address::socket_address;
use super::value_parser::{bytes, bytes_text};

/// Range of values that `--rest-body-max-bytes` takes: up to a quarter of what a link takes as one frame.
const BODY_BYTES: RangeInclusive<u64> = 1024..=4 * 1024 * 1024;

#[derive(Debug, Clone, Args)]
pub(crate) struct RestArgs {
    /// Answer the REST data plane on the client ports, too: `/api/hubs/{hub}/...`, with which back ends send to clients
    /// and ask who is there. Callers show a token that the access key signs: `trunkline token rest` prints one.
    #[arg(long, env = "TRUNKLINE_REST")]
    pub rest: bool,

    /// A port of its own for the REST data plane, such as `127.0.0.1:8091`. The address of `--admin` has that port
    /// answer it.
    #[arg(long, env = "TRUNKLINE_REST_LISTEN", value_name = "HOST:PORT")]
    pub rest_listen: Option<String>,

    /// Largest body of a REST request.
    #[arg(long, env = "TRUNKLINE_REST_BODY_MAX_BYTES", value_name = "BYTES",
          default_value = bytes_text(RestSettings::default().body_max_bytes), value_parser = bytes::<usize>(BODY_BYTES))]
    pub rest_body_max_bytes: usize,

    /// REST requests that this node answers at a time; beyond it 503 and `Retry-After`.
    #[arg(long, env = "TRUNKLINE_REST_REQUESTS_MAX", value_name = "N", default_value_t = RestSettings::default().requests_max)]
    pub rest_requests_max: NonZeroUsize,

    /// Memberships of users in groups that are kept for connections to come, 100 of each user at most; beyond it 409.
    #[arg(long, env = "TRUNKLINE_REST_USER_GROUPS_MAX", value_name = "N",
          default_value_t = RestSettings::default().user_groups_max)]
    pub rest_user_groups_max: usize,

    /// A host that the audience of a REST token has to name, such as `signalr.example`, so that a token for one fleet
    /// is good at no other one with the same key. Of a URL the host counts; several are possible. Without it any host
    /// is taken.
    #[arg(long = "rest-audience", env = "TRUNKLINE_REST_AUDIENCE", value_name = "HOST", value_delimiter = ',',
          value_parser = audience_host)]
    pub rest_audiences: Vec<String>,
}

/// Reads a host, or a URL of which the host counts.
pub(crate) fn audience_host(text: &str) -> Result<String, String> {
    let host = if text.contains("://") { host_of_url(text) } else { host_of_url(&format!("http://{text}")) };
    let host = host.filter(|host| (1..=253).contains(&host.len()));
    host.ok_or_else(|| "must be a host such as signalr.example, or a URL".into())
}

impl TryFrom<&RestArgs> for RestSettings {
    type Error = ConfigError;

    fn try_from(args: &RestArgs) -> Result<Self, ConfigError> {
        let listen = args.rest_listen.as_deref().filter(|text| !text.is_empty());
        Ok(Self {
            on_client_ports: args.rest,
            listen: listen.map(|text| socket_address("--rest-listen", text)).transpose()?,
            body_max_bytes: args.rest_body_max_bytes,
            requests_max: args.rest_requests_max,
            user_groups_max: args.rest_user_groups_max,
            audience_hosts: args.rest_audiences.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_is_a_host_or_a_url_of_which_the_host_counts() {
        for text in
            ["Signalr.example", "https://signalr.example", "http://signalr.example:8080/x", "signalr.example:443"]
        {
            assert_eq!(audience_host(text).as_deref(), Ok("signalr.example"), "{text}");
        }
        assert_eq!(audience_host("https://[::1]:80/").as_deref(), Ok("[::1]"));
        for wrong in ["", "https://", "a b", "http:///x"] {
            assert!(audience_host(wrong).is_err(), "{wrong}");
        }
    }
}
