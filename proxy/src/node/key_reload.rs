//! Reload of the files with apps' keys when they change, or on SIGHUP. Open links and connections are kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use super::file_check::{FileCheck, FileChecks};
use crate::config::AppKeySources;
use crate::shard::Shared;

/// Interval at which the files are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Checks the files for ever, if there are any.
pub(super) async fn run(shared: Arc<Shared>, sources: AppKeySources) {
    if sources.files.is_empty() {
        return;
    }
    let mut seen = versions(&sources.files);
    let mut checks = FileChecks::every(CHECK_INTERVAL);
    loop {
        let is_requested = checks.next().await == FileCheck::Hangup;
        let now = versions(&sources.files);
        if !is_requested && now == seen {
            continue;
        }
        seen = now;
        match sources.read() {
            Ok(keys) => {
                shared.admission.signing_keys.set_flags(&keys);
                info!(keys = keys.len(), "keys of apps were read anew");
            }
            Err(problem) => warn!(%problem, "keys of apps can't be read anew: the old ones stay in force"),
        }
    }
}

fn versions(files: &[PathBuf]) -> Vec<Option<(SystemTime, u64)>> {
    let version = |path: &PathBuf| std::fs::metadata(path).and_then(|data| Ok((data.modified()?, data.len())));
    files.iter().map(|path| version(path).ok()).collect()
}
