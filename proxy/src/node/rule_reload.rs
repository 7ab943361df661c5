//! Reload of the rules when their file or a referenced file changes, or on SIGHUP. An invalid file is logged with line
//! and column, and the current rules stay active. No client is disconnected.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::file_check::{FileWatch, off_thread};
use super::rule_set::RuleSet;
use crate::engine::shard::Shared;
use crate::ground::condition::{ConditionKind, Finding};
use crate::ground::metrics::Outcome;
use crate::ground::routing::{NamedFiles, RuleFile};

/// Interval of file checks: symbolic links swapped by deployment tools can't be watched reliably.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Subject of the condition that reports an unreadable file.
const SUBJECT: &str = "rules";

pub(crate) async fn run(shared: Arc<Shared>, rules: RuleSet, path: PathBuf) {
    let rules = Arc::new(rules);
    let mut watch = FileWatch::new(CHECK_INTERVAL, files(&path).await.unwrap_or_else(|| vec![path.clone()])).await;
    loop {
        watch.changed().await;
        if let Some(files) = files(&path).await {
            watch.follow(files).await;
        }
        let (rules, file) = (rules.clone(), path.clone());
        let outcome = off_thread(move || {
            let RuleFile { rules: read, access } = RuleFile::read(&file).map_err(|error| error.to_string())?;
            rules.apply(&read, &access).map(|()| read).map_err(|error| error.to_string())
        });
        let outcome = outcome.await;
        let outcomes = &shared.counters_of(0).rule_reads;
        match outcome {
            Ok(rules) => {
                outcomes.of(Outcome::Done).increment();
                shared.reports.conditions.clear(ConditionKind::FileUnreadable, SUBJECT);
                let (groups, routes) = (rules.groups.len(), rules.routes.len());
                info!(file = %path.display(), groups, routes, "rules reloaded");
            }
            Err(problem) => {
                outcomes.of(Outcome::Invalid).increment();
                shared.reports.conditions.report(Finding::new(ConditionKind::FileUnreadable, SUBJECT, problem), None);
            }
        }
    }
}

/// The rules file and the files it references; a replaced key applies immediately. `None` if the rules file is
/// unreadable.
async fn files(path: &Path) -> Option<Vec<PathBuf>> {
    let path = path.to_owned();
    off_thread(move || {
        let NamedFiles { secrets, issuer_keys, key_sets, pages, .. } = NamedFiles::of(&path)?;
        let keys = secrets.into_iter().chain(issuer_keys).chain(key_sets);
        Some([path].into_iter().chain(keys).chain(pages).collect())
    })
    .await
}
