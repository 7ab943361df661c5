//! End of a benchmark's command: its report as JSON, its error, its exit status.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;

/// The exit status of a command, and its error for people.
pub fn finish(name: &str, done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error(name, &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Says so where the figures of this build would mean nothing.
pub fn warn_of_debug_build(name: &str) {
    if cfg!(debug_assertions) {
        say_error(name, "this is no release build: its figures mean nothing");
    }
}

/// Writes a report where `--json` wants it.
///
/// # Errors
/// When the file can't be written.
pub fn write_json(report: &impl Serialize, path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)?;
    std::fs::write(path, text).with_context(|| format!("--json {}", path.display()))
}

#[expect(clippy::print_stderr, reason = "the command ends with this")]
fn say_error(name: &str, text: &str) {
    eprintln!("{name}: {text}");
}
