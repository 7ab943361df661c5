//! Mirror with a frozen app server.
//!
//! The app server has its own group in the node's configuration file, so the node keeps links to it in all windows. In
//! windows with the mirror, the app server is frozen and the rule copies all connections of the hub. In the other
//! windows the rule applies to a nonexistent hub, because a group without a mirror would serve clients. Between windows
//! the app server resumes, so that its links are open for the next window: after minutes of freezing they would be
//! lost, and copies would be cheaper. Windows longer than about 7 s measure both: copies sent until the buffers are
//! full, then lost links and dropped copies.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use trunkline_bench::product::{LINKS, MeasuredApp, Product};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::Fixture;

use crate::companion::{Companion, counter, open_links, wait_until};

/// Metric for reads of the file.
const READS: &str = "trunkline_rule_reads_total";

/// Hub with copied connections in windows with the mirror.
const HUB: &str = "/bench";

/// Name of a nonexistent hub.
const NO_HUB: &str = "/nothing";

#[derive(Debug)]
pub(crate) struct Mirror {
    app: MeasuredApp,
    fixture: Fixture,
}

impl Mirror {
    /// Starts its app server and writes the node's file.
    pub(crate) fn start() -> Result<Self> {
        let mirror = Self { app: MeasuredApp::start()?, fixture: Fixture::new()? };
        mirror.write(NO_HUB)?;
        Ok(mirror)
    }

    fn file(&self) -> PathBuf {
        self.fixture.folder().join("trunkline.toml")
    }

    fn write(&self, hub: &str) -> Result<()> {
        let (file, next) = (self.file(), self.file().with_extension("next"));
        let address = self.app.address();
        let text = format!(
            "[groups.copies]\nupstream = [\"http://{address}\"]\n\n\
             [[mirrors]]\nname = \"copies\"\nhub = \"{hub}\"\ngroup = \"copies\"\n"
        );
        fs::write(&next, text).with_context(|| format!("writing {}", next.display()))?;
        fs::rename(&next, &file).with_context(|| format!("writing {}", file.display()))
    }

    /// Makes the node read the file with a mirror of this hub. The node also polls the file.
    fn copy(&self, product: &mut Product, hub: &str) -> Result<()> {
        let reads = |product: &Product| counter(product, READS, &[("outcome", "ok")]);
        let before = reads(product)?;
        self.write(hub)?;
        product.signal_proxy(Signal::Hangup)?;
        wait_until("the node reads its file anew", || Ok(reads(product)? > before))
    }

    fn is_linked(product: &Product) -> Result<bool> {
        Ok(open_links(product)? >= 2 * u64::from(LINKS))
    }
}

impl Companion for Mirror {
    fn proxy_arguments(&self) -> Vec<String> {
        vec!["--config".to_owned(), self.file().to_string_lossy().into_owned()]
    }

    fn come(&mut self, product: &mut Product) -> Result<()> {
        wait_until("the mirror is linked", || Self::is_linked(product))?;
        self.app.signal(Signal::Freeze)?;
        self.copy(product, HUB)
    }

    fn events(&self, product: &Product) -> Result<u64> {
        counter(product, "trunkline_mirror_messages_total", &[])
    }

    fn go(&mut self, product: &mut Product) -> Result<()> {
        self.copy(product, NO_HUB)?;
        self.app.signal(Signal::Thaw)?;
        wait_until("the mirror is linked again", || Self::is_linked(product))
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // The rest is a small file in the build folder.
        drop(fs::remove_dir_all(self.fixture.folder()));
    }
}
