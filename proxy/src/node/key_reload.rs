//! Reload of files with keys, webhook secrets and the admin token when they change, or on SIGHUP. This closes only
//! links opened with a removed app key, and page sessions with a replaced token.

use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::file_check::{FileWatch, off_thread};
use crate::engine::shard::Shared;
use crate::features::admission::Admission;
use crate::features::webhook::Webhooks;
use crate::ground::condition::{ConditionKind, Finding};
use crate::ground::config::{AdminTokenSource, SecretFileError, SecretSources};

const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Subject of the condition that reports unreadable files.
const SUBJECT: &str = "keys and secrets";

pub(crate) async fn run(
    (shared, admission): (Arc<Shared>, Arc<Admission>),
    webhooks: Arc<Webhooks>,
    sources: SecretSources,
) {
    let files: Vec<_> = sources.files().cloned().collect();
    if files.is_empty() {
        return;
    }
    let mut watch = FileWatch::new(CHECK_INTERVAL, files).await;
    let sources = Arc::new(sources);
    let counted = sources.clone();
    off_thread(move || counted.count_lines()).await;
    loop {
        watch.changed().await;
        let (watched, shared, admission) = (&shared, shared.clone(), admission.clone());
        let (webhooks, sources) = (webhooks.clone(), sources.clone());
        match off_thread(move || reload((&shared, &admission), &webhooks, &sources)).await {
            Ok(()) => {
                watched.reports.conditions.clear(ConditionKind::FileUnreadable, SUBJECT);
                info!("keys, webhook secrets and the admin token reloaded");
            }
            Err(problem) => {
                watched.reports.conditions.report(Finding::new(ConditionKind::FileUnreadable, SUBJECT, problem), None);
            }
        }
    }
}

/// Applies the keys and secrets of all files, or none of them.
///
/// # Errors
/// Text of the problem, with its flag.
pub(crate) fn reload(
    (shared, admission): (&Shared, &Admission),
    webhooks: &Webhooks,
    sources: &SecretSources,
) -> Result<(), String> {
    let keys = sources.access.read().map_err(|error| error.to_string())?;
    let of_apps = sources.apps.read_lines_again(&sources.counts).map_err(|error| error.to_string())?;
    let of_webhooks = sources.webhooks.read_lines_again(&sources.counts).map_err(|error| error.to_string())?;
    let headers = sources.webhook_headers.read_lines_again(&sources.counts).map_err(|error| error.to_string())?;
    let of_tokens = sources.tokens.read().map_err(|error| error.to_string())?;
    let of_admin = sources.admin.as_ref().map(|admin| Ok((admin, AdminTokenSource::read(&admin.file)?))).transpose();
    let of_admin = of_admin.map_err(|error: SecretFileError| error.to_string())?;
    // All or nothing, so the checks come first.
    admission.signing_keys.check_flags(&of_apps, &keys).map_err(|error| error.to_string())?;
    // Without sources, the node keeps its generated key.
    if !sources.access.is_empty() {
        shared.settings.keys.replace(keys).map_err(|error| error.to_string())?;
    }
    admission.signing_keys.set_flags(&of_apps).map_err(|error| error.to_string())?;
    webhooks.set_secrets(of_webhooks);
    webhooks.set_headers(headers);
    if !sources.tokens.is_empty() {
        admission.verifier.set_keys(of_tokens);
    }
    admission.verifier.read_sets();
    if let Some((admin, token)) = of_admin {
        admin.in_force.replace(token);
    }
    Ok(())
}
