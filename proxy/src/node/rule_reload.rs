//! Reload of the rules when their file or one that it names changes, or on SIGHUP. A bad file keeps those in force, and
//! is logged with line and column; nobody is disconnected.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::file_check::FileWatch;
use super::rule_set::RuleSet;
use crate::metrics::Outcome;
use crate::routing::{NamedFiles, Ruleset};
use crate::shard::Shared;

/// Interval at which the file is checked: a symbolic link that a deployment tool swaps can't be watched reliably.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Checks the files for ever.
pub(crate) async fn run(shared: Arc<Shared>, rules: RuleSet, path: PathBuf) {
    let mut watch = FileWatch::new(CHECK_INTERVAL, files(&path, NamedFiles::of(&path).unwrap_or_default()));
    loop {
        watch.changed().await;
        if let Some(named) = NamedFiles::of(&path) {
            watch.follow(files(&path, named));
        }
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
                warn!(
                    %problem,
                    "rules can't be read anew: the old ones stay in force, and so do keys that are removed from the file or \
                     replaced in it"
                );
            }
        }
    }
}

/// The rule file, and those that it names: a key that somebody has replaced counts at once.
fn files(path: &Path, named: NamedFiles) -> Vec<PathBuf> {
    [path.to_owned()].into_iter().chain(named.secrets).chain(named.pages).collect()
}
