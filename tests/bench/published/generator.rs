//! Run of the load tester, as a process.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use trunkline_bench::product::program;
use trunkline_tests::harness::command::print_line;

use crate::fleet::Fleet;
use crate::report::Report;
use crate::slice::Load;

/// Exit status of a run with faults, which are also evaluated here.
const NOT_CLEAN: i32 = 1;

/// Runs the load tester, and shows its output on errors.
pub(crate) fn run(load: &Load, fleet: &Fleet) -> Result<Report> {
    let file = File::new();
    let mut command = Command::new(program("trunkline-load")?);
    command.args(load.arguments()).arg("--json").arg(&file.0);
    for server in &fleet.parts.servers {
        command.args(["--server", &server.to_string()]);
    }
    for (name, pid) in &fleet.parts.processes {
        command.args(["--pid", &format!("{name}={pid}")]);
    }
    // It draws its progress on a terminal.
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("starting the generator")?;
    if !output.status.success() {
        print_line(&String::from_utf8_lossy(&output.stdout));
    }
    ensure!(
        output.status.success() || output.status.code() == Some(NOT_CLEAN),
        "the generator ended with {}",
        output.status
    );
    Report::read(&file.0)
}

/// File of the report, removed on drop.
struct File(PathBuf);

impl File {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("trunkline-published-{}.json", std::process::id())))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Missing if the run failed.
        drop(std::fs::remove_file(&self.0));
    }
}
