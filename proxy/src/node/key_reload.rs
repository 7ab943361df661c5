//! Reload of the files with access keys and with apps' keys when they change, or on SIGHUP. Open connections are kept,
//! and so are links, but for those that an app's key has opened which is gone.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::file_check::FileWatch;
use crate::auth::AppKey;
use crate::config::{AccessKeySources, AppKeySources};
use crate::shard::Shared;

/// Interval at which the files are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Where access keys and keys of apps are from.
pub(crate) type Sources = (AccessKeySources, AppKeySources);

/// Checks the files for ever, if there are any.
pub(crate) async fn run(shared: Arc<Shared>, (access, apps): Sources) {
    let files: Vec<_> = access.files.iter().chain(&apps.files).cloned().collect();
    if files.is_empty() {
        return;
    }
    let mut watch = FileWatch::new(CHECK_INTERVAL, files);
    loop {
        watch.changed().await;
        match reload(&shared, &access, &apps) {
            Ok(()) => info!("access keys and keys of apps were read anew"),
            Err(problem) => warn!(%problem, "keys can't be read anew: the old ones stay in force"),
        }
    }
}

/// Puts the keys of all files in force, or none of them.
///
/// # Errors
/// The text of the problem, with its flag.
pub(crate) fn reload(shared: &Shared, access: &AccessKeySources, apps: &AppKeySources) -> Result<(), String> {
    let keys = access.read().map_err(|error| error.to_string())?;
    let of_apps = apps.read().map_err(|error| error.to_string())?;
    // All or nothing, so what could fail comes first.
    let rules = shared.hubs.rules();
    AppKey::check_all(of_apps.iter().chain(&rules.app_keys), &keys).map_err(|error| error.to_string())?;
    // Without sources the node has a key of its own making, which stays.
    if !access.is_empty() {
        shared.settings.keys.replace(keys).map_err(|error| error.to_string())?;
    }
    shared.admission.signing_keys.set_flags(&of_apps).map_err(|error| error.to_string())
}
