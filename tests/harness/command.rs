//! Output and end of a command of the tests: lines, JSON report, error and exit status.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;

/// Prints results for a person, or an expected line for another process of the run.
pub fn print_line(text: &str) {
    drop(writeln!(io::stdout(), "{text}"));
}

/// Returns the exit status and prints any error.
pub fn finish(name: &str, done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report_error(name, &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Warns if results of this build are meaningless.
pub fn warn_of_debug_build(name: &str) {
    if cfg!(debug_assertions) {
        report_error(name, "this is no release build: its figures mean nothing");
    }
}

/// Writes a report to the file given by `--json`.
pub fn write_json(report: &impl Serialize, path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(path, text).with_context(|| format!("--json {}", path.display()))
}

#[expect(clippy::print_stderr, reason = "the command ends with this")]
fn report_error(name: &str, text: &str) {
    eprintln!("{name}: {text}");
}
