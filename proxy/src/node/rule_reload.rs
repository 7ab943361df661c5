//! Reload of the rules when their file changes, or on SIGHUP. A bad file keeps those in force, and is logged with line
//! and column; nobody is disconnected.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use super::file_check::{FileCheck, FileChecks};
use super::rule_set::RuleSet;
use crate::metrics::Outcome;
use crate::routing::Ruleset;
use crate::shard::Shared;

/// Interval at which the file is checked: a symbolic link that a deployment tool swaps can't be watched reliably.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Version of a file: its time of change and size.
type Version = Option<(SystemTime, u64)>;

/// Checks the file for ever.
pub(super) async fn run(shared: Arc<Shared>, rules: RuleSet, path: PathBuf) {
    // What is in force, and what was there at the last check: a file that is being written is left alone.
    let mut seen = version(&path);
    let mut latest = seen;
    let mut checks = FileChecks::every(CHECK_INTERVAL);
    loop {
        let is_requested = checks.next().await == FileCheck::Hangup;
        let now = version(&path);
        // A file that changes still may be half written, and a half of it can be sound.
        let is_settled = std::mem::replace(&mut latest, now) == now;
        if !is_requested && (now == seen || !is_settled) {
            continue;
        }
        seen = now;
        let read = Ruleset::read(&path).map(Arc::new).map_err(|error| error.to_string());
        let outcome = read.and_then(|read| rules.apply(&read).map(|()| read).map_err(|error| error.to_string()));
        let outcomes = &shared.counters_of(0).rule_reads;
        match outcome {
            Ok(rules) => {
                outcomes.of(Outcome::Done).increment();
                shared.reports.rules_problem.store(None);
                let (groups, routes) = (rules.groups.len(), rules.routes.len());
                info!(file = %path.display(), groups, routes, "rules were read anew");
            }
            Err(problem) => {
                outcomes.of(Outcome::Invalid).increment();
                shared.reports.rules_problem.store(Some(Arc::new(problem.clone())));
                warn!(%problem, "rules can't be read anew: the old ones stay in force");
            }
        }
    }
}

fn version(path: &Path) -> Version {
    let seen = std::fs::metadata(path).and_then(|data| Ok((data.modified()?, data.len())));
    seen.ok()
}
