//! Companions of the crowd, which are present in some windows, and waiting for the proxy's counters.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use trunkline_bench::product::Product;

const PATIENCE: Duration = Duration::from_secs(60);

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Companion of the crowd, present only in some windows.
pub(crate) trait Companion {
    fn proxy_arguments(&self) -> Vec<String> {
        Vec::new()
    }

    fn come(&mut self, product: &mut Product) -> Result<()>;

    fn events(&self, product: &Product) -> Result<u64>;

    /// Checks that it is still active at the end of a window.
    fn is_there(&self, _product: &Product) -> Result<()> {
        Ok(())
    }

    fn go(&mut self, product: &mut Product) -> Result<()>;
}

pub(crate) fn wait_until(what: &str, is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_for(what, PATIENCE, is_so)
}

/// Waits for a state of the proxy, with a time limit.
pub(crate) fn wait_for(what: &str, patience: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !is_so()? {
        ensure!(started.elapsed() < patience, "{what}: not within {} s", patience.as_secs());
        sleep(LOOK_AGAIN);
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole numbers")]
pub(crate) fn counter(product: &Product, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
    Ok(product.proxy_metrics()?.sum(name, labels) as u64)
}

pub(crate) fn open_links(product: &Product) -> Result<u64> {
    counter(product, "trunkline_links", &[("state", "open")])
}
