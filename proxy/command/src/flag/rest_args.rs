//! Flags of the REST data plane.

use clap::Args;
use trunkline_proxy::parts::{RestSettings, host_of_url};

use super::settings_flag::Flags;
use super::socket_address::socket_address;

#[derive(Debug, Clone, Args)]
pub(crate) struct RestArgs {
    /// Serve the REST data plane on the client ports, too: `/api/hubs/{hub}/...`, with which back ends send to clients
    /// and query connections. Callers need a token signed with the access key: `trunkline token rest` prints one. On by
    /// default on a node without an access key, `--upstream` and `--rest-listen`: a local Azure SignalR Service.
    #[arg(long, env = "TRUNKLINE_REST")]
    pub rest: bool,

    /// Separate port for the REST data plane, such as `127.0.0.1:8091`. With the address of `--admin` the admin port
    /// serves it.
    #[arg(long, env = "TRUNKLINE_REST_LISTEN", value_name = "HOST:PORT")]
    pub rest_listen: Option<String>,

    #[command(flatten)]
    pub settings: Flags<RestSettings>,

    /// Host required in the audience of a REST token, such as `signalr.example`, so that a token for one fleet is
    /// invalid at other fleets with the same key. Only the host of a URL counts; may be given several times. Without
    /// the flag any host is accepted.
    #[arg(long = "rest-audience", env = "TRUNKLINE_REST_AUDIENCE", value_name = "HOST", value_delimiter = ',',
          value_parser = audience_host)]
    pub rest_audiences: Vec<String>,
}

/// Parses a host, or the host of a URL.
pub(crate) fn audience_host(text: &str) -> Result<String, String> {
    let host = if text.contains("://") { host_of_url(text) } else { host_of_url(&format!("http://{text}")) };
    let host = host.filter(|host| (1..=253).contains(&host.len()));
    host.ok_or_else(|| "must be a host such as signalr.example, or a URL".into())
}

impl RestArgs {
    /// Settings of a node. A local service for development serves REST like Azure's, unless it has another port.
    pub(super) fn settings(&self, is_local_service: bool) -> anyhow::Result<RestSettings> {
        let settings = RestSettings::try_from(self)?;
        let on_client_ports = settings.on_client_ports || is_local_service && settings.listen.is_none();
        Ok(RestSettings { on_client_ports, ..settings })
    }
}

impl TryFrom<&RestArgs> for RestSettings {
    type Error = anyhow::Error;

    fn try_from(args: &RestArgs) -> anyhow::Result<Self> {
        let listen = args.rest_listen.as_deref();
        Ok(Self {
            on_client_ports: args.rest,
            listen: listen.map(|text| socket_address("--rest-listen", text)).transpose()?,
            audience_hosts: args.rest_audiences.clone(),
            ..args.settings.0.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct RestCli {
        #[command(flatten)]
        args: RestArgs,
    }

    #[test]
    fn a_local_service_serves_rest_unless_it_has_another_port_for_it() {
        let is_on = |flags: &[&str], is_local| {
            let args = RestCli::parse_from([&["trunkline"], flags].concat()).args;
            args.settings(is_local).unwrap().on_client_ports
        };
        assert!(is_on(&[], true) && is_on(&["--rest"], false));
        assert!(!is_on(&[], false) && !is_on(&["--rest-listen", "127.0.0.1:8091"], true));
    }

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
