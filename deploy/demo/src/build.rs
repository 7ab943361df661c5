//! Build of the programs, and their paths.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::process::Group;
use crate::signals::StopSignals;

/// The programs that the demo runs.
#[derive(Debug)]
pub(crate) struct Programs {
    /// Path of the chat app server.
    pub(crate) chat: PathBuf,
    /// Path of the `trunkline` command.
    pub(crate) proxy: PathBuf,
}

/// Builds both in release mode, with cargo's progress on stderr; returns `None` if a signal stops the build.
pub(crate) async fn release(stop: &mut StopSignals) -> anyhow::Result<Option<Programs>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .args(["build", "--release", "--package", "trunkline-proxy", "--bin", "trunkline"])
        .args(["--package", "trunkline", "--example", "chat"])
        .stdin(Stdio::null());
    // Where `cargo run` found this crate, not where it was compiled: a checkout may move, or be copied.
    if let Some(folder) = std::env::var_os("CARGO_MANIFEST_DIR") {
        command.current_dir(folder);
    }
    // Variables that `cargo run` sets for this crate don't concern the others, but could cause them to be built again.
    let is_of_cargo_run =
        |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_of_cargo_run)) {
        command.env_remove(name);
    }
    let mut build = Group::start(command).with_context(|| format!("{} can't be run", cargo.display()))?;
    let status = tokio::select! {
        status = build.wait() => status?,
        () = stop.received() => {
            build.end().await;
            return Ok(None);
        }
    };
    if !status.success() {
        bail!("the build failed ({status})");
    }
    Programs::below(&profile_folder()?.with_file_name("release")).map(Some)
}

/// Finds the programs in the profile of this one.
pub(crate) fn beside_this_program() -> anyhow::Result<Programs> {
    Programs::below(&profile_folder()?)
}

/// Returns the folder of this program: `target/<profile>`, wherever that is.
fn profile_folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("the folder of this program is not known")?;
    program.parent().map(Path::to_owned).context("this program is in no folder")
}

impl Programs {
    fn below(folder: &Path) -> anyhow::Result<Self> {
        let find = |folder: &Path, name: &str| {
            let path = folder.join(name).with_extension(std::env::consts::EXE_EXTENSION);
            if path.is_file() {
                Ok(path)
            } else {
                bail!("{} is missing: build it, or run `cargo demo`", path.display())
            }
        };
        Ok(Self { chat: find(&folder.join("examples"), "chat")?, proxy: find(folder, "trunkline")? })
    }
}
