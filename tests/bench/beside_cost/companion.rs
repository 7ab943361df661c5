//! Companions of the crowd, which are there in some windows and not in others; waits for the proxy's counters.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use trunkline_tests::bench::product::Product;

/// Time after which a companion is not going to come or go.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks at the proxy's counters.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Companion of the crowd: it is there in some windows and not in others.
pub(crate) trait Companion {
    /// Further arguments of the proxy.
    fn proxy_arguments(&self) -> Vec<String> {
        Vec::new()
    }

    /// Brings it in. It is there when this returns.
    fn come(&mut self, product: &mut Product) -> Result<()>;

    /// Number of events so far: what the proxy has done for it.
    fn events(&self, product: &Product) -> Result<u64>;

    /// Checks that it is still there at the end of a window.
    fn is_there(&self, _product: &Product) -> Result<()> {
        Ok(())
    }

    /// Takes it away. The proxy has nothing to do with it when this returns.
    fn go(&mut self, product: &mut Product) -> Result<()>;
}

/// Waits for a state that the proxy brings about.
pub(crate) fn wait_until(what: &str, is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_for(what, PATIENCE, is_so)
}

/// Waits for a state of the proxy, and gives up after `patience`.
pub(crate) fn wait_for(what: &str, patience: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !is_so()? {
        ensure!(started.elapsed() < patience, "{what}: not within {} s", patience.as_secs());
        sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// A counter of the proxy, with these labels, as a whole number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole numbers")]
pub(crate) fn counter(product: &Product, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
    Ok(product.proxy_metrics()?.sum(name, labels) as u64)
}

/// Number of open links between the proxy and app servers.
pub(crate) fn open_links(product: &Product) -> Result<u64> {
    counter(product, "trunkline_links", &[("state", "open")])
}
