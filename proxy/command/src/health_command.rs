//! `trunkline health`: checks whether a node is ready or alive.

use anyhow::{Context, anyhow, bail};
use clap::Args;
use trunkline_proxy::parts::{Address, Connector};

use super::admin_client::{AdminAddressArgs, AdminClient, admin_address};

/// Maximum answer size; reasons for not being ready are short.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Arguments of `trunkline health`.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    admin: AdminAddressArgs,

    /// Check whether the node is alive and was ready once, for health checks of containers: a container engine replaces
    /// unhealthy nodes, which would disconnect clients that wait for an app server.
    #[arg(long)]
    live: bool,
}

/// Returns the text of `/readyz` or `/startupz`. Fails if the node is not ready or does not answer.
pub(super) async fn health(args: &HealthArgs) -> anyhow::Result<String> {
    let url = &args.admin.admin;
    let address =
        address(url).with_context(|| format!("--admin {url:?} is not a URL such as http://127.0.0.1:8090"))?;
    let client = AdminClient::new(Connector::default(), None);
    let answer = client.get(&address, if args.live { "/startupz" } else { "/readyz" }, ANSWER_MAX_BYTES).await;
    let answer = answer.map_err(|problem| anyhow!("no answer from {url}: {problem}"))?;
    let (status, reasons) = (answer.status(), String::from_utf8_lossy(answer.body()).into_owned());
    if !status.is_success() {
        bail!("{url} answers {status}\n{reasons}");
    }
    Ok(reasons)
}

/// Parses the address of an admin port. The scheme is optional, and a path is ignored.
fn address(url: &str) -> Option<Address> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split('/').next().filter(|_| scheme == "http")?;
    admin_address(authority).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_port_needs_no_scheme_and_speaks_no_tls() {
        for url in ["127.0.0.1:8090", "http://127.0.0.1:8090", "http://127.0.0.1:8090/readyz"] {
            assert_eq!(address(url).unwrap().to_string(), "http://127.0.0.1:8090", "{url}");
        }
        assert_eq!(address("node-1").unwrap().to_string(), "http://node-1:80");
        for url in ["https://127.0.0.1:8090", "", "ftp://x", "a b"] {
            assert!(address(url).is_none(), "{url}");
        }
    }
}
