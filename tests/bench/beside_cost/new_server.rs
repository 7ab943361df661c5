//! App server that starts while clients are connected: the node assigns it clients at a limited rate.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use trunkline_bench::product::{LINKS, MeasuredApp, Product, address};

use crate::companion::{Companion, counter, open_links, wait_for, wait_until};

/// Metric for clients reassigned to a new app server.
const MOVED: &str = "trunkline_client_connections_app_rebalanced_total";

/// Maximum time until further clients are reassigned, normally each second.
const NEXT_MOVES: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct NewServer {
    address: SocketAddr,
    /// Clients reassigned per second.
    rate: u32,
    app: Option<MeasuredApp>,
}

impl NewServer {
    /// Reserves its address, which the node keeps dialling until the app server starts.
    pub(crate) fn new(rate: u32) -> Result<Self> {
        Ok(Self { address: address()?, rate, app: None })
    }

    fn moves_on(product: &Product, patience: Duration) -> Result<()> {
        let before = counter(product, MOVED, &[])?;
        wait_for("clients move to the newcomer", patience, || Ok(counter(product, MOVED, &[])? > before))
    }
}

impl Companion for NewServer {
    fn proxy_arguments(&self) -> Vec<String> {
        let (upstream, rate) = (format!("http://{}", self.address), self.rate.to_string());
        ["--upstream", &upstream, "--app-rebalance-rate", &rate].map(str::to_owned).into()
    }

    fn come(&mut self, product: &mut Product) -> Result<()> {
        let before = counter(product, MOVED, &[])?;
        self.app = Some(MeasuredApp::start_at(self.address)?);
        wait_until("clients move to an app server that has come", || Ok(counter(product, MOVED, &[])? > before))
    }

    fn events(&self, product: &Product) -> Result<u64> {
        counter(product, MOVED, &[])
    }

    fn is_there(&self, product: &Product) -> Result<()> {
        Self::moves_on(product, NEXT_MOVES).context(
            "the rebalance is over before the window: shorten the window, or take more clients or a lower rate",
        )
    }

    /// Stops it. Afterwards it has handed over its clients, and the node has no links to it.
    fn go(&mut self, product: &mut Product) -> Result<()> {
        self.app.take().map_or(Ok(()), MeasuredApp::stop)?;
        let is_gone = || {
            let homeless = counter(product, "trunkline_client_connections_homeless", &[])?;
            Ok(homeless == 0 && open_links(product)? <= u64::from(LINKS))
        };
        wait_until("all clients are back where they were", is_gone)
    }
}
