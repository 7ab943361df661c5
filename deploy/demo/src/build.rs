//! Builds and locates the programs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use crate::app::App;
use crate::process::{Group, print_note};
use crate::signals::StopSignals;

#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) app: PathBuf,
    pub(crate) proxy: PathBuf,
}

/// Build profile of the demo, and the name of its folder.
const PROFILE: &str = "demo";

/// Builds both programs in the demo's profile. Returns `None` if a signal stops the build.
pub(crate) async fn build(app: App, stop: &mut StopSignals) -> anyhow::Result<Option<Programs>> {
    let folder = profile_folder()?.with_file_name(PROFILE);
    let started = Instant::now();
    print_note(&plan_of_work(app, program(&folder, "trunkline").is_file()));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .args(["build", "--profile", PROFILE, "--package", "trunkline-proxy", "--bin", "trunkline"])
        .args(["--package", "trunkline-demo-apps", "--bin", &format!("demo-{}", app.name())])
        .args(["--no-default-features", "--features", "trunkline-proxy/default"])
        .stdin(Stdio::null());
    // Where `cargo run` found this crate, not where it was compiled: a checkout may be moved or copied.
    if let Some(folder) = std::env::var_os("CARGO_MANIFEST_DIR") {
        command.current_dir(folder);
    }
    // Variables that `cargo run` sets for this crate could make cargo rebuild the others.
    let is_of_cargo_run =
        |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_of_cargo_run)) {
        command.env_remove(name);
    }
    let mut build = Group::start(command).with_context(|| format!("{} can't be run", cargo.display()))?;
    let status = tokio::select! {
        status = build.wait() => status?,
        () = stop.received() => {
            build.end_group().await;
            return Ok(None);
        }
    };
    ensure!(status.success(), "the build failed ({status})");
    print_note(&format!("built in {} s", started.elapsed().as_secs()));
    Programs::built(&folder, app).map(Some)
}

/// Finds the programs built in the same profile as this one.
pub(crate) fn beside_this_program(app: App) -> anyhow::Result<Programs> {
    let folder = profile_folder()?;
    Programs::find(&folder.join("examples"), app.name(), &folder)
}

fn plan_of_work(app: App, has_proxy: bool) -> String {
    let time = if has_proxy {
        "changes since the last build"
    } else {
        "not optimised; the first time takes about two minutes on two cores, later ones a second"
    };
    format!("building the proxy and the app “{}”: {time}", app.name())
}

/// Folder of this program, usually `target/<profile>`.
fn profile_folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("the folder of this program is not known")?;
    program.parent().map(Path::to_owned).context("this program has no folder")
}

fn program(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).with_extension(std::env::consts::EXE_EXTENSION)
}

impl Programs {
    fn built(folder: &Path, app: App) -> anyhow::Result<Self> {
        Self::find(folder, &format!("demo-{}", app.name()), folder)
    }

    fn find(apps: &Path, app: &str, proxies: &Path) -> anyhow::Result<Self> {
        let find = |folder: &Path, name: &str| {
            let path = program(folder, name);
            if path.is_file() {
                Ok(path)
            } else {
                bail!("{} is missing: build it, or run `cargo demo`", path.display())
            }
        };
        Ok(Self { app: find(apps, app)?, proxy: find(proxies, "trunkline")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_duration_is_printed_before_the_first_build_only() {
        assert!(plan_of_work(App::Chat, false).contains("about two minutes"));
        assert!(!plan_of_work(App::Chat, true).contains("minutes"));
    }
}
