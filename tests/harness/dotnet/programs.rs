//! Unpacked archives of .NET programs.

use std::path::{Path, PathBuf};
use std::process::Command as BlockingCommand;
use std::sync::LazyLock;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, anyhow, ensure};
use tokio::process::Command;

use crate::harness::scenario::target_folder;

/// Archive with programs and their runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Archive {
    /// App server and client on .NET 10.
    Net10,
    /// App server, client and probe on .NET 11.
    Net11,
}

/// Folder of an archive's programs, if the archive exists.
type Programs = LazyLock<Result<Option<PathBuf>>>;

static NET_10: Programs = LazyLock::new(|| unpacked(Archive::Net10));
static NET_11: Programs = LazyLock::new(|| unpacked(Archive::Net11));

impl Archive {
    /// Name of its folder, and of the file without extension.
    fn name(self) -> &'static str {
        match self {
            Self::Net10 => "dotnet-apps",
            Self::Net11 => "dotnet11-apps",
        }
    }

    /// Finds its programs, or prints that the test is skipped.
    ///
    /// # Panics
    /// If the archive can't be unpacked.
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    pub(super) fn found(self) -> Option<DotNet> {
        let dotnet = self.find().unwrap_or_else(|error| panic!("{error:?}"));
        if dotnet.is_none() {
            eprintln!("skipped: there is no {}.tar.xz (TRUNKLINE_AZURE_SDK names its folder)", self.name());
        }
        dotnet
    }

    fn find(self) -> Result<Option<DotNet>> {
        let programs = match self {
            Self::Net10 => &NET_10,
            Self::Net11 => &NET_11,
        };
        let folder = programs.as_ref().map_err(|error| anyhow!("{error:#}"))?;
        Ok(folder.clone().map(|folder| DotNet { folder }))
    }
}

/// Folder with the archives and `records/`, if it exists.
#[must_use]
pub fn azure_sdk_folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/azure-sdk");
    let folder = std::env::var_os("TRUNKLINE_AZURE_SDK").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

/// Unpacked archive with programs and runtime.
#[derive(Debug, Clone)]
pub struct DotNet {
    folder: PathBuf,
}

impl DotNet {
    /// Finds the programs; `None` without an archive.
    pub fn find() -> Result<Option<Self>> {
        Archive::Net10.find()
    }

    /// Path of the runtime, which runs each assembly.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.folder.join("dotnet/dotnet")
    }

    /// Path of an assembly, such as `app/signalr-app.dll`.
    #[must_use]
    pub fn assembly(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether the archive contains a program. If not, prints that the test is skipped.
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    pub(super) fn has(&self, program: &str) -> bool {
        let is_there = self.assembly(program).is_file();
        if !is_there {
            eprintln!("skipped: {} holds no {program}", self.folder.display());
        }
        is_there
    }

    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.runtime());
        command.arg(self.assembly(program));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TRUNKLINE_") {
                command.env_remove(name);
            }
        }
        command
    }
}

/// Finds the .NET 10 programs, or prints that the test is skipped.
///
/// # Panics
/// If the archive can't be unpacked.
pub(crate) fn found() -> Option<DotNet> {
    Archive::Net10.found()
}

/// Unpacks an archive once, into a folder in the build folder named by the archive's size and age.
///
/// Processes may do this concurrently: each unpacks to a temporary folder, and the first to finish renames its own.
fn unpacked(archive: Archive) -> Result<Option<PathBuf>> {
    let name = archive.name();
    let archive = azure_sdk_folder().map(|folder| folder.join(format!("{name}.tar.xz")));
    let Some(archive) = archive.filter(|archive| archive.is_file()) else { return Ok(None) };
    let details = archive.metadata()?;
    let age = details.modified()?.duration_since(UNIX_EPOCH)?.as_secs();
    let parent = target_folder()?.join("azure-sdk");
    let folder = parent.join(format!("{}-{age}", details.len()));
    let programs = folder.join(name);
    if programs.is_dir() {
        return Ok(Some(programs));
    }
    let mine = parent.join(format!("unpacking-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&mine)?;
    let status = BlockingCommand::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(&mine).status();
    let status = status.context("running tar")?;
    ensure!(status.success(), "{} can't be unpacked: {status}", archive.display());
    if std::fs::rename(&mine, &folder).is_err() {
        // Another process was first.
        std::fs::remove_dir_all(&mine)?;
    }
    ensure!(programs.is_dir(), "{} holds no folder of this name", programs.display());
    Ok(Some(programs))
}
