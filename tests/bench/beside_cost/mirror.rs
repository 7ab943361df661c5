//! Mirror whose app server is frozen.
//!
//! The app server has a group of its own in the node's configuration file, to which the node keeps links in all
//! windows. In a window with it the app server stands still, and the rule in the file copies all connections of the
//! hub; in others it is about a hub that nobody has, because a group that no mirror names would be one for clients.
//! Between windows the app server goes on, so that its links are open again when the next window begins: links to one
//! that stood still for minutes would be lost, and copies for it cost less. In a window of more than some 7 s both are
//! measured: copies that are sent as far as buffers go, then links that are lost and copies that are dropped.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use trunkline_tests::bench::product::{LINKS, MeasuredApp, Product};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::Stage;

use crate::companion::{Companion, counter, open_links, wait_until};

/// Metric of the reads of the file.
const READS: &str = "trunkline_rule_reads_total";

/// Hub whose connections are copied in windows with the mirror.
const HUB: &str = "/bench";

/// Hub that no app server has.
const NO_HUB: &str = "/nothing";

/// Mirror whose app server is frozen in windows with it.
#[derive(Debug)]
pub(crate) struct Mirror {
    app: MeasuredApp,
    stage: Stage,
}

impl Mirror {
    /// Starts its app server, and writes the node's file.
    pub(crate) fn start() -> Result<Self> {
        let mirror = Self { app: MeasuredApp::start()?, stage: Stage::new()? };
        mirror.write(NO_HUB)?;
        Ok(mirror)
    }

    fn file(&self) -> PathBuf {
        self.stage.folder().join("trunkline.toml")
    }

    /// Writes the file with a mirror of this hub in one step, as deployment tools do it.
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

    /// Has the node read the file with a mirror of this hub. It looks for itself, too.
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
        // What is left of it is a small file in the build folder.
        drop(fs::remove_dir_all(self.stage.folder()));
    }
}
